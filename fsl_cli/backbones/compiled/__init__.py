"""The compiled kernel of norm and ReLU, and its two doors: building it, and calling it from autograd.

Everything runs without it.
"""
