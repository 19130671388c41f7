"""Regenerates the tables and pictures of this repository's pages from stored runs."""
