"""Types and functions that every other package uses: errors, threat models, random streams."""
