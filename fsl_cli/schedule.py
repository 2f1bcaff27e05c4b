"""How the outer learning rate falls."""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, StepLR


def schedule(
    optimizer: Optimizer, kind: Literal["none", "step", "cosine"], steps: int, every: int = 2000, factor: float = 0.5
) -> LRScheduler:
    """`step`: times `factor` every `every` meta-iterations; `cosine`: to 0 at the last of `steps`; `none`: constant."""
    if kind == "step":
        return StepLR(optimizer, every, factor)
    if kind == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    return LambdaLR(optimizer, lambda step: 1.0)
