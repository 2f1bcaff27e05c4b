"""Data sets and episodes: images in memory, episodes as a function of (seed, split, index), one source a file.

No network sees anything here.
"""
