"""fused.c, compiled on this machine by its own C compiler, once, into the user's cache; a second, and 30 kB.

Everything works without it, more slowly: no compiler, a cache that cannot be written or FSL_KERNEL=0 in the
environment, and `library()` is None. It is called through ctypes, so it knows nothing of Python or torch versions,
and other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-shared", "-fPIC")  # trapping: comparisons stay scalar
LIBRARIES = ("-lm",)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if os.environ.get("FSL_KERNEL") == "0" or os.name != "posix":
        return None
    try:
        source = Path(__file__).with_name("fused.c").read_bytes()
        name = hashlib.sha256(source + repr((FLAGS, _processor())).encode()).hexdigest()[:16]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fsl" / "kernels"
        built = folder / f"fused-{name}.so"
        if not built.exists() and compiler:
            _build(compiler, built)
        return ctypes.CDLL(str(built))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: no home
        return None


def _build(compiler: str, target: Path) -> None:
    """Under a name of its own, renamed when whole: other processes may be building it too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder) / target.name
        source = str(Path(__file__).with_name("fused.c"))
        subprocess.run(
            [compiler, *FLAGS, "-o", str(fresh), source, *LIBRARIES],
            check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        fresh.replace(target)


def _processor() -> tuple[str, ...]:
    """What code for this very processor depends on; a home directory may be shared with others."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    marks = ("flags", "Features", "model name")
    return platform.platform(), *sorted({line for line in lines if line.startswith(marks)})


def fits(x: Tensor) -> bool:
    """Whether the kernels take x (n, C, H, W), and are the faster way: they use one core, torch all it has."""
    alone = torch.get_num_threads() == 1
    return alone and x.dtype == torch.float32 and x.permute(0, 2, 3, 1).is_contiguous() and library() is not None


def forward(x: Tensor, w: Tensor, b: Tensor, k: int, eps: float) -> tuple[Tensor, Tensor]:
    """y, and statistics (4, C): mean, r, w r, b - mean w r."""
    y, stats = torch.empty_like(x), x.new_empty(4, x.shape[1])
    _call("norm_forward", x, w.contiguous(), b.contiguous(), y, stats, _work(x), *_sizes(x, k), ctypes.c_double(eps))
    return y, stats


def backward(g: Tensor, x: Tensor, stats: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dw, db."""
    dx, dw, db = torch.empty_like(x), torch.empty_like(stats[0]), torch.empty_like(stats[0])
    _call("norm_backward", _rows(g), x, stats, dx, dw, db, _work(x), *_sizes(x, k))
    return dx, dw, db


def second(
    v: Tensor, a: Tensor, c: Tensor, g: Tensor, x: Tensor, w: Tensor, stats: Tensor, dw: Tensor, db: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of sum(v dx) + sum(a dw) + sum(c db) with respect to g, x and w."""
    dg, dx, ddw = torch.empty_like(x), torch.empty_like(x), torch.empty_like(w)
    inputs = _rows(v), a.contiguous(), c.contiguous(), _rows(g), x, w.contiguous(), stats, dw, db
    _call("norm_second", *inputs, dg, dx, ddw, _work(x), *_sizes(x, k))
    return dg, dx, ddw


def _call(name: str, *arguments: Tensor | ctypes.c_long | ctypes.c_double) -> None:
    given = [ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else value for value in arguments]
    getattr(library(), name)(*given)


def _rows(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).contiguous()


def _work(x: Tensor) -> Tensor:
    """Room for the kernels' sums: 3 double and 9 float numbers for each channel."""
    return torch.empty(8 * x.shape[1], dtype=torch.float64)


def _sizes(x: Tensor, k: int) -> tuple[ctypes.c_long, ctypes.c_long, ctypes.c_long]:
    """Rows, rows that give the statistics, channels."""
    n, channels, height, width = x.shape
    return ctypes.c_long(n * height * width), ctypes.c_long(k * height * width), ctypes.c_long(channels)
