"""Progress of runs, checks and trainings: what reports it, and how it is shown."""
