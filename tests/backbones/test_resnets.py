"""The residual networks against torchvision's, and against the papers' blocks spelled out; what training drops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import ResNet as TorchvisionResNet
from torchvision.ops import drop_block2d

from fsl_cli.backbones.layers import Shortcut, drop_block
from fsl_cli.backbones.norm import Norm
from fsl_cli.backbones.resnet import ResNet
from fsl_cli.backbones.resnet12 import ResNet12
from fsl_cli.backbones.wide_resnet import WideResNet


def images(count: int = 4, size: int = 32) -> Tensor:
    return torch.randn(1, count, 3, size, size, generator=torch.Generator().manual_seed(0))


def shuffled(built: nn.Module) -> nn.Module:
    """The network with weights and statistics that are nothing special, so that each of them counts."""
    torch.manual_seed(0)
    for value in [*built.parameters(), *(each for each in built.buffers() if each.is_floating_point())]:
        value.data = value.data + 0.2 * torch.rand_like(value)
    return built


def same_norm(norm: Norm) -> nn.BatchNorm2d:
    """torch's own batch norm with the weights and statistics of ours."""
    twin = nn.BatchNorm2d(len(norm.weight))
    values = {"weight": norm.weight, "bias": norm.bias, "running_mean": norm.mean, "running_var": norm.var}
    twin.load_state_dict({key: value.clone() for key, value in values.items()}, strict=False)
    return twin.train(norm.training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("blocks", [[2, 2, 2, 2], [1, 1, 1, 1]])
def test_resnet_is_torchvisions(blocks: list[int], training: bool, float64: None) -> None:
    twin = shuffled(TorchvisionResNet(BasicBlock, blocks))
    twin.fc = nn.Identity()
    own = ResNet(3, 40, "running", blocks=blocks)
    theirs = [value for key, value in twin.state_dict().items() if "num_batches" not in key]
    first = [own.first.weight, *norm_values(own.first_norm)]
    for block in own.blocks:
        first += [block.conv1.weight, *norm_values(block.norm1), block.conv2.weight, *norm_values(block.norm2)]
        if block.projects:
            first += [block.shortcut.conv.weight, *norm_values(block.shortcut_norm)]
    for mine, value in zip(first, theirs, strict=True):
        mine.data.copy_(value)
    x = images(size=40).double()
    torch.testing.assert_close(own.train(training)(x)[0], twin.train(training)(x[0]))
    theirs = [value for key, value in twin.named_buffers() if "num_batches" not in key]  # and what it moved
    mine = [value for norm in own.modules() if isinstance(norm, Norm) for value in (norm.mean, norm.var)]
    assert sorted(value.sum().item() for value in mine) == pytest.approx(sorted(v.sum().item() for v in theirs))


def norm_values(norm: Norm) -> list[Tensor]:
    return [norm.weight, norm.bias, norm.mean, norm.var]


@pytest.mark.parametrize("training", [True, False])
def test_resnet12_is_the_authors(training: bool, float64: None) -> None:
    """Three convolutions and a shortcut with norms, leaky ReLU of 0.1, then max-pooling, in this order."""
    own = shuffled(ResNet12(3, 50, "running", [4, 6, 5, 7], drop_rate=0.0)).train(training)
    twins = [[same_norm(norm) for norm in (*block.norms, block.shortcut_norm)] for block in own.blocks]
    x = images(size=50).double()
    expected = x[0]
    for block, (*norms, last) in zip(own.blocks, twins, strict=True):
        out = expected
        for number, (conv, norm) in enumerate(zip(block.convs, norms, strict=True)):
            out = norm(F.conv2d(out, conv.weight, padding=1))
            if number < 2:
                out = F.leaky_relu(out, 0.1)
        out = out + last(F.conv2d(expected, block.shortcut.weight))
        expected = F.max_pool2d(F.leaky_relu(out, 0.1), 2)
    assert own.map_shape == (7, 3, 3)
    torch.testing.assert_close(own(x)[0], expected.flatten(1))
    own.average = True
    torch.testing.assert_close(own.eval()(x)[0].shape, torch.Size([4, 7]))


@pytest.mark.parametrize("training", [True, False])
def test_wide_resnet_is_the_papers(training: bool, float64: None) -> None:
    """Norm and ReLU in front of each convolution; the shortcut projects what is behind the first of them."""
    own = shuffled(WideResNet(3, 21, "running", depth=16, widen=2, filters=3)).train(training)
    assert own.block_channels == [6, 6, 12, 12, 24, 24]
    norms = [(same_norm(block.norm1), same_norm(block.norm2)) for block in own.blocks]
    last = same_norm(own.last_norm)
    x = images(size=21).double()
    expected = F.conv2d(x[0], own.first.weight, padding=1)
    for number, (block, (norm1, norm2)) in enumerate(zip(own.blocks, norms, strict=True)):
        stride = 2 if number in (2, 4) else 1
        ready = norm1(expected).relu()
        out = norm2(F.conv2d(ready, block.conv1.weight, stride=stride, padding=1)).relu()
        out = F.conv2d(out, block.conv2.weight, padding=1)
        projects = number % 2 == 0
        expected = out + (F.conv2d(ready, block.shortcut.conv.weight, stride=stride) if projects else expected)
    expected = last(expected).relu()
    assert expected.shape == (4, 24, 6, 6)
    torch.testing.assert_close(own(x)[0], expected.mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "words", "shape"),
    [
        (ResNet12, {}, (640, 5, 5)),
        (ResNet12, {"average": True}, (640, 1, 1)),
        (ResNet, {}, (512, 1, 1)),
        (ResNet, {"average": False}, (512, 3, 3)),
        (ResNet, {"average": False, "stem": "3x3"}, (512, 11, 11)),
        (WideResNet, {"average": False, "depth": 10, "widen": 2}, (128, 21, 21)),
    ],
)
def test_maps_of_images_of_84_have_the_size_that_is_named(network: type, words: dict, shape: tuple) -> None:
    with torch.device("meta"):
        built = network(3, 84, "running", **words)
        assert built(torch.zeros(1, 2, 3, 84, 84)).shape == (1, 2, built.out_features)
    assert built.map_shape == shape


