"""Run by fsl doctor in a process of its own, which may die of a broken torch: what torch and torchvision say.

Prints one line of JSON for each of the two, and for the compiled kernel, as soon as it is known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


def about_torch() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "gpus": [{"name": gpu.name, "bytes": gpu.total_memory} for gpu in gpus],
        "mps": torch.backends.mps.is_available(),
    }


def about_torchvision() -> dict[str, Any]:
    import torchvision

    return {"version": torchvision.__version__}


def about_kernel() -> dict[str, Any]:
    from fsl_cli.backbones.compiled.kernel import library

    return {"compiled": library() is not None}


def say(name: str, ask: Callable[[], dict[str, Any]]) -> None:
    try:
        found = ask()
    except Exception as error:  # a package that does not fit another raises nearly anything
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    print(json.dumps({name: found}), flush=True)


if __name__ == "__main__":
    sys.path[:] = [place for place in sys.path if place]  # a torch.py where the user stands is not torch
    say("torch", about_torch)
    say("torchvision", about_torchvision)
    say("kernel", about_kernel)
