"""One verb a file: its words, its help, one call, and what is shown. Work belongs into the rooms below."""
