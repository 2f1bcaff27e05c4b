"""Checks that an exported graph gives the answers of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsl_cli.data.decode import File
from fsl_cli.data.photos import opened
from fsl_cli.data.queries import queries
from fsl_cli.errors import UserError
from fsl_cli.settings.registry import names
from fsl_cli.use.saved import Support

Call = Callable[[Tensor], list[Tensor]]  # pictures (n, height, width, 3) uint8 -> the outputs
TOLERANCE = 1e-4  # of the range of the run's logits, or features
ROUNDING = 2e-6  # of the largest of them
LOOKED = 32  # support pictures
ASKED = 1000  # pictures of a query
SIDES = ((61, 97), (97, 61), (150, 40), (30, 31))  # of random pictures, beside the run's own


class Difference(NamedTuple):
    """The largest difference of logits, or features, from those of the run."""

    absolute: float
    relative: float  # to their range
    random: int  # pictures compared
    real: int


def random_pictures(size: int) -> list[Image.Image]:
    """Soft spots of colour under noise, of several sides, twice each; the same each time."""
    dice, found = np.random.default_rng(0), []
    for width, height in [side for side in ((size, size), *SIDES) for _ in range(2)]:
        spots = Image.fromarray(dice.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height))
        noisy = np.asarray(spots) + dice.integers(-20, 21, (height, width, 3))
        found.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    return found


def pictures(support: Support, size: int) -> list[Image.Image]:
    """Some of a support set, as decoded; where the files are gone and pixels were kept, as the run sees them."""
    count = len(support.files)
    found = []
    for i in sorted({j * count // LOOKED for j in range(LOOKED)}) if count else ():
        name = support.files[i]
        try:
            file = support.sources.get(name) or File(name, Path(name).expanduser().read_bytes)
            found.append(opened(file, size))
        except (OSError, ValueError, SyntaxError):
            if support.items.ndim == 4:
                pixels = support.items[i].permute(1, 2, 0).expand(-1, -1, 3)
                found.append(Image.fromarray(pixels.contiguous().numpy()))
    return found


def query_pictures(query: str, classes: Sequence[str], size: int) -> tuple[list[Image.Image], list[int | None]]:
    """Pictures that `query` names as `fsl predict` has it, as decoded, and the number of the class of each, if known.

    Raises UserError.
    """
    found: list[Image.Image] = []
    labels: list[int | None] = []
    words = [query] if Path(query).expanduser().exists() else names(query)
    for each in queries(words, classes)[:ASKED] if query else ():
        try:
            found.append(opened(each.file, size))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{each.file.name} cannot be read: {error}. Delete it, or save it again.") from error
        labels.append(None if each.label is None else list(classes).index(each.label))
    return found, labels


def answers(call: Call, pictures: Sequence[Image.Image]) -> list[list[Tensor]]:
    """What a graph says of each picture; those of one size that follow each other are given together."""
    found: list[list[Tensor]] = []
    while len(found) < len(pictures):
        rest = pictures[len(found) :]
        alike = next((i for i, picture in enumerate(rest) if picture.size != rest[0].size), len(rest))
        batch = torch.from_numpy(np.stack([np.array(picture) for picture in rest[: min(alike, 16)]]))
        found += [[part[None] for part in parts] for parts in zip(*call(batch), strict=True)]
    return found


def compared(wanted: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]], random: int) -> Difference:
    """How far the first outputs are apart, the others by 0.001 at most. Raises UserError where it is no rounding."""
    outputs = zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True)
    (want, got), *others = ((torch.cat(a).double(), torch.cat(b).double()) for a, b in outputs)
    centred = want - want.mean(1, keepdim=True)  # what all logits of a picture have in common says nothing
    spread, off = float(centred.max() - centred.min()), float((got - want).abs().max())
    most = TOLERANCE * spread + ROUNDING * float(want.abs().max())
    more = max((float((b - a).abs().max()) for a, b in others), default=0.0)
    if not (off <= most and more <= 1e-3):
        raise UserError(
            f"The graph differs from the run: by {off:.1e} where {most:.1e} is rounding. Nothing is written. Try the "
            "other format."
        )
    return Difference(off, off / max(spread, 1e-30), random, len(wanted) - random)


def disagreement(
    wanted: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]], true: Sequence[int | None]
) -> dict[str, Any]:
    """How the answers of a graph, a classifier or an embedding, differ from the run's, by name for JSON and people."""
    want, got = ([torch.cat(parts) for parts in zip(*each, strict=True)] for each in (wanted, found))
    told: dict[str, Any] = {"pictures": len(want[0])}
    if len(want) == 1:
        likeness = torch.cosine_similarity(want[0], got[0])
        return told | {"cosine_mean": float(likeness.mean()), "cosine_least": float(likeness.min())}
    apart = (want[1].clamp(min=1e-12).log() - got[1].clamp(min=1e-12).log()).abs()
    told |= {"same_label": int((want[1].argmax(1) == got[1].argmax(1)).sum())}
    told |= {"log_probability_mean": float(apart.mean()), "log_probability_most": float(apart.max())}
    labelled = [i for i, label in enumerate(true) if label is not None]
    if labelled:
        right = [[int(each[1][i].argmax()) == true[i] for i in labelled] for each in (want, got)]
        told |= {"labelled": len(labelled), "accuracy_of_the_run": sum(right[0]) / len(labelled)}
        told |= {"accuracy": sum(right[1]) / len(labelled)}
    return told
