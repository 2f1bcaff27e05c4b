"""A wheel works in an environment of its own, away from the checkout, with its configuration inside."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_wheel_trains_outside_the_checkout(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(CHECKOUT), cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    # the dependencies, gigabytes of them, are borrowed from this environment; fsl itself is not
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    borrowed = Path(sysconfig.get_path("purelib"))
    for entry in borrowed.iterdir():
        if "fsl" not in entry.name and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel), cwd=tmp_path)
    small = ["steps=2", "val_every=1", "val_episodes=2", "episodes=3", "data.train_classes=30", "data.test_classes=10"]
    fsl = str(tmp_path / "venv" / "bin" / "fsl")
    shown = run(fsl, "train", *small, "data.val_classes=10", cwd=tmp_path)
    assert "test accuracy" in shown
    assert len(list((tmp_path / "outputs").glob("*/*/result.json"))) == 1
    run(fsl, "report", "outputs", "to=report.html", cwd=tmp_path)
    assert "Hardest and easiest" in (tmp_path / "report.html").read_text()
    where = run(str(python), "-c", "import fsl_cli.settings.registry as r; print(r.conf_dir())", cwd=tmp_path)
    assert str(site) in where


def run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cwd / "cache"), "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
