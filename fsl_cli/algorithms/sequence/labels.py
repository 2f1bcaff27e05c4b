"""Labels of sequence learners: one-hot, or as strings of five letters (Santoro et al. 2016, section 4)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms.sequence.order import code
from fsl_cli.episodes import task_loss

LETTERS, LENGTH = 5, 5  # a to e, and how many make a string
STRINGS = LETTERS**LENGTH
WIDTH = LETTERS * LENGTH  # numbers that code a string


class OneHot(NamedTuple):
    """One output a class; in regression the targets themselves."""

    way: int

    def read(self, y: Tensor) -> Tensor:
        """What is shown of labels (T, n): (T, n, way)."""
        return code(y, self.way)

    def loss(self, found: Tensor, y: Tensor) -> Tensor:
        return task_loss(found, y)

    def logits(self, found: Tensor, others: bool = False) -> Tensor:
        return found


class Letters(NamedTuple):
    """A string for each class of each task, a letter an output of five: a class is as likely as its letters are."""

    strings: Tensor  # (T, way, 5) letters 0..4

    def read(self, y: Tensor) -> Tensor:
        """What is shown of labels (T, n): (T, n, 25)."""
        return F.one_hot(self._of(y), LETTERS).flatten(2).float()

    def loss(self, found: Tensor, y: Tensor) -> Tensor:
        """The sum of the letters' cross-entropies, found (T, n, 25)."""
        return LENGTH * task_loss(found.unflatten(-1, (LENGTH, LETTERS)), self._of(y))

    def logits(self, found: Tensor, others: bool = False) -> Tensor:
        """Log-probabilities of the classes' strings, (T, n, 25) -> (T, n, way).

        `others` adds a column for the likeliest string if no class has it: a label is right only when all five letters
        are.
        """
        letters = found.unflatten(-1, (LENGTH, LETTERS)).log_softmax(-1)  # (T, n, 5, 5)
        columns = F.one_hot(self.strings, LETTERS).to(letters)  # (T, way, 5, 5)
        known = torch.einsum("tnij,twij->tnw", letters, columns)
        if not others:
            return known
        best = letters.amax(-1).sum(-1, keepdim=True)
        is_known = (known.amax(-1, keepdim=True) - best).abs() < 1e-5
        return torch.cat([known, best.masked_fill(is_known, -torch.inf)], -1)

    def _of(self, y: Tensor) -> Tensor:
        return self.strings.gather(1, y.unsqueeze(-1).expand(-1, -1, LENGTH))  # (T, n, 5)


def drawn(index: list[int], way: int, device: torch.device) -> Letters:
    """Different strings for the classes of each task, which its index alone decides."""
    numbers = np.stack([np.random.default_rng([each, way]).permutation(STRINGS)[:way] for each in index])  # (T, way)
    digits = np.stack([numbers // LETTERS**place % LETTERS for place in range(LENGTH)], -1)
    return Letters(torch.from_numpy(digits).to(device))
