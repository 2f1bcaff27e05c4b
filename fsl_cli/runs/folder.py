"""A fresh folder for a run."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from pathlib import Path

from fsl_cli.errors import UserError
from fsl_cli.files import first_process, writing


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
