"""Meta-Curvature (Park and Oliva, NeurIPS 2019), https://arxiv.org/abs/1902.03356

MAML's inner step goes down the gradient. Here the outer loop learns how to bend the gradient first: matrices along the
axes of each weight tensor, so that a step of one number follows the gradients of others. They start as identities.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, Rule, adapt
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, query_loss, support_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural, Rate

Matrices = list[Tensor]  # of one weight tensor, an axis each; for a vector its numbers' own factors


class MetaCurvature(Algorithm):
    """Gradient steps from a learned initialisation of backbone and linear head, the gradients bent by learned matrices.

    The gradient (out, in, height, width) of a convolution is multiplied along its outputs, its inputs, and its kernel's
    places taken together; that (out, in) of a linear layer along both; that of a bias by a factor for each number.
    `inner_lr`, `inner_steps`, `test_steps`, `checkpoint_inner` and `frozen` as for MAML, `head_init` too, but for
    "prototypes": a head with matrices of its own keeps its size.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        checkpoint_inner: bool = False,
        frozen: str = "norm",
        head_init: Start = "learned",
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.checkpoint_inner = checkpoint_inner
        adapted = {name: value for name, value in self.net.named_parameters() if not re.search(frozen, name)}
        own = [identities(value) for value in adapted.values()]
        # beside the weights, as all that the outer loop learns must be
        self.net.curvature = nn.ParameterList(matrix for matrices in own for matrix in matrices)
        ends = pairwise([0, *accumulate(len(matrices) for matrices in own)])
        self.adapted = {name: range(*pair) for name, pair in zip(adapted, ends, strict=True)}  # which are its own

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way, " Its head has matrices of its own, and keeps its size.")
        return classifier(self.net, self._fast_weights, support, self.checkpoint_inner)

    def loss(self, episodes: Episodes) -> Tensor:
        return query_loss(self.net, self._fast_weights, episodes, self.checkpoint_inner)

    def _fast_weights(self, net: nn.Module, learned: Parameters, support: Examples) -> Parameters:
        own = {name: [learned[f"curvature.{i}"] for i in which] for name, which in self.adapted.items()}
        steps = self.inner_steps if self.training else self.test_steps
        rule, loss = bent(self.inner_lr, own), support_loss(net, support)
        return adapt(loss, learned, set(self.adapted), steps, rule, checkpoint=self.checkpoint_inner)


def identities(weight: Tensor) -> Matrices:
    """What leaves a gradient of the shape of `weight` as it is."""
    if weight.dim() == 1:
        return [torch.ones_like(weight)]
    out, into, *kernel = weight.shape
    sides = [out, into, *([kernel[0] * kernel[1]] if kernel else [])]
    return [torch.eye(side, dtype=weight.dtype, device=weight.device) for side in sides]


def bend(gradient: Tensor, matrices: Matrices) -> Tensor:
    """The gradient of one weight tensor, multiplied by a matrix along each of its axes; a vector's number by number."""
    if gradient.dim() == 1:
        return gradient * matrices[0]
    first, second, *third = matrices
    found = gradient.flatten(2) if third else gradient.unsqueeze(2)  # (out, in, k)
    found = (first @ found.flatten(1)).view_as(found)
    found = second @ found
    if third:
        found = found @ third[0].T
    return found.reshape(gradient.shape)


def bent(lr: float, curvature: dict[str, Matrices]) -> Rule:
    """w - lr * the bent gradient; the state is the matrices, so that gradients reach them."""

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, own: Any) -> tuple[Parameters, Any]:
        return {name: torch.sub(fast[name], bend(gradients[name], own[name]), alpha=lr) for name in fast}, own

    return Rule(lambda fast: curvature, update)
