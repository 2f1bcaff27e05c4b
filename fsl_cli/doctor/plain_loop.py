"""MAML and ProtoNet as most people would write them with torch alone: what `fsl bench` compares with.

Nothing here uses fsl's own algorithms, backbones or inner loop, so the tests also use it to check those.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.episodes import Episodes

Loss = Callable[[Episodes], Tensor]


class PlainConv4(nn.Module):
    """Four blocks, each set normalised by itself, and a linear head where `way` is given."""

    def __init__(self, filters: int, stride: bool, way: int | None, channels: int = 1, size: int = 28) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for i in range(4):
            blocks.append(nn.Conv2d(filters if i else channels, filters, 3, 2 if stride else 1, padding=1, bias=False))
            blocks += [nn.BatchNorm2d(filters, track_running_stats=way is None), nn.ReLU()]
            blocks += [] if stride else [nn.MaxPool2d(2)]
        self.body = nn.Sequential(*blocks)
        self.stride = stride
        self.head = nn.Linear(filters if stride else filters * (size // 16) ** 2, way) if way else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.head(features.mean((2, 3)) if self.stride else features.flatten(1))


def copy_weights(ours: nn.Module, network: nn.Module) -> list[nn.Parameter]:
    """Give `network` the weights of `ours`; its parameters' counterparts in ours, in its order."""
    named = list(ours.named_parameters())  # all convolutions, then all norms; PyTorch's order is conv, norm, conv, norm
    convs, norms, head = ([p for name, p in named if part in name] for part in ("convs", "norms", "head"))
    order = [p for i in range(4) for p in (convs[i], norms[2 * i], norms[2 * i + 1])] + head
    with torch.no_grad():
        for own, other in zip(order, network.parameters(), strict=True):
            other.copy_(own)
    return order


def plain_maml(
    network: nn.Module, inner_lr: float, steps: int, norms_adapt: bool = False, first_order: bool = False
) -> Loss:
    """Task after task, all graphs kept until the meta-batch's backward pass."""
    norms = {f"{name}." for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    norms = set() if norms_adapt else norms

    def loss(episodes: Episodes) -> Tensor:
        total = torch.zeros(())
        tasks = zip(*episodes.support, *episodes.query, strict=True)
        for support_x, support_y, query_x, query_y in tasks:
            weights: dict[str, Tensor] = dict(network.named_parameters())
            adapted = [name for name in weights if not any(name.startswith(norm) for norm in norms)]
            for _ in range(steps):
                inner = F.cross_entropy(functional_call(network, weights, (support_x,)), support_y)
                at = [weights[name] for name in adapted]
                gradients = torch.autograd.grad(inner, at, create_graph=not first_order)
                moved = {name: weights[name] - inner_lr * g for name, g in zip(adapted, gradients, strict=True)}
                weights = {**weights, **moved}
            total = total + F.cross_entropy(functional_call(network, weights, (query_x,)), query_y)
        return total / len(episodes.support.x)

    return loss


def plain_protonet(network: nn.Module) -> Loss:
    """One episode at a time, support and query in one pass, distances by torch.cdist."""

    def loss(episodes: Episodes) -> Tensor:
        total = torch.zeros(())
        for support_x, support_y, query_x, query_y in zip(*episodes.support, *episodes.query, strict=True):
            features = network(torch.cat([support_x, query_x]))
            support, query = features[: len(support_x)], features[len(support_x) :]
            centres = torch.stack([support[support_y == label].mean(0) for label in support_y.unique()])
            total = total + F.cross_entropy(-torch.cdist(query, centres).square(), query_y)
        return total / len(episodes.support.x)

    return loss
