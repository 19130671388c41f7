"""Parts of tables: layout, numbers as text, notes, look-up of results, and flags in groups."""
