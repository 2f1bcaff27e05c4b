"""The compiled kernels, and their doors: building them (kernel.py), and autograd's (fused.py: norm and ReLU; block.py).

Everything runs without it.
"""
