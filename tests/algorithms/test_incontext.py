"""The in-context classifier: equal angles, torch's own transformer on each query's sequence, a frozen backbone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import Pixels
from torch import Tensor, nn

from fsl_cli.algorithms.incontext import InContext, equiangular
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("float64")
WAY, D = 4, 6


def built(**more: int) -> InContext:
    torch.manual_seed(0)
    made = InContext(Pixels(D, 1, 1), WAY, **{"width": 24, "code": 8, "layers": 2, "heads": 3} | more)
    nn.init.normal_(made.unknown)
    return made


def task(way: int = WAY, shot: int = 2) -> tuple[Examples, Tensor]:
    torch.manual_seed(1)
    return Examples(torch.rand(2, way * shot, D, 1, 1), torch.arange(way).repeat(2, shot)), torch.rand(2, 3, D, 1, 1)


def by_torch(model: InContext, tokens: Tensor) -> Tensor:
    """Torch's own encoder layers with the model's weights: (1, L, width) -> the same."""
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(24, 3, 96, 0.0, F.gelu, batch_first=True, norm_first=True)
        layer.norm1, layer.norm2, layer.linear1, layer.linear2 = (
            block.first,
            block.second,
            block.think[0],
            block.think[2],
        )
        layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias = block.project.weight, block.project.bias
        layer.self_attn.out_proj = block.merge
        tokens = layer(tokens)
    return tokens


@pytest.mark.parametrize(("way", "width"), [(2, 2), (5, 8), (20, 64)])
def test_codes_are_unit_vectors_at_equal_angles(way: int, width: int) -> None:
    codes = equiangular(way, width)
    torch.testing.assert_close(codes @ codes.T, (way * torch.eye(way) - 1) / (way - 1))
    torch.testing.assert_close(codes.sum(0), torch.zeros(width))


@pytest.mark.parametrize("way", [WAY, 2])
def test_a_query_ends_a_sequence_of_its_own_and_missing_classes_have_no_logit(way: int) -> None:
    model, (support, x) = built(), task(way)
    for number in range(2):
        features = F.layer_norm(support.x[number].flatten(1), [D])
        known = torch.cat([model.enter(features), model.strength * model.codes[support.y[number]]], 1)
        for query in range(3):
            end = model.enter(F.layer_norm(x[number, query].flatten(), [D]))
            sequence = torch.cat([known, torch.cat([end, model.unknown])[None]])[None]
            expected = model.leave(by_torch(model, sequence)[0, -1])[:way]
            torch.testing.assert_close(model.adapt(support)(x)[number, query], expected)


def test_the_backbone_stays_as_it_is() -> None:
    backbone = Conv4(1, 16, "running", filters=8)
    model = InContext(backbone, WAY, width=24, code=8, layers=1, heads=3).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    x, y = torch.rand(1, WAY, 1, 16, 16), torch.arange(WAY)[None]
    model.adapt(Examples(x, y))(x).sum().backward()
    assert not backbone.training and all(parameter.grad is None for parameter in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_more_classes_and_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="codes for 4 classes, and the episodes have 5. Type way=4 or less"):
        built().adapt(task(5)[0])
    with pytest.raises(UserError, match=r"heads=5, which must divide it. Type algo.width=25"):
        built(heads=5)
    for code in (3, 24):
        with pytest.raises(UserError, match="at least 4, the number of classes"):
            built(code=code)
    assert InContext(Pixels(D, 1, 1), [2, 10], 24, 12, 1, 3).codes.shape == (10, 12)
