"""What all methods have in common that read the support set as a sequence: no class is more to them than another."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from conftest import Pixels, made_by

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.mann import MANN
from fsl_cli.algorithms.metanet import MetaNet
from fsl_cli.algorithms.snail import SNAIL
from fsl_cli.episodes import Examples
from fsl_cli.settings.registry import choices

WAY, D = 3, 9
Places = list[tuple[str, int, int]]  # parameters that have a place for each class: a pattern, the axis, the first place
RECURRENT: Places = [("cell.weight_ih", 1, D), ("head.*", 0, 0)]
CASES: dict[str, tuple[Callable[[], Algorithm], Places]] = {
    "mann": (lambda: MANN(Pixels(D, 1, 1), WAY, hidden=12, memory=6, width=5, heads=2), RECURRENT),
    "lstm": (lambda: MANN(Pixels(D, 1, 1), WAY, hidden=12, memory=0), RECURRENT),
    "snail": (
        lambda: SNAIL(Pixels(D, 1, 1), WAY, 2, filters=8),
        [(r"layers\..*weight", 1, D), ("head.weight", 1, D), ("head.*", 0, 0)],
    ),
    "metanet": (
        lambda: MetaNet(Pixels(1, 3, 3), WAY, filters=4, blocks=1, hidden=5, units=3),
        [(r"net\.(base|key)\.head\.weight", 0, 0)],
    ),
}


def test_every_method_that_reads_a_sequence_is_here() -> None:
    assert set(CASES) == {name for name in choices("algo") if made_by(name).ordered}


@pytest.mark.parametrize("name", CASES)
def test_other_names_of_the_classes_are_other_columns(name: str, float64: None) -> None:
    """With the weights that read and write labels permuted as the names are, so are the answers, and nothing else."""
    torch.manual_seed(0)
    build, places = CASES[name]
    model, order = build().eval(), torch.tensor([2, 0, 1])  # class c is now called order[c]
    shape = (D, 1, 1) if name != "metanet" else (1, 3, 3)
    x, y = torch.rand(2, WAY * 2, *shape), torch.stack([torch.randperm(WAY * 2) % WAY for _ in range(2)])
    queries = torch.rand(2, 4, *shape)
    other = deepcopy(model)
    for pattern, axis, first in places:
        matching = [value for key, value in other.named_parameters() if re.fullmatch(pattern, key)]
        assert matching
        for value in matching:
            value.data.index_copy_(axis, first + order, value.data.narrow(axis, first, WAY).clone())
    expected, found = model.adapt(Examples(x, y))(queries), other.adapt(Examples(x, order[y]))(queries)
    torch.testing.assert_close(found[..., order], expected)
    assert not torch.allclose(found, expected)
