"""Layers of a sequence that look back only (Mishra et al. 2018, section 3.1), https://arxiv.org/abs/1707.03141"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dense(nn.Module):
    """A gated causal convolution of kernel 2, put beside its input (section 3.1): C -> C + filters channels.

    For m sequences with a common beginning: `known` (T, n, C), and `ends` (T, m, C), the last element of each.
    """

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.before = nn.Linear(channels, 2 * filters, bias=False)  # tanh's half, then the gate's
        self.now = nn.Linear(channels, 2 * filters)

    def forward(self, known: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        n = known.shape[1]
        before = F.pad(self.before(known), (0, 0, self.dilation, 0))[:, : n + 1]  # of each position, the end's last
        return self._beside(known, before[:, :n]), self._beside(ends, before[:, n:])

    def _beside(self, x: Tensor, before: Tensor) -> Tensor:
        value, gate = (self.now(x) + before).chunk(2, -1)
        return torch.cat([x, value.tanh() * gate.sigmoid()], -1)


class Attention(nn.Module):
    """Causal attention by one head, put beside its input (section 3.1): C -> C + values channels. As for `Dense`."""

    def __init__(self, channels: int, keys: int, values: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, keys)
        self.key = nn.Linear(channels, keys)
        self.value = nn.Linear(channels, values)

    def forward(self, known: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key(known), self.value(known)
        scale = 1 / math.sqrt(keys.shape[-1])
        later = torch.ones(known.shape[1], known.shape[1], dtype=torch.bool, device=known.device).triu(1)
        seen = (self.query(known) @ keys.mT * scale).masked_fill(later, -math.inf).softmax(-1)  # over the keys
        read = seen @ values
        asked = self.query(ends)
        others = asked @ keys.mT  # (T, m, n)
        own = (asked * self.key(ends)).sum(-1, keepdim=True)  # an end sees itself, and no other end
        weights = (torch.cat([others, own], -1) * scale).softmax(-1)
        read_ends = weights[..., :-1] @ values + weights[..., -1:] * self.value(ends)
        return torch.cat([known, read], -1), torch.cat([ends, read_ends], -1)
