"""A classifier that is kept: a run's folder that also holds the support set it has learned from."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsl_cli.backbones.weights import demand_stored
from fsl_cli.data.decode import Classes, File
from fsl_cli.data.places import disk_file
from fsl_cli.data.text_files import Text, as_file
from fsl_cli.data.texts import cleaned
from fsl_cli.errors import UserError
from fsl_cli.files import all_or_nothing, make_folder, read_text, replacing, write_json
from fsl_cli.runs.checkpoints import write_torch
from fsl_cli.runs.environment import environment
from fsl_cli.runs.records import Result
from fsl_cli.runs.run import Run
from fsl_cli.use.predictor import Predictor

FILE = "support.npz"
ROWS = "class_rows"  # their array in it
UNLABELLED = ""  # the label of a picture whose class nobody knows
COPIED = (
    "config.yaml",
    "overrides.txt",
    "environment.json",
    "classes.json",
    "calibration.json",
    "checkpoints/best.ckpt",
)


class Support(NamedTuple):
    """Known pictures, as the method needs them."""

    items: Tensor  # (n, d) features, or (n, channels, size, size) pixels
    labels: list[str]  # UNLABELLED where nobody knows
    files: list[str]  # where each picture was
    digests: list[str]  # of its bytes
    sources: dict[str, File]  # of those that were just read, by name
    class_rows: dict[str, Any] = {}  # of a class a vector (k,), for methods that read these

    def having(self, other: Support) -> Support:
        """The support set with more pictures; one that is there already takes its new label."""
        new = set(other.digests)
        stay = [i for i, digest in enumerate(self.digests) if digest not in new]

        def both(own: list[str], more: list[str]) -> list[str]:
            return [own[i] for i in stay] + more

        return Support(
            torch.cat([self.items[stay], other.items]),
            both(self.labels, other.labels),
            both(self.files, other.files),
            both(self.digests, other.digests),
            {**self.sources, **other.sources},
            {**self.class_rows, **other.class_rows},
        )


def keep(folder: Path, predictor: Predictor, support: Support) -> None:
    """Write the run and the support set into a folder, from which `fsl predict run=FOLDER` goes on; all or nothing."""
    with all_or_nothing(folder):
        make_folder(folder)
        if not (folder / "config.yaml").exists():
            _write_run(folder, predictor)
        _write_support(folder, support)


def _write_support(folder: Path, support: Support) -> None:
    with replacing(folder / FILE) as temporary, open(temporary, "wb") as file:
        labels, files, digests = (
            np.array(each, dtype=str) for each in (support.labels, support.files, support.digests)
        )
        rows: dict[str, Any] = {"class_names": np.array(list(support.class_rows), dtype=str)}
        rows |= {"class_rows": np.stack(list(support.class_rows.values()))} if support.class_rows else {}
        np.savez(file, items=support.items.numpy(), labels=labels, files=files, digests=digests, **rows)


def _write_run(folder: Path, predictor: Predictor) -> None:
    """What `load_run` needs of a run: a copy, or, where it has no folder yet, its first."""
    own, new = predictor.run, Run(folder)
    make_folder(new.best.parent)
    if (own.folder / "config.yaml").exists():
        more = [Result.FILE] if predictor.finetuning else []  # which says at which rate
        for name in (*COPIED, *more):
            if (own.folder / name).exists():
                shutil.copyfile(own.folder / name, folder / name)
        return
    state = {f"algorithm.{name}": value for name, value in predictor.algorithm.state_dict().items()}
    write_torch(new.best, {"state_dict": state, "global_step": 0})
    write_json(folder / "environment.json", environment())
    new.begin(own.settings, [])


def kept(folder: Path) -> Support | None:
    """The support set in a run's folder; None where there is none. Raises UserError where it cannot be read."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        demand_stored(path)
        with np.load(path, allow_pickle=False) as found:
            labels, files, digests = (found[name].tolist() for name in ("labels", "files", "digests"))
            rows = dict(zip(found["class_names"].tolist(), found["class_rows"], strict=True)) if ROWS in found else {}
            return Support(torch.from_numpy(found["items"]), labels, files, digests, {}, rows)
    except (OSError, ValueError, KeyError, MemoryError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}). Name the pictures again: support=FOLDER.") from error


def corrections(table: str) -> Classes:
    """The pictures of a CSV and their right labels, by label: its column true, where it is filled in, else label.

    Paths are as `fsl predict` writes them, from here or from where the CSV lies. Raises UserError.
    """
    path, rows = Path(table).expanduser(), _rows(table)
    if not rows or not {"file"} <= rows[0].keys() or not {"label", "true"} & rows[0].keys():
        raise UserError(f"correct={table}: needs the columns file and label (or true), and a line for each picture.")
    found: Classes = {}
    missing = []
    for row in rows:
        name, label = row["file"] or "", (row.get("true") or row.get("label") or "").strip()
        place = next((each for each in (Path(name), path.parent / name) if _is_there(each)), None)
        if place and label:
            found.setdefault(label, []).append(disk_file(place.expanduser())._replace(name=name))
        else:
            missing.append(name)
    if missing:
        raise UserError(
            f"correct={table}: {len(missing)} of its {len(rows)} pictures are not there, or have no label, such as "
            f"{missing[0] or 'one without a name'}. Take these lines out."
        )
    return found


def text_corrections(table: str) -> Classes:
    """The texts of a CSV as `fsl predict` writes it, by their right labels, as `corrections` does of pictures."""
    rows, found = _rows(table), dict[str, list[File]]()
    if not rows or not {"file", "text"} <= rows[0].keys() or not {"label", "true"} & rows[0].keys():
        raise UserError(f"correct={table}: needs the columns file, text and label (or true), a line for each text.")
    for row in rows:
        text, label = cleaned(row["text"] or ""), (row.get("true") or row.get("label") or "").strip()
        if not text or not label:
            raise UserError(f"correct={table}: {row['file']} has no text or no label. Take this line out.")
        found.setdefault(label, []).append(as_file(Text(text, row["file"] or "")))
    return found


def _rows(table: str) -> list[dict[str, str]]:
    try:
        text = read_text(Path(table).expanduser()).removeprefix("\ufeff")
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except (UserError, csv.Error) as error:
        raise UserError(f"correct={table} cannot be read: {error}.") from error


def _is_there(path: Path) -> bool:
    try:
        return path.expanduser().is_file()
    except (OSError, RuntimeError):  # a name that is too long, or of nobody's home
        return False
