"""One training: its data, model, processes, and what it notes."""
