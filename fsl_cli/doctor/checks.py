"""What fsl doctor looks at; nothing here imports torch, or trusts that anything else can be imported."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

CORE = (
    "torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "rich", "torchmetrics", "matplotlib",
    "numpy", "scipy", "filelock", "packaging", "pyyaml",
)  # fmt: skip
EXTRAS = (
    "scikit-learn", "timm", "hydra-joblib-launcher", "hydra-submitit-launcher", "hydra-ray-launcher", "optuna",
    "tensorboard", "mlflow", "mlflow-skinny", "wandb", "comet-ml", "onnx", "onnxscript", "onnxruntime",
)  # fmt: skip
VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME",
    "LD_LIBRARY_PATH", "PYTHONPATH", "FSL_KERNEL",
)  # fmt: skip
PATIENCE = 120  # seconds that torch may take to be imported


def found_or_error(ask: Callable[[], Any]) -> Any:
    """What `ask` finds, or {"error": ...}: a doctor must not die of what it looks for."""
    try:
        return ask()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def machine() -> dict[str, Any]:
    """Python, the system, cores and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= getattr(os, "sysconf_names", {}).keys()
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": cores,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if pages else None,
    }


def versions(names: tuple[str, ...]) -> dict[str, str | None]:
    """The version of each package as it was installed, None where it was not."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def probe() -> dict[str, Any]:
    """What torch, torchvision and the compiled kernel say for themselves, asked in a process of its own."""
    source = Path(__file__).with_name("torch_probe.py").read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, encoding="utf-8", timeout=PATIENCE, env=environment
        )
        said, end = done.stdout, f"its process died (exit code {done.returncode})"
    except subprocess.TimeoutExpired as expired:
        said, end = str(expired.stdout or b"", "utf-8"), f"no answer after {PATIENCE} seconds"
    lines = [json.loads(line) for line in said.splitlines() if line.startswith(('{"torch', '{"kernel'))]
    silent = {name: {"error": end} for name in ("torch", "torchvision", "kernel")}
    return {key: value for found in [silent, *lines] for key, value in found.items()}


def build(name: str) -> str:
    """cpu, cu130, ...: what torch or torchvision was built for, read from its files; "" where they do not tell."""
    found = PathFinder.find_spec(name)
    if not found or not found.origin or not (Path(found.origin).parent / "version.py").exists():
        return ""
    text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^__version__ = '[^'+]*\+([\w.]+)'", text, re.MULTILINE)
    return match[1] if match else ""


def requirements(package: str) -> dict[str, str]:
    """What an installed package asks of others, its extras left out, such as {"torch": ">=2.6"}; {} where unknown."""
    try:
        asked = [line for line in requires(package) or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return {}
    matches = [re.match(r"([\w.-]+)\s*\(?([^;)]*)", line) for line in asked]
    return {match[1]: match[2].strip() for match in matches if match}


def nvidia() -> list[str]:
    """Each NVIDIA GPU and its driver, as the driver tells; empty where there is none."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, encoding="utf-8", timeout=20)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def disk(path: Path) -> dict[str, Any]:
    """Free and total bytes where a folder lies, or will lie."""
    there = next(each for each in [path, *path.parents] if each.exists())
    usage = shutil.disk_usage(there)
    return {"path": str(path), "free": usage.free, "total": usage.total, "writable": os.access(there, os.W_OK)}


def folder_size(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
