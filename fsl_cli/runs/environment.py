"""Where a run ran: versions, device, threads, processor, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Where a run ran: versions, device, threads, processor, commit."""
    import torch

    packages = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "numpy")
    return {
        "fsl": _own_version(),
        "commit": commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": platform.platform(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
        "processor": _processor(),
    }


def _processor() -> str | None:
    """The processor's name on Linux; None elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _own_version() -> str:
    from fsl_cli import __version__

    return __version__


def commit() -> str | None:
    """The commit of the checkout that fsl runs from, with `+` when files differ from it; None outside one."""
    commit = _git("rev-parse", "--short", "HEAD")
    return commit and commit.strip() + ("+" if changes() else "")


def changes() -> str:
    """How fsl's files differ from their commit, as `git apply` reads it; nothing outside a checkout."""
    return _git("diff", "HEAD", "--", ".", "../conf") or ""


def _git(*words: str) -> str | None:
    """The output of git for the checkout that fsl runs from; None outside one."""
    here = Path(__file__).resolve().parents[1]
    try:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError):
        return None
