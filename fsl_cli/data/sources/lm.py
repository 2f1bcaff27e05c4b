"""Language modelling, a task a language: each character of a text from those before it, of any data set of texts.

The small form of meta-learned language and translation models (Gu et al., EMNLP 2018, https://arxiv.org/abs/1808.08437).
A task is one class of texts, its support set some of them, its queries others. Classes are split as the data set splits
them, so languages of the test are new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.feasible import sizes_of
from fsl_cli.data.sampler import Shape, distinct, largest, raw_numbers, smallest
from fsl_cli.data.sources import babble, texts
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import Batch
from fsl_cli.data.texts import code_points
from fsl_cli.episodes import IGNORED, Episodes, Examples, Metric
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count

OF: dict[str, Callable[..., DataSet]] = {"babble": babble.babble, "texts": texts.texts}


class Corpus(NamedTuple):
    """Texts as sequences of characters; `symbols` are told apart, the last of them any that is not frequent."""

    data: DataSet
    symbols: int
    inputs: int = 1

    @property
    def name(self) -> str:
        return "lm"

    @property
    def hash(self) -> str:
        return self.data.hash

    @property
    def size(self) -> int:
        """Characters of an item."""
        return int(self.data.store.images.shape[3])

    @property
    def protocol(self) -> dict[str, str]:
        """What must stand beside every number."""
        split = f"{self.data.name} {self.data.protocol['split']}, {self.size} characters, {self.symbols} symbols"
        return {**self.data.protocol, "split": split}

    def fingerprints(self, part: str) -> dict[str, str]:
        """Of the classes whose texts these are."""
        return self.data.fingerprints(part)

    def tasks(self, shapes: dict[str, Shape]) -> CorpusTasks:
        """Episodes of these shapes. Raises UserError where a class has fewer texts, or outputs are no symbols."""
        for part, shape in shapes.items():
            prefix = "train_" if part == "train" else ""
            if shape.way != self.symbols:
                raise UserError(f"{prefix}way={shape.way}: here, outputs are symbols. Type data.symbols={shape.way}.")
            if shape.query == "all" or smallest(shape.shot) != largest(shape.shot):
                raise UserError(
                    f"{prefix}shot={shape.shot} {prefix}query={shape.query}: tasks of data=lm have all as many texts. "
                    f"Type {prefix}shot=5 {prefix}query=5."
                )
            sizes = sizes_of(self.data, part)
            wanted = largest(shape.shot) + shape.query
            if not len(sizes) or sizes.min() < wanted:
                raise UserError(
                    f"{prefix}shot={shape.shot} and {prefix}query={shape.query} are {wanted} texts of a class; "
                    f"the smallest of the {part} split of {self.data.name} has {sizes.min() if len(sizes) else 0}."
                )
        return CorpusTasks(self.data, self.symbols, shapes)


class CorpusTasks:
    """Episodes of texts: x (T, n, 1, 1, size) the code points before each place, y (T, n, size) the symbol there."""

    metric: Metric = "bits"
    reach = 0.0
    linear = None

    def __init__(self, data: DataSet, symbols: int, shapes: dict[str, Shape]) -> None:
        self.data = data
        self.shapes = shapes
        self.symbols = symbols
        self.features: dict[str, Tensor] = {}
        rows = np.concatenate([self._rows(number) for number in data.splits["train"].classes])
        points, counts = self._points(rows).unique(return_counts=True)
        kept = points > 0
        frequent = points[kept][counts[kept].argsort(descending=True, stable=True)[: symbols - 1]]
        self.frequent = frequent.sort().values

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        shape, classes = self.shapes[batch.split], self.data.splits[batch.split].classes
        shot = largest(shape.shot)
        count, own, rows = shot + int(shape.query), [], []
        for index in batch.index:
            which, *numbers = raw_numbers(f"lm/{batch.seed}/{batch.split}/{index}", 1 + count)
            own.append(which % len(classes))
            texts = self._rows(classes[own[-1]])
            rows += [texts[place] for place in distinct(numbers, len(texts))]
        points = self._points(np.array(rows)).unflatten(0, (len(own), count))  # (T, n + m, size)
        before = torch.nn.functional.pad(points, (1, 0))[..., :-1]  # nothing, then all but the last
        exact = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        x, y = before[:, :, None, None].to(device, exact), self.symbols_of(points).to(device)
        support, query = Examples(x[:, :shot], y[:, :shot]), Examples(x[:, shot:], y[:, shot:])
        return [
            Episodes(support, query, torch.tensor(own, device=device)[:, None], torch.tensor(batch.index).to(device))
        ]

    def symbols_of(self, points: Tensor) -> Tensor:
        """The number of each code point's symbol; IGNORED after a text's end."""
        place = torch.searchsorted(self.frequent, points.contiguous()).clamp(max=len(self.frequent) - 1)
        known = self.frequent[place] == points
        return place.where(known, self.symbols - 1).where(points > 0, IGNORED)

    def truth(self, batch: Batch, x: Tensor) -> Tensor:
        raise UserError("A text is no curve, and no picture of a fit is drawn.")

    def best(self, batch: Batch, device: torch.device) -> list[float]:
        """Nothing: nobody knows how texts are drawn."""
        return []

    def _rows(self, number: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.arange(self.data.store.starts[number], self.data.store.starts[number + 1])

    def _points(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """Code points (n, size) of the texts in these rows."""
        return code_points(torch.from_numpy(self.data.store.take(rows)), torch.float32).long()[:, 0, 0]


def lm(
    of: Literal["babble", "texts"] = "babble",
    root: str | None = None,
    size: Count = 64,
    symbols: Count = 64,
    cache: str | None = None,
) -> Corpus:
    """The texts of the data set `of`, `size` characters of each; `root` is where your own lie. Raises UserError."""
    if symbols < 2:
        raise UserError("data.symbols=1: the characters that are told apart, and all others. Type data.symbols=64.")
    if root and of == "babble":
        raise UserError(f"data.root={root}: babble is written here, from no files. Type data.of=texts.")
    return Corpus(OF[of](size=size, cache=cache, **({"root": root} if of == "texts" else {})), symbols)
