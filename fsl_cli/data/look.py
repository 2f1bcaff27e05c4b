"""What kind of pictures a user's folder holds: found out from their names and a few of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fsl_cli.data.decode import File
from fsl_cli.data.layouts import UNSORTED, find
from fsl_cli.data.listed import Chosen
from fsl_cli.data.sources.folder import divide, divided_pictures, without_single

LOOKED_AT = 48  # pictures
COLOURED = 8  # of 255: how far apart red, green and blue are on average in a picture that has colours
SHADES = 0.3  # the share of pixels between dark and light in a photograph at least; a drawing has ink and paper


class Look(NamedTuple):
    """What there is to learn from."""

    classes: dict[str, int]  # split -> how many
    least: dict[str, int]  # split -> pictures of its smallest class
    sizes: dict[str, list[int]]  # split -> pictures of each class
    pictures: int  # of the training split
    side: int  # pixels of the shorter side, in the middle of those looked at
    coloured: bool
    photographs: bool  # else drawings, writing and the like
    unsorted: bool = False

    def words(self) -> str:
        """20 classes of 20 coloured photographs or more, 300 pixels"""
        kind = f"{'coloured' if self.coloured else 'grey'} {'photographs' if self.photographs else 'drawings'}"
        if self.unsorted:
            return f"{self.pictures} {kind} or more, {self.side} pixels, without labels"
        return f"{sum(self.classes.values())} classes of {min(self.least.values())} {kind} or more, {self.side} pixels"


def look(
    root: str, chosen: Chosen, on_small: str, fractions: dict[str, float], split_seed: int, unsorted: bool = False
) -> Look:
    """Read the names of all pictures in a folder, or in another place that `find` reads, and some of the pictures.

    The rest are settings of data=folder; `fractions` of the val and test split. Raises UserError as `find` does.
    """
    groups, _, _, lost = find(root, chosen=chosen, unsorted=unsorted)
    alone = list(groups.get("", {})) == [UNSORTED]
    if alone:
        groups = divided_pictures(groups[""][UNSORTED], fractions, split_seed)
    if on_small == "skip":
        groups, _ = without_single(groups)
    pictures = {name: own for group in groups.values() for name, own in group.items()}
    lists = divide(groups, fractions, split_seed, root, lost)
    files = [picture.file for name in sorted(lists["train"]) for picture in pictures[name]]
    seen = list(_seen(files[:: max(1, len(files) // LOOKED_AT)])) or [(84, COLOURED, 1.0)]
    sizes = {part: [len(pictures[name]) for name in names] for part, names in lists.items()}
    return Look(
        {part: len(names) for part, names in lists.items()},
        {part: min(each) for part, each in sizes.items()},
        sizes,
        len(files),
        int(median(side for side, _, _ in seen)),
        float(np.mean([colour >= COLOURED for _, colour, _ in seen])) > 0.1,
        float(np.median([shades for *_, shades in seen])) >= SHADES,
        alone,
    )


def _seen(files: list[File]) -> Iterator[tuple[int, float, float]]:
    """Of each picture that can be read: its shorter side, how coloured it is, and its share of middle shades."""
    for file in files:
        try:
            with Image.open(io.BytesIO(file.read())) as image:
                side = min(image.size)
                small = image.convert("RGB").resize((64, 64), Image.Resampling.BOX)
        except Exception:  # noqa: S112  # what cannot be read is told when all are
            continue
        pixels: Any = np.asarray(small, dtype=np.float32)
        low, high = np.percentile(pixels, (1, 99))
        grey = (pixels.mean(-1) - low) / max(high - low, 1)
        yield side, float((pixels.max(-1) - pixels.min(-1)).mean()), float(((grey > 0.15) & (grey < 0.85)).mean())
