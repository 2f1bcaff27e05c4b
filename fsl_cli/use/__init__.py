"""A run put to use: it learns classes from a few pictures, classifies others, and is exported.

Nothing is meta-trained here.
"""
