"""Published rows, trained by their recipes to the end: which there are, how far each is, running one, and the tables.

The papers' numbers stand in runs/published.yaml, and are not repeated here.
"""
