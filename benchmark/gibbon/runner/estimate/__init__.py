"""Estimates what a run will take: passes, time, memory and disk, before anything is computed."""
