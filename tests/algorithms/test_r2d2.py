"""Ridge regression heads: the closed form by hand, by least squares, and the settings of the paper."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import settings
from test_heads import Flat, episode
from torch import Tensor, nn

from fsl_cli.algorithms.r2d2 import R2D2
from fsl_cli.algorithms.solvers.ridge import ridge
from fsl_cli.backbones.r2d2 import R2D2Net
from fsl_cli.episodes import Examples

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("n", [3, 8, 30])  # fewer than, as many as and more than features
def test_ridge_is_least_squares_with_a_row_for_each_penalty(n: int) -> None:
    x, targets = torch.randn(2, n, 8), torch.randn(2, n, 4)
    rows = torch.cat([x, 0.7**0.5 * torch.eye(8).expand(2, -1, -1)], 1)
    expected = torch.linalg.lstsq(rows, torch.cat([targets, torch.zeros(2, 8, 4)], 1)).solution
    torch.testing.assert_close(ridge(x, targets, 0.7), expected)


@pytest.mark.parametrize("n", [4, 9])
def test_the_gradient_of_ridge_equals_finite_differences(n: int) -> None:
    x, targets, penalty = torch.randn(2, n, 6), torch.randn(2, n, 3), torch.tensor(0.3)
    inputs = tuple(tensor.requires_grad_() for tensor in (x, targets, penalty))
    assert torch.autograd.gradcheck(ridge, inputs)


def test_logits_by_hand() -> None:
    """x = 1 of class 0, x = -1 of class 1: with the bias x'x = 2I, and W = x'Y / (2 + 2 * 1)."""
    algorithm = R2D2(Flat(1), scale=2.0, penalty=1.0)
    classify = algorithm.adapt(Examples(torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[0, 1]])))
    expected = torch.tensor([[[0.5 * q + 0.5, -0.5 * q + 0.5] for q in (0.0, 1.0, 3.0)]])
    torch.testing.assert_close(classify(torch.tensor([[[0.0], [1.0], [3.0]]])), expected)


def test_the_regulariser_is_of_the_mean_error() -> None:
    """A support set twice over gives the same classifier."""
    algorithm, some = R2D2(Flat(6), penalty=0.5), episode([2, 3, 1])
    twice = Examples(some.support.x.repeat(1, 2, 1), some.support.y.repeat(1, 2))
    torch.testing.assert_close(algorithm.adapt(twice)(some.query.x), algorithm.adapt(some.support)(some.query.x))


def test_scale_and_regulariser_are_learned_from_where_they_are_set() -> None:
    algorithm, some = R2D2(Flat(6), scale=3.0, penalty=0.2), episode([2, 2, 2])
    learned = dict(algorithm.named_parameters())
    assert {name: float(value.detach()) for name, value in learned.items()} == pytest.approx(
        {"scale": 3.0, "log_penalty": math.log(0.2)}
    )
    algorithm.loss(some).backward()
    assert all(value.grad is not None and value.grad != 0 for value in learned.values())


def plain_features(net: R2D2Net, images: Tensor) -> Tensor:
    """The authors' encoder with the weights of ours, by torch's own layers: (n, C, H, W) -> (n, d)."""
    blocks = []
    for number, (ours, norm) in enumerate(zip(net.convs, net.norms, strict=True)):
        conv, batch = nn.Conv2d(*ours.weight.shape[1::-1], 3, padding=1, bias=False), nn.BatchNorm2d(len(norm.weight))
        conv.weight, batch.weight, batch.bias = ours.weight, norm.weight, norm.bias
        blocks.append(nn.Sequential(conv, batch, nn.MaxPool2d(2, 1 if number == 3 else 2), nn.LeakyReLU(0.1)))
    third = nn.Sequential(*blocks[:3])(images)
    return torch.cat([nn.MaxPool2d(2, 1)(third).flatten(1), blocks[3](third).flatten(1)], 1)


@pytest.mark.parametrize(("size", "side"), [(16, 1), (28, 2), (36, 3)])
def test_the_network_is_the_authors(size: int, side: int) -> None:
    net, images = R2D2Net(3, size, "running", [4, 6, 5, 7]), torch.randn(8, 3, size, size)
    for norm in net.norms:
        nn.init.normal_(norm.weight)  # of either sign: a norm does not change places with pooling
        nn.init.normal_(norm.bias)
    assert net.map_shape == (12, side, side)
    torch.testing.assert_close(net(images.unsqueeze(0)).squeeze(0), plain_features(net, images))


def test_training_drops_of_the_last_two_blocks() -> None:
    images = torch.randn(1, 40, 1, 28, 28)
    torch.manual_seed(0)
    whole, dropping = R2D2Net(1, 28, "none", [4, 4, 4, 4]), R2D2Net(1, 28, "none", [4, 4, 4, 4], dropout=0.4)
    dropping.load_state_dict(whole.state_dict())
    last = dropping(images).unflatten(2, dropping.map_shape)[:, :, 4:]
    assert float((last == 0).double().mean()) == pytest.approx(0.4, abs=0.06)
    assert torch.equal(dropping.eval()(images), whole(images))
    assert dropping.drops and not whole.drops


def test_the_authors_settings_come_without_being_asked_for() -> None:
    for data, way, scale, dropout in (("omniglot", 60, 10.0, 0), ("miniimagenet", 16, 1e-4, 0.1)):
        values = settings(["algo=r2d2", f"data={data}", "way=5", "shot=1"])
        assert (values.backbone.get("filters"), values.backbone.get("dropout")) == ([96, 192, 384, 512], dropout)
        assert (values.train_way, values.train_shot, values.algo.get("scale")) == (way, [1, 9], scale)
        assert (values.optim.get("lr"), values.schedule.get("every"), values.schedule.get("factor")) == (
            0.005,
            2000,
            0.5,
        )
