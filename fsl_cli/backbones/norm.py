"""Normalisation that knows what an episode is.

Whose statistics normalise a query image decides whether an accuracy is inductive, so it is a setting that
stands beside every number:

- `running`       batch statistics while training, running averages in evaluation (usual for metric methods)
- `support`       the statistics of the episode's support set, for support and query alike: inductive
- `transductive`  the query set's own statistics, as the authors of MAML: the other queries help
- `group`         group normalisation, 8 channels a group: each image by itself
- `none`          no normalisation

Statistics are always those of *one* episode, so that an episode's loss does not depend on its neighbours in
the meta-batch, nor on which process it ran in. Under `torch.func.vmap`, `F.batch_norm` with weights gives
wrong meta-gradients without a word; an explicit scale and shift after it does not, and is used here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.compiled import fused
from fsl_cli.backbones.compiled.block import usable
from fsl_cli.backbones.layers import each_image
from fsl_cli.backbones.mode import Mode

MOMENTUM = 0.1
EPS = 1e-5
CHANNELS_A_GROUP = 8


class Norm(nn.Module):
    """Normalise (T, n, channels, H, W); the first `n_support` of the n are the support set.

    Without `scale` only a shift is learned, as tensorflow's batch norm has it unless told otherwise; its `eps` is 1e-3.
    """

    weight: Tensor  # absent in mode none
    bias: Tensor
    mean: Tensor  # in mode running
    var: Tensor

    def __init__(self, mode: Mode, channels: int, scale: bool = True, eps: float = EPS) -> None:
        super().__init__()
        self.mode = mode
        self.eps = eps
        if mode != "none" and scale:
            self.weight = nn.Parameter(torch.ones(channels))
        elif mode != "none":
            self.register_buffer("weight", torch.ones(channels), persistent=False)
        if mode != "none":
            self.bias = nn.Parameter(torch.zeros(channels))
        if mode == "running":
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("var", torch.ones(channels))

    def forward(self, x: Tensor, n_support: int = 0, relu: bool = False, pool: bool = False) -> Tensor:
        """n_support = 0: all n images belong to one set, and statistics are taken over it.

        `relu`: ReLU follows; `pool`: and the greatest of each 2 x 2 pixels after that.
        """
        if relu and self._by_batch() and fused.usable(x, self.weight, self.bias):
            return self._fused(x, n_support, pool)
        out = self._normalised(x, n_support)
        out = F.relu(out) if relu else out
        return each_image(partial(F.max_pool2d, kernel_size=2), out) if pool else out

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """The weights of a training with `running` are taken by every mode with a scale: its averages are left out."""
        if self.mode != "running":
            state_dict.pop(f"{prefix}mean", None)
            state_dict.pop(f"{prefix}var", None)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def goes_with(self, conv: nn.Conv2d) -> bool:
        """Whether a convolution and this norm after it can be a compiled block."""
        return self._by_batch() and conv.bias is None and conv.padding == (1, 1) and usable(conv.weight)

    def _normalised(self, x: Tensor, n_support: int) -> Tensor:
        if self.mode == "none":
            return x
        if self.mode == "group":
            groups = math.gcd(x.shape[2], max(1, x.shape[2] // CHANNELS_A_GROUP))
            images = x.flatten(0, 1)
            if torch._C._functorch.is_functorch_wrapped_tensor(images):
                images = images.contiguous()  # vmap of torch 2.11 has no group norm of channels-last images
            return F.group_norm(images, groups, self.weight, self.bias, self.eps).view_as(x)
        if self.mode == "running":
            return self._running(x)
        normalise = self._by_support if self.mode == "support" else self._by_set
        return _each_episode(lambda episode: normalise(episode, n_support), x)

    def _running(self, x: Tensor) -> Tensor:
        if not self.training:
            flat = F.batch_norm(x.flatten(0, 1), self.mean, self.var, self.weight, self.bias, eps=self.eps)
            return flat.view_as(x)
        statistics = []

        def normalise(episode: Tensor) -> Tensor:
            mean, var = torch.zeros_like(self.mean), torch.zeros_like(self.var)
            statistics.append((mean, var))  # momentum 1: batch_norm leaves this episode's statistics in them
            return F.batch_norm(episode, mean, var, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)

        out = _each_episode(normalise, x)
        self._average(*(torch.stack(values) for values in zip(*statistics, strict=True)))
        return out

    def _average(self, mean: Tensor, var: Tensor) -> None:
        """Bring the statistics (T, channels) of T episodes into the running ones."""
        self.mean.lerp_(mean.mean(0), MOMENTUM)
        self.var.lerp_(var.mean(0), MOMENTUM)

    def _by_batch(self) -> bool:
        """Whether statistics are those of the images at hand."""
        return self.mode in ("support", "transductive") or (self.mode == "running" and self.training)

    def first(self, x: Tensor, n_support: int) -> int:
        """How many of an episode's images give its statistics."""
        return n_support if self.mode == "support" and n_support else x.shape[1]

    def follow(self, mean: Tensor, r: Tensor, count: int) -> None:
        """Bring means and 1 / deviations (T, channels) over `count` numbers of T episodes into the running ones."""
        self._average(mean, (r.pow(-2) - self.eps) * (count / (count - 1)))

    def _fused(self, x: Tensor, n_support: int, pool: bool) -> Tensor:
        if self.mode == "transductive" and n_support:
            return torch.cat([self._fused(part, 0, pool) for part in (x[:, :n_support], x[:, n_support:])], 1)
        k = self.first(x, n_support)
        statistics = []

        def normalise(episode: Tensor) -> Tensor:
            y, mean, r = fused.norm_relu(episode, self.weight, self.bias, k, pool, self.eps)
            statistics.append((mean, r))
            return y

        out = _each_episode(normalise, x)
        if self.mode == "running":
            mean, r = (torch.stack(values) for values in zip(*statistics, strict=True))
            self.follow(mean, r, x[0].numel() // len(self.mean))
        return out

    def _by_set(self, x: Tensor, n_support: int) -> Tensor:
        if n_support:
            return torch.cat([self._by_set(x[:n_support], 0), self._by_set(x[n_support:], 0)])
        normal = F.batch_norm(x, None, None, training=True, eps=self.eps)
        return torch.addcmul(self.bias.view(-1, 1, 1), normal, self.weight.view(-1, 1, 1))

    def _by_support(self, x: Tensor, n_support: int) -> Tensor:
        if not n_support:
            return self._by_set(x, 0)
        var, mean = torch.var_mean(x[:n_support], (0, 2, 3), correction=0)
        scale = self.weight * (var + self.eps).rsqrt()
        return torch.addcmul((self.bias - mean * scale).view(-1, 1, 1), x, scale.view(-1, 1, 1))


def freeze_statistics(net: nn.Module, pass_queries: Callable[[], object]) -> None:
    """From now on all norms of mode `support` in `net` are those of one support set, as running averages are.

    `pass_queries` sends queries with their support set through `net` once; after it, queries come alone. For a graph
    that is to be written down: the support set is no part of it.
    """
    norms = [module for module in net.modules() if isinstance(module, Norm) and module.mode == "support"]

    def record(norm: Norm, given: tuple[Tensor, int]) -> None:
        var, mean = torch.var_mean(given[0][0, : given[1]], (0, 2, 3), correction=0)
        norm.register_buffer("mean", mean)
        norm.register_buffer("var", var)

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    pass_queries()
    for hook in hooks:
        hook.remove()
    for norm in norms:
        norm.mode = "running"


def _each_episode(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply `function` to each of the T episodes; a single one is not copied, not even in the backward pass."""
    return function(x.squeeze(0)).unsqueeze(0) if len(x) == 1 else torch.stack([function(episode) for episode in x])
