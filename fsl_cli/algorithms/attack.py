"""Adversarial querying (Goldblum, Fowl and Goldstein, NeurIPS 2020), https://arxiv.org/abs/1910.00982

Changes of pixels too small to see turn a few-shot classifier's answers. A method is trained against them on queries
that an attack has changed, from clean support sets, and tested under one. FGSM (Goodfellow et al., ICLR 2015,
https://arxiv.org/abs/1412.6572) takes one step up the loss, PGD (Madry et al., ICLR 2018,
https://arxiv.org/abs/1706.06083) several from a random start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import shake_128
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import gradients_of
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count, Rate, Share

Pixels = tuple[Sequence[float], Sequence[float]]  # mean and deviation, by channel, that pixels of 0..1 were scaled by


class Attack:
    """`steps` signed steps up the loss, which change each pixel of 0..1 by at most `strength`, and keep it in 0..1.

    A step changes each pixel by the share `step` of the strength. The loss is that of the classifier that the method
    makes of the support set; gradients do not go through its making. `random_start`: from pixels drawn within the
    strength. `of`: "query", "support" (on which that classifier is asked, too), or "both", the queries then being
    attacked on the classifier that an attacked support set makes.
    """

    def __init__(
        self,
        strength: Share = 8 / 255,
        steps: Count = 7,
        step: Rate = 0.25,
        random_start: bool = True,
        of: Literal["query", "support", "both"] = "query",
    ) -> None:
        self.strength = strength
        self.steps = steps
        self.step = step
        self.random_start = random_start
        self.of = of

    def episodes(self, algorithm: Algorithm, episodes: Episodes, stream: str) -> Episodes:
        """The same episodes, attacked; nothing else changes, running statistics neither.

        Random starts depend on `stream` and the episode's index alone.
        """
        if not self.strength:
            return episodes
        with _buffers_kept(algorithm):
            if self.of != "query":
                found = self._attacked(algorithm, episodes, episodes.support, f"{stream}/support")
                episodes = episodes._replace(support=found)
            if self.of != "support":
                found = self._attacked(algorithm, episodes, episodes.query, f"{stream}/query")
                episodes = episodes._replace(query=found)
        return episodes

    def _attacked(self, algorithm: Algorithm, episodes: Episodes, examples: Examples, stream: str) -> Examples:
        with torch.no_grad():
            loss = _loss_of(algorithm.classifier(episodes), examples.y)
        start = None
        if self.random_start:
            drawn = [_uniform(f"{stream}/{number}", examples.x[0]) for number in episodes.index.tolist()]
            start = self.strength * torch.stack(drawn)
        x = perturbed(loss, examples.x, pixels_of(algorithm), self.strength, self.steps, self.step, start)
        return Examples(x, examples.y)


def perturbed(
    loss: Callable[[Tensor], Tensor],
    x: Tensor,
    pixels: Pixels,
    strength: float,
    steps: int = 1,
    step: float = 1.0,
    start: Tensor | None = None,
) -> Tensor:
    """Images x (..., C, H, W), scaled as `pixels` says, after so many steps up `loss`; a constant.

    `start`: how their pixels of 0..1 are changed first.
    """
    mean, std = (torch.tensor(list(values), dtype=x.dtype, device=x.device).view(-1, 1, 1) for values in pixels)
    x = x.detach()
    unscaled = (x * std + mean).clamp(0, 1)
    low, high = (-unscaled).clamp(min=-strength), (1 - unscaled).clamp(max=strength)
    change = torch.zeros_like(x) if start is None else start.clamp(low, high)
    for _ in range(steps):
        found, _ = gradients_of(lambda at: loss(x + at["change"] / std), {"change": change}, differentiable=False)
        change = (change + step * strength * found["change"].detach().sign()).clamp(low, high)
    return x + change / std


def surprise(logits: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of logits (..., n, way), summed: no image's gradient depends on how many there are.

    Computed in double precision where there is one: of an image that is told with certainty, the gradient in single
    precision is zero, and so would be the attack.
    """
    wide = logits.float() if logits.device.type == "mps" else logits.double()
    return F.cross_entropy(wide.flatten(0, -2), y.flatten(), reduction="sum")


def pixels_of(algorithm: Algorithm) -> Pixels:
    """How the images that an algorithm's backbone sees were scaled."""
    found = next((module.pixels for module in algorithm.modules() if isinstance(module, Backbone)), None)
    assert found, "Backbone.pixels is not set"
    return found


def demand_gradient(algorithm: Algorithm, episodes: Episodes, name: str) -> None:
    """Raises UserError where the method, of this name, has no gradient with respect to the queries' images."""
    with _buffers_kept(algorithm), torch.no_grad():
        classify = algorithm.classifier(episodes)
        with torch.enable_grad():
            x = episodes.query.x.detach().requires_grad_()
            loss = _loss_of(classify, episodes.query.y)(x)
            [found] = torch.autograd.grad(loss, [x], allow_unused=True) if loss.requires_grad else [None]
    if found is None or not found.any():
        raise UserError(
            f"algo={name} has no gradient with respect to its query images, on this backbone at least, so attack= has "
            "no way to go. Leave it out, or choose algo=protonet, algo=r2d2 or algo=maml on backbone=conv4."
        )


def demand_use(attack: Attack, algorithm: Algorithm, episodes: Episodes, name: str) -> None:
    """Raises UserError where the method, of this name, trains on nothing that the attack changes."""
    losses = []
    with _buffers_kept(algorithm), torch.no_grad():
        for each in (episodes, attack.episodes(algorithm, episodes, "train")):
            with torch.random.fork_rng():
                torch.manual_seed(0)  # dropout and other noise alike
                losses.append(float(algorithm.loss(each)))
    if attack.strength and losses[0] == losses[1]:
        sets = {"query": "queries", "support": "support sets"}.get(attack.of, "what is attacked")
        raise UserError(
            f"attack.of={attack.of}: algo={name} does not train on its {sets}, and training under attack= would be "
            "plain training. Leave it out, and type it for the test: fsl test run=RUN attack=pgd."
        )


def _loss_of(classify: Classifier, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: surprise(classify(x), y)


def _uniform(stream: str, like: Tensor) -> Tensor:
    """Numbers of -1..1 that depend on `stream` alone, on whatever device."""
    dice = torch.Generator().manual_seed(int.from_bytes(shake_128(stream.encode()).digest(7), "little"))
    return torch.rand(like.shape, generator=dice).to(like) * 2 - 1


@contextmanager
def _buffers_kept(algorithm: Algorithm) -> Iterator[None]:
    """Running statistics, which a pass in training moves, are as before once the block is over."""
    before = [buffer.clone() for buffer in algorithm.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(algorithm.buffers(), before, strict=True):
            buffer.copy_(value)
