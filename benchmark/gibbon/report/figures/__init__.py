"""Figures drawn with matplotlib, and the files that hold them."""
