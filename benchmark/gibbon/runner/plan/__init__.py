"""The plan of a run: a suite resolved into loaded models, datasets, attacks and cells."""
