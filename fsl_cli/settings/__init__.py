"""What a run is made of: composed from conf/ (compose), checked against what it names (binding), read from words.

Nothing is built or run here.
"""
