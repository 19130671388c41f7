"""The viewer of single examples: filters, pictures, answers of all models, and its local server."""
