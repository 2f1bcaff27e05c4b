"""A library's classification network as a backbone; `torchvision.py` and `timm.py` say where it comes from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.mode import Mode
from fsl_cli.errors import UserError

IMAGENET = "ImageNet"


class Trained(NamedTuple):
    """How images were prepared in a network's own training."""

    size: int
    mean: Sequence[float]  # pixels of 0..1, less the mean, over the deviation
    std: Sequence[float]


class Pretrained(Backbone):
    """`net` without its classifier, images (n, 3, size, size) -> (n, features), on images of 1 or 3 channels.

    Grey is shown to it as colour, and pixels at the scale of its own training, of images of another size than `resize`
    after they are brought to that. It keeps the normalisation that it has:
    what is a batch norm takes, in training, the statistics of one episode, as `backbones.norm` does. Its blocks are
    out of an algorithm's reach. Raises UserError where it cannot take images of that size.
    """

    def __init__(
        self, name: str, net: nn.Module, trained: Trained, channels: int, size: int, resize: int | None = None
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise UserError(f"backbone.name={name}: takes images of 1 or 3 channels, and these have {channels}.")
        self.norm: Mode = "running"
        self.net = net
        self.trained = trained
        self.resize = resize
        self.out_features = _tried(name, net, trained.size, resize or size)
        self.map_shape = (self.out_features, 1, 1)
        self.block_channels = ()

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        x = self._resized(self._rescaled(x.expand(-1, -1, 3, -1, -1)))
        if self.training:
            return self._by_episode(x)
        return self.net(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _resized(self, x: Tensor) -> Tensor:
        """(T, n, 3, H, W) at the size that the network is to see."""
        if self.resize in (None, x.shape[-1]):
            return x
        side = [self.resize, self.resize]
        return F.interpolate(x.flatten(0, 1), side, mode="bilinear", antialias=True).unflatten(0, x.shape[:2])

    def _rescaled(self, x: Tensor) -> Tensor:
        """(T, n, 3, H, W) as the network's own training scaled them."""
        if self.pixels is None:
            return x
        mean, std, own_mean, own_std = (
            torch.tensor(values, dtype=x.dtype, device=x.device).expand(3).view(3, 1, 1)
            for values in (*self.pixels, self.trained.mean, self.trained.std)
        )
        return torch.addcmul((mean - own_mean) / own_std, x, std / own_std)

    def _by_episode(self, x: Tensor) -> Tensor:
        """Each episode on its own; running statistics move by the mean of what each would have moved them by."""
        running = dict(self.net.named_buffers())
        outs, moved = [], []
        for episode in x:
            own = {name: buffer.clone() for name, buffer in running.items()}
            outs.append(functional_call(self.net, own, (episode,)))
            moved.append(own)
        for name, buffer in running.items():
            change = torch.stack([own[name] - buffer for own in moved])
            buffer += change.mean(0) if buffer.is_floating_point() else change[0]
        return torch.stack(outs)


def origin(tag: str) -> str:
    """What weights that timm calls by this tag have seen: ImageNet, or the tag itself where that is not known."""
    return IMAGENET if re.search(r"in(1|12|21|22)k|^dino$|mae", tag) else tag or "timm"


def demand_one(pretrained: bool, weights: str | None) -> None:
    """Raises UserError where weights are to come from two places."""
    if pretrained and weights:
        raise UserError(f"backbone.pretrained=true backbone.weights={weights}: choose one of the two.")


def demand_running(norm: Mode) -> None:
    """Raises UserError for a norm that a network which keeps its own cannot have."""
    if norm != "running":
        raise UserError(
            f"norm={norm}: a library's network keeps the normalisation it has, running averages as a rule. Type "
            "norm=running; or, for an inner loop, which cannot follow those, one of fsl's own: backbone=resnet18."
        )


def unknown(name: str, library: str, names: Iterable[str], page: str) -> UserError:
    """The error that a library has no model of this name, with similar names."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return UserError(f"backbone.name={name}: {library} has no such model.{hint} It has those of {page}.")


def no_weights(name: str, error: Exception, places: str) -> UserError:
    """The error that trained weights could not be loaded: where they were looked for, and what to do by hand."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"The weights of {name} cannot be had: {reason[:300]}. {places}, take them "
        "from a file, backbone.weights=FILE, or type backbone.pretrained=false to do without."
    )


def _tried(name: str, net: nn.Module, trained_size: int, size: int) -> int:
    """The number of its features, found with an empty image."""
    net.eval()
    try:
        with torch.no_grad():
            out: Tensor = net(torch.zeros(1, 3, size, size))
    except Exception as error:  # a library's network may raise anything
        reason = " ".join(str(error).split())
        raise UserError(
            f"backbone.name={name}: cannot take images of {size} x {size} ({reason[:200]}). "
            f"It was made for {trained_size}: type data.size={trained_size}."
        ) from error
    net.train()
    if out.ndim != 2:
        raise UserError(f"backbone.name={name}: gives maps of shape {tuple(out.shape)[1:]}, not features.")
    return out.shape[1]