def test_a_shortcut_of_stride_2_is_that_convolution(float64: None) -> None:
    for size in (7, 8):
        x, layer = images(size=size)[0].double(), Shortcut(3, 5, 2, bias=True)
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.conv.weight, layer.conv.bias, stride=2))


def test_modulation_stands_in_front_of_a_blocks_last_activation(float64: None) -> None:
    x, far = images(size=16).double(), {0: lambda maps: maps.abs() - 1e4}  # below zero throughout
    resnet = ResNet(3, 16, "none", [4], [1], "3x3", average=False)
    assert not resnet.features(x, 0, far).any()
    resnet12 = ResNet12(3, 16, "none", [4, 4, 4, 4], drop_rate=0.0)
    assert -1000 < resnet12.features(x, 0, {3: far[0]}).mean().item() < -900
    wide = WideResNet(3, 16, "none", 10, 1, 4)
    shut = (
        wide.blocks[0](wide.first(x[0])[None], 0, far[0]) - wide.first(x[0])[None]
    )  # the shortcut is all that is left
    torch.testing.assert_close(shut, wide.blocks[0].conv2.bias.view(-1, 1, 1).expand_as(shut))


def test_what_cannot_be_is_refused() -> None:
    for wrong, says in [
        (lambda: ResNet12(3, 15, "none"), "16 pixels"),
        (lambda: ResNet12(3, 16, "none", [4, 4]), "each of the 4 blocks"),
        (lambda: ResNet(3, 16, "none", [4, 4]), "every stage"),
        (lambda: ResNet(3, 16, "none", [4, 0], [1, 1]), "at least 1"),
        (lambda: WideResNet(3, 16, "none", depth=12), "such as 10, 16"),
    ]:
        with pytest.raises(ValueError, match=says):
            wrong()


@pytest.mark.parametrize("size", [5, 2, 1])
def test_dropped_blocks_are_squares_of_the_right_share_and_the_mean_stays(size: int) -> None:
    torch.manual_seed(0)
    x = torch.ones(2, 50, 40, 11, 11)
    dropped = drop_block(x, 0.2, size)
    gone = dropped[0, 0] == 0
    squares = F.max_pool2d(-F.max_pool2d(-gone.float(), size, 1), size, 1, padding=0)  # eroded, then grown again
    inner = gone[:, size - 1 : 12 - size, size - 1 : 12 - size]
    assert torch.equal(squares.bool(), inner), "what is gone is a union of squares"
    share = (dropped == 0).float().mean((1, 2, 3, 4))
    expected = {5: 0.2, 2: 0.2, 1: 0.2}[size]
    assert share.tolist() == pytest.approx([expected] * 2, abs=0.03), "a little less, as squares overlap"
    torch.testing.assert_close(dropped.mean((1, 2, 3, 4)), torch.ones(2))
    assert dropped.unique().numel() <= 3  # zero, and each episode's own scale


@pytest.mark.parametrize(("pixels", "size"), [(10, 5), (5, 5), (3, 5), (11, 1)])
def test_dropped_blocks_are_as_many_as_torchvisions(pixels: int, size: int) -> None:
    torch.manual_seed(0)
    x = torch.ones(1, 200, 50, pixels, pixels)
    shares = [
        (dropped == 0).float().mean((0, 1)) for dropped in (drop_block(x, 0.1, size)[0], drop_block2d(x[0], 0.1, size))
    ]
    torch.testing.assert_close(*shares, atol=0.02, rtol=0)  # of each pixel: those at the edge are rarer


def test_blocks_are_dropped_side_by_side_too() -> None:
    x = torch.ones(3, 1, 20, 4, 10, 10)
    dropped = torch.func.vmap(lambda own: drop_block(own, 0.2, 3), randomness="different")(x)
    masks = (dropped == 0).flatten(1)
    assert masks.any(1).all()
    assert not torch.equal(masks[0], masks[1])


def test_resnet12_drops_in_training_only_and_more_blocks_as_it_goes_on() -> None:
    torch.manual_seed(0)
    built = ResNet12(3, 84, "none", [4, 4, 4, 4], drop_rate=0.3)
    x = torch.ones(1, 40, 4, 10, 10)

    def share(number: int, progress: float = 1.0) -> float:
        built.progress = progress
        return float((built._dropped(x, number) == 0).float().mean())

    assert share(0) == pytest.approx(0.3, abs=0.02)
    assert share(1, 0.01) == pytest.approx(0.3, abs=0.02)
    grown = [share(2, progress) for progress in (0.0, 1 / 6, 1 / 3, 0.5)]
    assert grown == pytest.approx([0, 0.135, 0.25, 0.25], abs=0.025)  # squares overlap
    assert built.eval()._dropped(x, 0) is x
    torch.testing.assert_close(built(images(2, 84)), built(images(2, 84)))
    assert not torch.equal(built.train()(images(2, 84)), built(images(2, 84)))


def test_a_wide_resnet_drops_in_training_only() -> None:
    built = WideResNet(3, 16, "group", 10, 2, 4, dropout=0.3)
    assert not torch.equal(built(images(2, 16)), built(images(2, 16)))
    built.eval()
    assert torch.equal(built(images(2, 16)), built(images(2, 16)))
