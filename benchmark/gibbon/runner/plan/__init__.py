"""Resolves a suite into a plan: loaded models and datasets, attacks and cells."""
