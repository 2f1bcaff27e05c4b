"""Any classification network of torchvision, https://docs.pytorch.org/vision/stable/models.html, trained or not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.pretrained import (
    IMAGENET,
    Pretrained,
    Trained,
    demand_one,
    demand_running,
    no_weights,
    unknown,
)
from fsl_cli.backbones.weights import put_weights


def torchvision(
    channels: int, size: int, norm: Mode, name: str = "resnet18", pretrained: bool = False, weights: str | None = None
) -> Pretrained:
    """The network `name` up to its last layer; `pretrained`: with torchvision's best weights, from ImageNet.

    `weights` is a file of them. Raises UserError when there is no such network, when its weights cannot be had or do
    not fit, or for another norm than running.
    """
    from torchvision import models  # takes a second, and most backbones do without

    demand_running(norm)
    demand_one(pretrained, weights)
    names = models.list_models(module=models)
    if name not in names:
        raise unknown(name, "torchvision", names, "https://docs.pytorch.org/vision/stable/models.html")
    best = models.get_model_weights(name).DEFAULT
    own = best.transforms()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on first weights, and on defaults that are to change
        net = _trained(name, best) if pretrained else models.get_model(name, weights=None)
    classifier = _drop_classifier(net)
    if weights:
        put_weights(net, Path(weights).expanduser(), classifier)
    made_for = getattr(net, "image_size", own.crop_size[0])  # a transformer's, which depends on its weights
    built = Pretrained(name, net, Trained(made_for, own.mean, own.std), channels, size)
    built.origin = IMAGENET if pretrained else Path(weights).name if weights else ""
    return built


def _trained(name: str, weights: Any) -> nn.Module:
    from torchvision import models

    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        return models.get_model(name, weights=weights)
    except Exception as error:  # whatever a network, or a damaged file, makes of itself
        if file.exists():
            places = f"{file} is damaged. Delete it"
        else:
            places = f"Looked for in {file}, then at {weights.url}. Put that file there by hand"
        raise no_weights(f"torchvision's {name}", error, places) from error


def _drop_classifier(net: nn.Module) -> list[str]:
    """Put nothing in place of the last layer, which tells classes apart, and of those on the way; their names."""
    changes: dict[str, bool | None] = {"AuxLogits": None, "aux1": None, "aux2": None, "aux_logits": False}
    changes["transform_input"] = True  # as the trained ones, so that a test need not load them to be the same network
    for name, value in changes.items():
        if hasattr(net, name):
            setattr(net, name, value)
    layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    net.set_submodule(layers[-1], nn.Identity())
    return [layers[-1], *changes]
