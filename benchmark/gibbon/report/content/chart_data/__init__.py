"""The content of curves, histograms, heat maps and galleries."""
