"""Any network of timm (PyTorch Image Models), https://huggingface.co/docs/timm, trained or not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.pretrained import (
    Pretrained,
    Trained,
    demand_one,
    demand_running,
    no_weights,
    origin,
    unknown,
)
from fsl_cli.backbones.weights import fit, part_for, read_weights
from fsl_cli.errors import UserError


def timm(
    channels: int, size: int, norm: Mode, name: str = "resnet18", pretrained: bool = False, weights: str | None = None
) -> Pretrained:
    """The network `name`, such as resnet50 or resnet50.a1_in1k, without classifier; `pretrained`: with its weights.

    `weights` is a file of them, as timm or the network's authors write it. A transformer that was made for images of
    one size takes any other that its patches fill. Raises UserError when timm is not installed, when it has no such
    network, when its weights cannot be had or do not fit, or for another norm than running.
    """
    demand_running(norm)
    demand_one(pretrained, weights)
    try:
        import timm as library
    except ImportError as error:
        raise UserError('backbone=timm: timm is not installed. Type pip install "fsl-cli[timm]".') from error
    if not library.is_model(name):
        raise unknown(name, "timm", library.list_models(), "timm.list_models()")
    try:
        net = library.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # whatever a network, the hub or a damaged file makes of itself
        if not pretrained:
            raise UserError(f"backbone.name={name}: timm cannot make it: {error}.") from error
        raise no_weights(f"timm's {name}", error, _places(name)) from error
    own: Any = net.pretrained_cfg
    if weights:
        _fill(net, Path(weights).expanduser(), own["classifier"])
    _take(net, size)
    built = Pretrained(name, net, Trained(own["input_size"][-1], own["mean"], own["std"]), channels, size)
    built.origin = origin(own["tag"]) if pretrained else Path(weights).name if weights else ""
    return built


def _fill(net: nn.Module, path: Path, classifier: str | Sequence[str]) -> None:
    """Put a file's weights into `net`, also by the names that the network's own authors give them."""
    state: Any = part_for(read_weights(path), net)
    translate = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    wrong = f"backbone.weights={path}: does not fit timm's network"
    try:
        state = translate(state, net) if translate else state
    except Exception as error:  # of a file that it was not written for
        raise UserError(f"{wrong}: {type(error).__name__} {error}.") from error
    fit(net, state, wrong, [classifier] if isinstance(classifier, str) else classifier or ())


def _take(net: Any, size: int) -> None:
    """Let a transformer take images of `size`, where its patches fill them."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if patch and hasattr(net, "set_input_size") and size % patch[0] == 0:
        net.set_input_size(img_size=(size, size))


def _places(name: str) -> str:
    """Where timm looks for weights."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from timm.models import get_pretrained_cfg

    found = get_pretrained_cfg(name)
    where = (found and (found.hf_hub_id or found.url)) or "nowhere: it has none"
    return (
        f"Looked for in {HF_HUB_CACHE}, then at the hub, {where}. "
        "Fill that folder by hand (where there is a network: hf download REPOSITORY)"
    )
