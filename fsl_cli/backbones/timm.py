"""Any network of timm (PyTorch Image Models), https://huggingface.co/docs/timm, trained or not."""

from __future__ import annotations

from typing import Any

from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.pretrained import Pretrained, Trained, demand_running, no_weights, unknown
from fsl_cli.errors import UserError


def timm(channels: int, size: int, norm: Mode, name: str = "resnet18", pretrained: bool = False) -> Pretrained:
    """The network `name`, such as resnet50 or resnet50.a1_in1k, without classifier; `pretrained`: with its weights.

    Raises UserError when timm is not installed, when it has no such network, when its weights cannot be had, or for
    another norm than running.
    """
    demand_running(norm)
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
    return Pretrained(name, net, Trained(own["input_size"][-1], own["mean"], own["std"]), channels, size)


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
