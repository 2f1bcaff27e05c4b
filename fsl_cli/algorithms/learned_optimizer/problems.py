"""What an optimizer is given to minimise: the losses of a network on T support sets, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from fsl_cli.algorithms.inner_loop import Parameters
from fsl_cli.algorithms.learned_optimizer.coordinatewise import CoordinateLSTM, Kept
from fsl_cli.algorithms.network import Network
from fsl_cli.algorithms.over_tasks import for_each_task
from fsl_cli.episodes import Examples, task_loss


class Reached(NamedTuple):
    """Where T problems are after a number of steps."""

    theta: Tensor  # (T, P) their weights
    loss: Tensor  # (T,)
    gradient: Tensor  # (T, P)
    kept: list[Kept]  # of the step that led here; none at the start


class Problems:
    """T losses of weights theta (T, P), all side by side as far as `for_each_task` takes them so."""

    def __init__(self, net: Network, support: Examples, start: Tensor) -> None:
        self.net, self.support, self.start = net, support, start
        self.shapes = {name: value.shape for name, value in net.named_parameters()}
        fixed = not any(name.startswith("backbone.") for name in self.shapes)
        self.features = net.backbone(support.x) if fixed else None  # (T, n, d)

    def named(self, theta: Tensor) -> Parameters:
        """The weights by their names, (T, *shape) each."""
        parts = theta.split([shape.numel() for shape in self.shapes.values()], 1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def losses(self, theta: Tensor) -> Tensor:
        """The loss of each problem, (T,)."""
        weights = self.named(theta)
        if self.features is None:
            return for_each_task(self.net, _loss, weights, self.support)
        predicted = self.features @ weights["head.weight"].mT  # (T, n, way)
        if "head.bias" in weights:
            predicted = predicted + weights["head.bias"].unsqueeze(1)
        if self.support.y.is_floating_point():
            return (predicted - self.support.y).square().mean((1, 2))
        return F.cross_entropy(predicted.mT, self.support.y, reduction="none").mean(1)

    def descent(self, steps: int, by: CoordinateLSTM | Callable[[list[Tensor]], Optimizer]) -> Iterator[Reached]:
        """The start, and what is reached by each step of a learned optimizer, or of one of torch's on all weights."""
        theta, kept = self.start.detach().clone(), list[Kept]()
        learned = by if isinstance(by, CoordinateLSTM) else None
        hand_made = None if isinstance(by, CoordinateLSTM) else by([theta])
        state = learned.start(theta) if learned else ()
        for number in range(steps + 1):
            with torch.enable_grad():
                at = theta.detach().requires_grad_()
                loss = self.losses(at)
                [gradient] = torch.autograd.grad(loss.sum(), at)
            yield Reached(at.detach(), loss.detach(), gradient, kept)
            if number == steps:
                return
            if learned:
                moved, state, kept = learned(gradient, state)
                theta = theta + moved
            elif hand_made:
                theta.grad = gradient
                hand_made.step()


def _loss(net: nn.Module, weights: Parameters, support: Examples) -> Tensor:
    return task_loss(functional_call(net, weights, (support.x,)), support.y)
