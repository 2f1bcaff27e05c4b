"""Conv4's settings against the layers written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.backbones.conv4 import Conv4


def by_hand(net: Conv4, x: Tensor, slope: float, unpadded: int, halvings: int, change: bool) -> Tensor:
    for number, (conv, norm) in enumerate(zip(net.convs, net.norms, strict=True)):
        x = F.conv2d(x, conv.weight, None, padding=0 if number < unpadded else 1)
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
        x = -x if change and number == 1 else x
        x = torch.where(x > 0, x, slope * x)
        x = F.max_pool2d(x, 2) if number < halvings and not (change and number == 1) else x
    return x.flatten(1)


@pytest.mark.parametrize(("slope", "unpadded", "halvings"), [(0.0, 0, 4), (0.01, 0, 4), (0.0, 2, 2), (0.2, 1, 3)])
def test_slope_and_padding_are_as_set(slope: float, unpadded: int, halvings: int, float64: None) -> None:
    net = Conv4(1, 28, "transductive", filters=8, halvings=halvings, slope=slope, unpadded=unpadded)
    x = torch.randn(1, 6, 1, 28, 28)
    found = net(x)
    torch.testing.assert_close(found[0], by_hand(net, x[0], slope, unpadded, halvings, False))
    assert found.shape[-1] == net.out_features


def test_a_change_comes_in_front_of_the_leaky_activation(float64: None) -> None:
    net = Conv4(1, 20, "transductive", filters=8, halvings=1, slope=0.3)
    x, changes = torch.randn(1, 6, 1, 20, 20), {1: torch.neg}
    torch.testing.assert_close(net(x, changes=changes)[0], by_hand(net, x[0], 0.3, 0, 1, True))


@pytest.mark.parametrize(("unpadded", "least"), [(0, 4), (2, 10)])
def test_too_small_an_image_is_refused_with_the_least_size(unpadded: int, least: int) -> None:
    Conv4(1, least, "group", filters=8, halvings=2, unpadded=unpadded)
    with pytest.raises(ValueError, match=f"it takes {least} pixels"):
        Conv4(1, least - 1, "group", filters=8, halvings=2, unpadded=unpadded)
