"""fsl: a command-line laboratory for few-shot learning and meta-learning."""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0"
__all__ = ["__version__", "load_run"]


def __getattr__(name: str) -> Any:
    """`from fsl_cli import load_run` imports torch, `import fsl_cli` does not."""
    if name == "load_run":
        from fsl_cli.use.predictor import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
