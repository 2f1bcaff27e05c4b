"""A task scales and shifts the channels of a backbone's blocks, as its mean features say (FiLM, Perez et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.protonet import prototypes
from fsl_cli.backbones.base import Backbone, Changes
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError


class Film(nn.Module):
    """Each block's output x becomes (1 + gamma) x + beta, gamma and beta a number a channel, from a task's embedding.

    gamma = gamma_0 g(c), beta = beta_0 h(c), gamma_0 and beta_0 one number for each block. These are 0 at first,
    so the backbone is unchanged (Oreshkin et al. 2018, section 3.2). Raises UserError for a backbone without blocks.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        widths = list(backbone.block_channels)
        if not widths:
            raise UserError(
                f"{type(backbone).__name__} has no blocks whose channels a task could scale and shift. Type "
                "backbone=conv4, resnet12 or another of fsl's own networks."
            )
        self.gammas, self.betas = (
            nn.ModuleList(_Generator(backbone.out_features, width) for width in widths) for _ in range(2)
        )
        self.strength = nn.Parameter(torch.zeros(2, len(widths)))  # gamma_0 and beta_0

    def forward(self, backbone: Backbone, support: Examples) -> Changes:
        """What tasks do to the blocks. The embedding of one is the mean of its class means in the backbone as it is."""
        task = prototypes(backbone(support.x), support.y).mean(1)  # (T, d)
        return {block: self._change(block, task) for block in range(len(self.gammas))}

    def _change(self, block: int, task: Tensor) -> Callable[[Tensor], Tensor]:
        strength = self.strength[:, block]
        gamma, beta = (
            (strength[i] * generators[block](task))[:, None, :, None, None]  # (T, 1, channels, 1, 1)
            for i, generators in enumerate((self.gammas, self.betas))
        )
        return lambda x: torch.addcmul(x + beta, gamma, x)


class _Generator(nn.Module):
    """Three linear layers with shortcuts and swish in between: (T, d) -> (T, channels)."""

    def __init__(self, d: int, channels: int) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(d, channels), *(nn.Linear(channels, channels) for _ in range(2))

    def forward(self, task: Tensor) -> Tensor:
        x = F.silu(self.first(task))
        x = F.silu(x + self.second(x))
        return x + self.last(x)
