"""Devices: where models are computed, in which arithmetic, and how many are in memory."""
