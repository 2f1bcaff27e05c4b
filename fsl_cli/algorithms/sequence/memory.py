"""An external memory, read by content and written by least recent use (Santoro et al. 2016, section 3)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.errors import UserError


class Slots(NamedTuple):
    """The memories of B tasks, and how they were last used."""

    content: Tensor  # (B, slots, width)
    usage: Tensor  # (B, slots)
    weights: Tensor  # (B, heads, slots) of the last reading
    read: Tensor  # (B, heads, width) what it gave


class Memory(nn.Module):
    """`slots` of `width` numbers. Each of `heads` heads has a key, by which it reads; it writes this key, or another.

    Before a step writes, each head's least used slot is emptied: the least used is the first head's, the next the
    second's. The paper has R least used slots for R heads, and empties one; it does not say how heads share them.
    """

    def __init__(
        self, hidden: int, slots: int, width: int, heads: int, decay: float, sharpness: float,
        write: Literal["key", "separate"],
    ) -> None:  # fmt: skip
        super().__init__()
        if slots < heads:
            raise UserError(f"{heads} heads write into slots of their own. Type algo.memory={heads} or more.")
        self.slots, self.width, self.heads, self.decay, self.sharpness = slots, width, heads, decay, sharpness
        self.keys = nn.Linear(hidden, heads * width)
        self.written = nn.Linear(hidden, heads * width) if write == "separate" else None
        self.gate = nn.Parameter(torch.zeros(()))  # of writing where it read, against the least used

    def start(self, like: Tensor) -> Slots:
        """Nearly empty memories for len(like) tasks; all heads have last read the first slot."""
        first = like.new_zeros(self.slots)
        first[0] = 1
        tasks = len(like)
        return Slots(
            like.new_full((tasks, self.slots, self.width), 1e-6),
            first.expand(tasks, -1),
            first.expand(tasks, self.heads, -1),
            like.new_zeros(tasks, self.heads, self.width),
        )

    def forward(self, h: Tensor, last: Slots) -> Slots:
        """Write, then read what is there now: h (B, hidden)."""
        keys = self.keys(h).tanh().unflatten(1, (self.heads, self.width))
        vectors = keys if self.written is None else self.written(h).tanh().view_as(keys)
        unused = last.usage.topk(self.heads, largest=False).indices  # (B, heads)
        least = F.one_hot(unused, self.slots).to(h)  # (B, heads, slots)
        share = self.gate.sigmoid()
        writes = share * last.weights + (1 - share) * least
        emptied = last.content * (1 - least.sum(1)).unsqueeze(-1)
        content = emptied + writes.mT @ vectors
        scores = F.normalize(keys, dim=-1) @ F.normalize(content, dim=-1).mT  # cosines
        weights = (self.sharpness * scores).softmax(-1)
        usage = self.decay * last.usage + (weights + writes).sum(1)
        return Slots(content, usage, weights, weights @ content)
