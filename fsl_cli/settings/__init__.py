"""Settings: composed from conf/ (compose), checked against what they name (binding), read from words.

Nothing is built or run here.
"""
