"""The folder of a run: a fresh one, and the configuration in one that is there."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from fsl_cli.errors import UserError
from fsl_cli.files import writing
from fsl_cli.settings.earlier import upgraded


def first_process() -> bool:
    """Whether this is the only process of its run, or the one of several, on whatever machine, that writes."""
    ranks = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")  # torchrun's, Slurm's, and Lightning's own two
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


def new_folder(out: str, name: str) -> Path:
    """A fresh folder `out`/`name`/<time>; for a process that does not write, one that is gone when it ends.

    Raises UserError when it cannot be made.
    """
    if not first_process():
        own = tempfile.mkdtemp(prefix="fsl-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        return Path(own)
    parent = Path(out).expanduser() / name
    stem = time.strftime("%Y-%m-%d_%H-%M-%S")
    with writing(parent, "Choose another folder with out=FOLDER."):
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # another run began within this second
                continue
    raise UserError(f"{parent} already holds a thousand runs of this second. Choose another folder with out=FOLDER.")


def saved_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run was started with. Raises UserError when the folder holds no run."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder. Type one that fsl train made, such as outputs/….")
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds no run: it has no config.yaml. Type a folder that fsl train made.")
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} holds no run: config.yaml cannot be read ({reason}).") from error
    chosen = values.get("choices") if isinstance(values, dict) else None
    if not isinstance(chosen, dict) or not {"algo", "data"} <= chosen.keys():
        raise UserError(f"{folder / 'config.yaml'} is not the configuration of a run.")
    return upgraded(values)
