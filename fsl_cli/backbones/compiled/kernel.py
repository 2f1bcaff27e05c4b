"""kernels.c, compiled on this machine by its own C compiler, once, into the user's cache; fifteen seconds, and 400 kB.

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

SOURCE = Path(__file__).with_name("kernels.c")  # which includes its neighbours
# without trapping math comparisons are vectorised too
FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-shared", "-fPIC")
THREADS = ("-fopenmp",)  # torch's own threads, where its libgomp has the usual name; not every compiler has it
LIBRARIES = ("-lm",)
PARTS = 8  # as in fused.c
NAMES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if os.environ.get("FSL_KERNEL") == "0" or os.name != "posix":
        return None
    try:
        source = b"".join(path.read_bytes() for path in sorted(SOURCE.parent.glob("*.c")))
        name = hashlib.sha256(source + repr((FLAGS, THREADS, _processor())).encode()).hexdigest()[:16]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fsl" / "kernels"
        built = folder / f"kernels-{name}.so"
        if not built.exists() and compiler:
            _build(compiler, built)
        return ctypes.CDLL(str(built))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: no home
        return None


def _build(compiler: str, target: Path) -> None:
    """Compile under a temporary name, renamed when whole: other processes may be compiling too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder) / target.name
        for threads in (THREADS, ()):
            done = subprocess.run(
                [compiler, *FLAGS, *threads, "-o", str(fresh), str(SOURCE), *LIBRARIES],
                check=not threads, timeout=300,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode == 0:
                break
        fresh.replace(target)


def _processor() -> tuple[str, ...]:
    """What tells this processor from others: a home directory may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    marks = ("flags", "Features", "model name")
    return platform.platform(), *sorted({line for line in lines if line.startswith(marks)})


def preferred() -> bool:
    """Whether there are kernels, and they are faster than torch: without OpenMP they use one core, torch uses all."""
    compiled = library()
    return compiled is not None and (torch.get_num_threads() == 1 or bool(compiled.parallel()))


def fits(x: Tensor) -> bool:
    """Whether the kernels take x (n, C, H, W)."""
    return x.dtype in NAMES and x.permute(0, 2, 3, 1).is_contiguous() and preferred()


def forward(x: Tensor, w: Tensor, b: Tensor, k: int, eps: float, pool: bool) -> tuple[Tensor, Tensor]:
    """y, and statistics (4, C): mean, r, w r, b - mean w r."""
    n, channels, height, width = x.shape
    shape = (n, channels, height // 2, width // 2) if pool else x.shape
    y = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    stats = w.new_empty(4, channels)
    call(
        f"norm_forward_{NAMES[x.dtype]}",
        x,
        w.contiguous(),
        b.contiguous(),
        y,
        stats,
        *_room(x, k, pool),
        ctypes.c_double(eps),
    )
    return y, stats


def backward(g: Tensor, x: Tensor, stats: Tensor, k: int, pool: bool) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dw, db."""
    dx, dw, db = torch.empty_like(x), torch.empty_like(stats[0]), torch.empty_like(stats[0])
    call(f"norm_backward_{NAMES[x.dtype]}", _rows(g), x, stats, dx, dw, db, *_room(x, k, pool))
    return dx, dw, db


def second(
    v: Tensor, a: Tensor, c: Tensor, g: Tensor, x: Tensor, w: Tensor, stats: Tensor, dw: Tensor, db: Tensor, k: int,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The derivatives of sum(v dx) + sum(a dw) + sum(c db) with respect to g, x and w."""
    dg = torch.empty_like(g, memory_format=torch.channels_last)
    dx, ddw = torch.empty_like(x), torch.empty_like(w)
    inputs = _rows(v), a.contiguous(), c.contiguous(), _rows(g), x, w.contiguous(), stats, dw, db
    call(f"norm_second_{NAMES[x.dtype]}", *inputs, dg, dx, ddw, *_room(x, k, pool))
    return dg, dx, ddw


def call(name: str, *arguments: Tensor | ctypes.c_double | ctypes.c_long | None) -> None:
    """A function of the library on tensors, contiguous ones, whose addresses it gets; None is NULL."""
    given = [ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else value for value in arguments]
    getattr(library(), name)(*given)


def _rows(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).contiguous()


def _room(x: Tensor, k: int, pool: bool) -> tuple[Tensor, Tensor]:
    """Room for the kernels' sums and factors, 6 C doubles a part and 5 C more; and the sizes that they go by."""
    n, channels, height, width = x.shape
    room = torch.empty((6 * PARTS + 5) * channels, dtype=torch.float64)
    return room, torch.tensor([n, k, height, width, channels, pool, torch.get_num_threads()])
