"""Models: the classifier that wraps a torch module, and the sources that models come from."""
