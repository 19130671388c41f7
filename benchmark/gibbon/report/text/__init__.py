"""Tables as text: CSV, markdown, LaTeX, the terminal, notebooks and GitHub summaries."""
