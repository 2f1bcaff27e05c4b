"""Features of pictures, computed once: kept by the network's weights and the picture's bytes, wherever it lies."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.decode import Classes, File
from fsl_cli.data.photos import photos
from fsl_cli.data.store import Images, cache_folder
from fsl_cli.data.text_files import decoded_texts
from fsl_cli.data.vector_files import vectors
from fsl_cli.use.predictor import Predictor

TOGETHER = 4096  # vectors at a time
KEPT = 200_000  # pictures of a network, the latest; a thousand take 5 MB


class Picture(NamedTuple):
    """A file, what it shows as far as known, and its content."""

    label: str
    file: File
    digest: str  # of its bytes


def digests_of(classes: Classes) -> dict[str, str]:
    """The digest of each file's bytes, by its name; nothing is decoded."""
    return {file.name: _digest(file) for files in classes.values() for file in files}


def items(
    run: Predictor, classes: Classes, digests: dict[str, str], on_error: str, skipped: list[str]
) -> Iterator[tuple[list[Picture], Tensor]]:
    """The pictures, texts or vectors of these files and digests, as the method needs them, class by class, in pieces.

    Features (n, d) where they are all that it asks for, else pixels (n, channels, size, size). The others as `photos`.
    """

    def decoded(some: Classes) -> Iterator[tuple[list[tuple[str, File]], Images]]:
        if run.image.items == "texts":
            return decoded_texts(some, run.image.size)
        return photos(some, run.image.size, run.image.channels, on_error, skipped)

    if run.image.items == "embeddings":
        yield from _vectors(run, classes, digests)
        return
    if not run.backbone:
        for pairs, images in decoded(classes):
            yield [Picture(label, file, digests[file.name]) for label, file in pairs], torch.from_numpy(images)
        return
    kept = Kept(cache_folder(None) / "pictures" / f"{run.key}.sqlite")
    known = kept.read(set(digests.values()))
    new = {name: own for name, files in classes.items() if (own := [f for f in files if digests[f.name] not in known])}
    if on_error == "skip":  # a class of which nothing can be read is refused: of one that is known, something can
        for name, own in new.items():
            own += [file for file in classes[name] if digests[file.name] in known][:1]
    for pairs, images in decoded(new) if new else ():
        rows = run.embedded(torch.from_numpy(images))
        found = {digests[file.name]: row for (_, file), row in zip(pairs, rows, strict=True)}
        kept.write(found)
        known |= found
    ordered = [Picture(name, file, digests[file.name]) for name in sorted(classes) for file in classes[name]]
    there = [picture for picture in ordered if picture.digest in known]
    if there:
        yield there, torch.stack([known[picture.digest] for picture in there])


def _vectors(run: Predictor, classes: Classes, digests: dict[str, str]) -> Iterator[tuple[list[Picture], Tensor]]:
    """`items` for vectors: nothing is kept, as what a network makes of a vector costs little."""
    ordered = [Picture(name, file, digests[file.name]) for name in sorted(classes) for file in classes[name]]
    for start in range(0, len(ordered), TOGETHER):
        some = ordered[start : start + TOGETHER]
        found = torch.from_numpy(vectors(each.file for each in some))[:, :, None, None]  # (n, d, 1, 1)
        yield some, run.embedded(found) if run.backbone else found


class Kept:
    """Features by a picture's digest, in one file that several processes may use; none where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.base: sqlite3.Connection | None = None
        with suppress(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(path, timeout=30)
            base.execute("create table if not exists features (digest text primary key, vector blob)")
            self.base = base

    def read(self, digests: Iterable[str]) -> dict[str, Tensor]:
        """The kept features of these pictures, as far as there are any."""
        found = {}
        with suppress(sqlite3.Error):
            for digest in digests if self.base else ():
                rows = self.base.execute("select vector from features where digest = ?", [digest]) if self.base else []
                for (vector,) in rows:
                    found[digest] = torch.from_numpy(np.frombuffer(vector, dtype=np.float32).copy())
        return found

    def write(self, features: dict[str, Tensor]) -> None:
        """Keep these features too; the oldest are removed if there are too many."""
        if not self.base:
            return
        with suppress(sqlite3.Error), self.base:
            rows = [(digest, row.float().numpy().tobytes()) for digest, row in features.items()]
            self.base.executemany("insert or replace into features values (?, ?)", rows)
            self.base.execute(f"delete from features where rowid <= (select max(rowid) from features) - {KEPT}")


def _digest(file: File) -> str:
    """A hash of a file's bytes; of its name if they cannot be read, which decoding will report."""
    try:
        content = bytes(file.read())
    except Exception:  # what a folder or an archive may raise
        content = file.name.encode(errors="surrogateescape")
    return hashlib.blake2b(content, digest_size=12).hexdigest()
