"""fsl: a command-line laboratory for few-shot learning and meta-learning."""

__version__ = "0.1.0"
