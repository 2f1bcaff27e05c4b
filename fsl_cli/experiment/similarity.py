"""How much each layer's activations change while an algorithm adapts: feature reuse or rapid learning?

The analysis of Raghu et al. (ICLR 2020, section 3.2), https://arxiv.org/abs/1909.09157, by the linear centered kernel
alignment of Kornblith et al. (ICML 2019), https://arxiv.org/abs/1905.00414: 1 where the query images' activations
before and after adaptation are the same up to rotation and scale, towards 0 where they have nothing in common.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm, TakesSteps
from fsl_cli.backbones.norm import Norm
from fsl_cli.episodes import Episodes
from fsl_cli.errors import UserError
from fsl_cli.stats import mean_interval


class LayerSimilarity(NamedTuple):
    layer: str
    mean: float  # over the episodes
    interval: float  # half the width of its 95% interval


def demand_inner_loop(algorithm: Algorithm, name: str) -> None:
    """Raises UserError when `algorithm` takes no gradient steps on a support set."""
    if not isinstance(algorithm, TakesSteps):
        raise UserError(
            f"similarity=true compares a network before and after its inner loop, and algo={name} adapts no weights. "
            "Test a run of one that does, such as algo=maml, anil or boil, or leave similarity=true away."
        )


@torch.no_grad()
def similarity(algorithm: Any, episodes: Iterable[Episodes]) -> list[LayerSimilarity]:
    """Each layer's linear CKA on the query sets before and after the inner loop, in the order of the layers.

    A body's layers are measured behind their norm (and ReLU and pooling, where they are part of it), the head at its
    logits.
    `episodes` come one at a time (T = 1), on the CPU.
    """
    algorithm.eval()
    steps, found = algorithm.test_steps, []
    try:
        for episode in episodes:
            algorithm.test_steps = 0
            before = _grams(algorithm, episode)
            algorithm.test_steps = steps
            after = _grams(algorithm, episode)
            found.append([float(alignment(x, y)) for x, y in zip(before, after, strict=True)])
    finally:
        algorithm.test_steps = steps
    layers = [f"layer {number}" for number in range(1, len(found[0]))] + ["head"]
    each = zip(layers, zip(*found, strict=True), strict=True)
    return [LayerSimilarity(layer, *mean_interval(values)) for layer, values in each]


def _grams(algorithm: Algorithm, episode: Episodes) -> list[Tensor]:
    """The Gram matrix (m, m) of the m query images at each norm and at the head, after adaptation."""
    classify = algorithm.classifier(episode)
    m, found = episode.query.x.shape[1], []

    def keep(norm: nn.Module, inputs: Any, output: Tensor) -> None:  # (1, n, C, H, W), the queries last
        found.append(gram(output[0, -m:].flatten(1)))

    hooks = [module.register_forward_hook(keep) for module in algorithm.modules() if isinstance(module, Norm)]
    try:
        logits = classify(episode.query.x)  # (1, m, way)
    finally:
        for hook in hooks:
            hook.remove()
    return [*found, gram(logits[0])]


def gram(x: Tensor) -> Tensor:
    """Products of activations (m, d), centred over the images -> (m, m): d is large, and m is not."""
    centred = x - x.mean(0)
    return (centred @ centred.mT).double()


def alignment(x: Tensor, y: Tensor) -> Tensor:
    """CKA of two Gram matrices of the same images, (m, m) each: the cosine of the angle between them."""
    return (x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()
