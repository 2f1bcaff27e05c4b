"""A run on disk: its folder, its files and their schema, its checkpoints, and the notes of a sweep.

Nothing is trained or drawn here.
"""
