"""Fully connected layers with norm and ReLU: MAML's networks without convolution (Finn et al. 2017, A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import Norm


class MLP(Backbone):
    """Layers of `widths` units on inputs of channels * size * size numbers.

    `start` says what training begins with: "small" are weights of deviation 0.01 and biases of 0, as MAML's authors
    have them; "torch" is torch's own, which CAVIA's and Reptile's authors leave. Not weights of the one with biases of
    the other: with weights of 0.01 and biases of up to 1, a unit is on or off for every x of a sinusoid.
    """

    takes = ("images", "points", "embeddings")

    def __init__(
        self,
        channels: int,
        size: int,
        norm: Mode,
        widths: Sequence[int] = (256, 128, 64, 64),
        start: Literal["small", "torch"] = "small",
        activation: Literal["relu", "tanh", "sigmoid"] = "relu",
    ) -> None:
        super().__init__()
        self.norm = norm
        ends = [channels * size * size, *widths]
        layers = [nn.Linear(*pair, bias=norm == "none") for pair in zip(ends, widths, strict=False)]
        if start == "small":
            for layer in layers:
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.activation = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[activation]
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(Norm(norm, width) for width in widths)
        self.out_features = ends[-1]
        self.map_shape = (ends[-1], 1, 1)
        self.block_channels = ends[1:]

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        x = x.flatten(2)  # (T, n, channels * size * size)
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = norm(layer(x)[..., None, None], n_support)  # (T, n, width, 1, 1)
            if number in changes:
                x = changes[number](x)
            x = self.activation(x.flatten(2))
        return x
