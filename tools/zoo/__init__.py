"""Makes stored data from the models of the zoo."""
