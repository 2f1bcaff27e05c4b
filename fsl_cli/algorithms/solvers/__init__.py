"""Heads that are solved for: tensors in, weights out. No networks and no episodes."""
