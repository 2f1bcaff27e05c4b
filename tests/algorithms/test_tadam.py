"""TADAM: a scaled prototypical network to begin with; then each block scaled and shifted as the task says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import Pixels, tiny_data
from test_algorithms import episodes, flat, shift
from torch import Tensor

from fsl_cli.algorithms.film import Film
from fsl_cli.algorithms.protonet import ProtoNet, prototypes
from fsl_cli.algorithms.supervised import supervised_loss
from fsl_cli.algorithms.tadam import TADAM
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("float64")


def built(strength: float = 0.0, **more: float) -> TADAM:
    torch.manual_seed(0)
    classes = len(tiny_data().splits["train"].classes)
    made = TADAM(Conv4(1, 16, "none", filters=8), classes, scale=0.5, **more)
    torch.manual_seed(1)
    with torch.no_grad():
        made.film.strength.copy_(strength * torch.rand(2, 4))
    return made


def generated(generator: torch.nn.Module, c: Tensor) -> Tensor:
    """Three layers with shortcuts, swish x sigmoid(x) in between."""
    layers = [generator.get_submodule(name) for name in ("first", "second", "last")]
    x = layers[0](c)
    x = x * x.sigmoid()
    y = x + layers[1](x)
    y = y * y.sigmoid()
    return y + layers[2](y)


def test_it_begins_as_a_scaled_prototypical_network() -> None:
    tadam, some = built(cotraining=False), episodes()
    protonet = ProtoNet(tadam.backbone, temperature=2.0)
    torch.testing.assert_close(
        tadam.adapt(some.support)(some.query.x), protonet.adapt(some.support)(some.query.x), rtol=1e-13, atol=1e-13
    )
    torch.testing.assert_close(tadam.loss(some), protonet.loss(some), rtol=1e-13, atol=1e-13)


def test_each_block_is_scaled_and_shifted_by_the_mean_of_the_class_means() -> None:
    tadam, some = built(strength=2.0), episodes()
    backbone, film = tadam.backbone, tadam.film
    for task in range(2):
        support = backbone(some.support.x[task : task + 1])
        c = prototypes(support, some.support.y[task : task + 1])[0].mean(0)

        def features(x: Tensor, c: Tensor = c) -> Tensor:
            for block in range(4):
                x = F.max_pool2d(backbone.convs[block](x), 2)
                gamma = film.strength[0, block] * generated(film.gammas[block], c)
                beta = film.strength[1, block] * generated(film.betas[block], c)
                x = ((1 + gamma[:, None, None]) * x + beta[:, None, None]).relu()
            return x.flatten(1)

        centres = prototypes(features(some.support.x[task])[None], some.support.y[task : task + 1])[0]
        expected = -0.5 * torch.cdist(features(some.query.x[task]), centres).square()
        torch.testing.assert_close(tadam.adapt(some.support)(some.query.x)[task], expected)


@pytest.mark.parametrize("progress", [0.0, 0.12, 1.0])
def test_the_losses_share_as_training_goes_on(progress: float) -> None:
    tadam, some = built(strength=0.5, penalty=0.3), episodes()
    tadam.progress = progress
    alone = built(strength=0.5, penalty=0.0, cotraining=False).loss(some)
    assert tadam.head is not None
    together = supervised_loss(tadam.backbone, tadam.head, some)
    share = {0.0: 1.0, 0.12: 0.9**2, 1.0: 0.9**20}[progress]
    penalty = 0.3 * tadam.film.strength.square().sum()
    torch.testing.assert_close(tadam.loss(some), (1 - share) * alone + share * together + penalty)


def test_the_gradient_of_everything_equals_finite_differences() -> None:
    tadam, some = built(strength=0.5), episodes()
    gradient = flat(torch.autograd.grad(tadam.loss(some), list(tadam.parameters())))
    direction, values = torch.randn_like(gradient), []
    for sign in (1, -1):
        shift(tadam, sign * 1e-8 * direction)
        values.append(tadam.loss(some).item())
        shift(tadam, -sign * 1e-8 * direction)
    assert (values[0] - values[1]) / 2e-8 == pytest.approx(float(gradient @ direction), rel=1e-5)


def test_a_backbone_without_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="no blocks whose channels a task could scale"):
        Film(Pixels(4, 1, 1))
