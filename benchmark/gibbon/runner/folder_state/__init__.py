"""The state of a run's folder: who holds it, what it has lost, and whether its run is finished."""
