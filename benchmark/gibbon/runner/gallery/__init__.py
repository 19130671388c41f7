"""Galleries: the choice of examples to show, and the recovery of their candidates."""
