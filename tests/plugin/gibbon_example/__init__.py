"""An example of a package that brings a model, an attack and a dataset."""
