"""Meta-learning without memorisation (Yin et al., ICLR 2020), https://arxiv.org/abs/1912.03820

Where inputs tell which training task they are of, a network can solve all of them without their support sets, and no
new one. So what no task adapts, the encoder, may carry little information: its weights, or the features that it gives,
are random, and the outer loss has their divergence from a standard normal distribution. A head adapts to each task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import demand_way, refuse_running
from fsl_cli.algorithms.over_tasks import for_each_task, mean_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count, Natural, Rate, Weight


class MRMAML(Algorithm):
    """Gradient steps of a head on the features of an encoder that is noisy in training, and regularised.

    The encoder is the backbone and, with `code`, a linear layer that makes so many numbers of its features; the head
    has hidden layers of `head_widths` units, with ReLU. `regularise` = "weights": each weight and bias of the encoder,
    but for its norms, has a learned mean and deviation, and is drawn anew for each task. "activations": the linear
    layer makes a mean and a deviation of each number (without `code`, of as many as the backbone has features), and the
    head sees a draw for each example. `weight` is that of the divergence, of all weights, or of the queries' numbers,
    averaged over the queries; deviations start at `std`. In evaluation all are at their means. `inner_lr`,
    `inner_steps` and `test_steps` as for MAML.
    `outer` = "sign" is for what the authors' notebook computes: it makes a new Adam for each step, of all weights where
    weights are regularised, else of the encoder's, and the first step of an Adam is the learning rate times the
    gradient's sign. It needs an outer optimizer that is Adam.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        regularise: Literal["weights", "activations"] = "weights",
        weight: Weight = 1e-6,
        std: Rate = 0.01,
        code: Count | None = None,
        head_widths: Sequence[int] = (),
        outer: Literal["adam", "sign"] = "adam",
    ) -> None:
        super().__init__()
        refuse_running(backbone)
        self.noisy_code = regularise == "activations"
        self.net = _Divided(backbone, way, head_widths, code, math.log(std) if self.noisy_code else None)
        self.outer = outer
        self.way = way
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.weight = weight
        learned = {name: value for name, value in self.net.named_parameters() if value.requires_grad}
        own = [name for name in learned if "norm" not in name and not name.startswith("head.")]
        self.random = [] if self.noisy_code else own
        # logarithms of their deviations, beside the weights, as all that the outer loop learns must be
        deviations = [torch.full_like(self.net.get_parameter(name), math.log(std)) for name in self.random]
        self.net.log_std = nn.ParameterList(deviations)

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.way)
        head = self.net.head
        learned: Parameters = dict(head.named_parameters())
        z = self._means(self.net.backbone(support.x))  # (T, n, d)
        fast = for_each_task(head, lambda own, z, y: self._fast_head(own, learned, z, y), z, support.y)
        return lambda x: for_each_task(head, functional_call, fast, self._means(self.net.backbone(x, support.x)))

    def loss(self, episodes: Episodes) -> Tensor:
        """The queries' loss after adapting, with noise, and the divergence."""
        learned: Parameters = dict(self.net.named_parameters())
        support, query = episodes.support, episodes.query
        # drawn for all tasks here: tasks are then the same, one by one and side by side
        noise: Parameters = {
            name: torch.randn(len(support.x), *learned[name].shape).to(support.x) for name in self.random
        }
        if self.noisy_code:
            assert self.net.code is not None
            width = self.net.code.out_features // 2
            sets = {"support": support.x, "query": query.x}
            noise = {name: torch.randn(*x.shape[:2], width).to(x) for name, x in sets.items()}
        own = mean_loss(self.net, self._one, learned, support, query, noise)
        parts = (divergence(learned[name], spread) for name, spread in zip(self.random, self.net.log_std, strict=True))
        return own + self.weight * sum(parts, torch.zeros_like(own))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """With `outer` = "sign" an Adam without memory: its steps are the signs of gradients, times the rate."""
        learned = {name: value for name, value in self.named_parameters() if value.requires_grad}
        signed = [name for name in learned if self.outer == "sign" and not (self.noisy_code and ".head." in name)]
        groups: list[dict[str, Any]] = [
            {"params": [value for name, value in learned.items() if name not in signed]},
            {"params": [learned[name] for name in signed], "betas": (0.0, 0.0)},
        ]
        return [group for group in groups if group["params"]]

    def _one(
        self, net: nn.Module, learned: Parameters, support: Examples, query: Examples, noise: Parameters
    ) -> Tensor:
        drawn = {
            name: learned[name] + learned[f"log_std.{i}"].exp() * noise[name] for i, name in enumerate(self.random)
        }
        z, queries = functional_call(net, {**learned, **drawn}, (support.x, query.x))  # (n, d), (m, d)
        term: Tensor | float = 0.0
        if self.noisy_code:
            (z, spread), (queries, query_spread) = z.chunk(2, -1), queries.chunk(2, -1)
            term = self.weight * divergence(queries, query_spread) / len(queries)
            z, queries = z + spread.exp() * noise["support"], queries + query_spread.exp() * noise["query"]
        head = {name.removeprefix("head."): value for name, value in learned.items() if name.startswith("head.")}
        own = net.get_submodule("head")
        return task_loss(functional_call(own, self._fast_head(own, head, z, support.y), queries), query.y) + term

    def _means(self, features: Tensor) -> Tensor:
        """What the head sees in evaluation, of the backbone's features."""
        if self.net.code is not None:
            features = self.net.code(features)
        return features.chunk(2, -1)[0] if self.noisy_code else features

    def _fast_head(self, head: nn.Module, learned: Parameters, z: Tensor, y: Tensor) -> Parameters:
        """The head's weights after the inner loop on features (n, d), which are the same in every step."""

        def loss(weights: Parameters, step: int) -> Tensor:
            return task_loss(functional_call(head, weights, z), y)

        steps = self.inner_steps if self.training else self.test_steps
        return adapt(loss, learned, set(learned), steps, sgd(self.inner_lr))


class _Divided(nn.Module):
    """An encoder, and a head beside it: a task's images (n, *item), (m, *item) -> what the head sees of each.

    With a `code`, that is so many numbers by a linear layer; with `log_std` too the means of so many, or of as many as
    there are features, and the logarithms of their deviations, which begin there.
    """

    def __init__(
        self, backbone: Backbone, way: int, head_widths: Sequence[int], code: int | None, log_std: float | None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_std = nn.ParameterList()  # of each random weight
        width = code or backbone.out_features
        self.code: nn.Linear | None = None
        if log_std is not None:
            self.code = nn.Linear(backbone.out_features, 2 * width)
            with torch.no_grad():
                self.code.weight[width:] = 0.0
                self.code.bias[width:] = log_std
        elif code:
            self.code = nn.Linear(backbone.out_features, width)
        ends = [width, *head_widths, way]
        layers = [layer for pair in pairwise(ends) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.head = nn.Sequential(*layers[:-1])

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        both = self.backbone.joint(support.unsqueeze(0), query.unsqueeze(0))
        features, queries = (each.squeeze(0) if self.code is None else self.code(each.squeeze(0)) for each in both)
        return features, queries


def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """The Kullback-Leibler divergence, in nats, of independent normal numbers from standard normal ones: the sum."""
    return ((mean.square() + (2 * log_std).exp() - 1) / 2 - log_std).sum()
