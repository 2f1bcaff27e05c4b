"""The norm's modes against torch's own batch normalisation and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.backbones.norm import MOMENTUM, Norm

X = torch.randn(3, 10, 16, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 + 1  # T, n, C, H, W


def norm(mode: str) -> Norm:
    built = Norm(mode, 16)  # type: ignore[arg-type]
    with torch.no_grad():
        built.weight.uniform_(0.5, 2)
        built.bias.uniform_(-1, 1)
    return built


def reference(built: Norm) -> nn.BatchNorm2d:
    batch_norm = nn.BatchNorm2d(16)
    batch_norm.load_state_dict({"weight": built.weight, "bias": built.bias}, strict=False)
    return batch_norm.train()


def test_transductive_takes_each_set_by_itself() -> None:
    built = norm("transductive")
    expected = torch.stack([torch.cat([reference(built)(x[:4]), reference(built)(x[4:])]) for x in X])
    torch.testing.assert_close(built(X, 4), expected)


def test_support_normalises_the_query_by_the_support_set() -> None:
    built = norm("support")
    out = built(X, 4)
    for episode, result in zip(X, out, strict=True):
        mean = episode[:4].mean((0, 2, 3)).view(-1, 1, 1)
        std = (episode[:4].var((0, 2, 3), correction=0).view(-1, 1, 1) + 1e-5).sqrt()
        expected = (episode - mean) / std * built.weight.view(-1, 1, 1) + built.bias.view(-1, 1, 1)
        torch.testing.assert_close(result, expected)
    torch.testing.assert_close(out[:, :4], built(X[:, :4], 0))


@pytest.mark.parametrize("mode", ["transductive", "support", "running", "group"])
@pytest.mark.parametrize("relu", [False, True])
def test_without_a_scale_there_is_a_shift_alone_and_eps_is_added_to_the_variance(mode: str, relu: bool) -> None:
    built, whole = Norm(mode, 16, scale=False, eps=0.5), Norm(mode, 16, eps=0.5)  # type: ignore[arg-type]
    assert [name for name, _ in built.named_parameters()] == ["bias"] and "weight" not in built.state_dict()
    torch.testing.assert_close(built(X, 4, relu), whole(X, 4, relu))
    if mode == "transductive":
        x = X[1, 4:]
        expected = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 0.5).sqrt()
        torch.testing.assert_close(built(X, 4, relu)[1, 4:], expected.relu() if relu else expected)
    if mode == "running":
        torch.testing.assert_close(built.eval()(X), whole.eval()(X))


def test_running_averages_each_episodes_statistics_while_training_and_uses_them_afterwards() -> None:
    built = norm("running").train()
    out = built(X)
    torch.testing.assert_close(out, torch.stack([reference(built)(x) for x in X]))
    mean = torch.stack([x.mean((0, 2, 3)) for x in X]).mean(0)
    var = torch.stack([x.var((0, 2, 3)) for x in X]).mean(0)
    torch.testing.assert_close(built.mean, MOMENTUM * mean)
    torch.testing.assert_close(built.var, (1 - MOMENTUM) + MOMENTUM * var)
    before = built.mean.clone()
    out = built.eval()(X)
    torch.testing.assert_close(out[1, 2], built(X[1:2, 2:3])[0, 0])
    assert torch.equal(built.mean, before)


def test_group_and_none_take_each_image_by_itself() -> None:
    built = norm("group")
    torch.testing.assert_close(built(X)[1, 2], built(X[1:2, 2:3])[0, 0])
    first = built(X)[0, 0].sub(built.bias.view(-1, 1, 1)).div(built.weight.view(-1, 1, 1))
    torch.testing.assert_close(first[:8].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert torch.equal(Norm("none", 16)(X), X)


@pytest.mark.parametrize(("halve", "size", "features"), [("pool", 28, 64), ("pool", 84, 1600), ("stride", 28, 64)])
def test_conv4_has_the_fields_feature_sizes(halve: str, size: int, features: int) -> None:
    backbone = Conv4(1, size, "running", halve=halve)  # type: ignore[arg-type]
    assert backbone.out_features == features
    assert backbone(torch.zeros(2, 3, 1, size, size)).shape == (2, 3, features)
    assert math.prod(backbone.map_shape) == features


def test_conv4_takes_a_width_for_each_block() -> None:
    backbone = Conv4(1, 28, "running", [8, 12, 16, 24])
    assert backbone.map_shape == (24, 1, 1)
    assert backbone.block_channels == [8, 12, 16, 24]
    assert backbone(torch.zeros(2, 3, 1, 28, 28)).shape == (2, 3, 24)
    with pytest.raises(ValueError, match="one for each of the 4 blocks"):
        Conv4(1, 28, "running", [8, 12])


@pytest.mark.parametrize(
    ("halve", "size", "shape"), [("pool", 28, (64, 7, 7)), ("pool", 84, (64, 21, 21)), ("stride", 28, (64, 1, 1))]
)
def test_conv4_halves_in_its_first_blocks_only(halve: str, size: int, shape: tuple[int, int, int]) -> None:
    backbone = Conv4(1, size, "running", halve=halve, halvings=2)  # type: ignore[arg-type]
    assert backbone.map_shape == shape
    assert backbone(torch.zeros(1, 2, 1, size, size)).shape == (1, 2, math.prod(shape))
    assert [conv.stride[0] for conv in backbone.convs] == ([2, 2, 1, 1] if halve == "stride" else [1, 1, 1, 1])


def test_conv4_gives_each_channels_maximum() -> None:
    images = torch.randn(2, 3, 1, 48, 48)
    torch.manual_seed(0)
    maps = Conv4(1, 48, "running", 8)(images).unflatten(2, (8, 9))  # of 3 x 3 pixels
    torch.manual_seed(0)
    backbone = Conv4(1, 48, "running", 8, maximum=True)
    torch.testing.assert_close(backbone(images), maps.amax(3))
    assert backbone.map_shape == (8, 1, 1)
    with pytest.raises(ValueError, match="with halve=stride, features are the map's mean"):
        Conv4(1, 48, "running", halve="stride", maximum=True)


@pytest.mark.parametrize(("size", "halvings", "says"), [(3, 2, "takes 4 pixels"), (28, 5, "there are 4 blocks")])
def test_conv4_refuses_what_cannot_be_halved(size: int, halvings: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Conv4(1, size, "running", halvings=halvings)
