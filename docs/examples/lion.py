"""Lion (Chen et al., NeurIPS 2023), https://arxiv.org/abs/2302.06675"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Steps along the sign of an interpolation between momentum and gradient."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure:  # Lightning computes the gradients in it
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in (each for each in group["params"] if each.grad is not None):
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                along = mean.lerp(weight.grad, 1 - group["beta1"]).sign()
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(along, alpha=group["lr"])
                mean.lerp_(weight.grad, 1 - group["beta2"])
        return loss
