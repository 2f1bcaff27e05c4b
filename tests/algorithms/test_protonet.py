"""ProtoNet's logits by hand, by both distances, and what its settings mean."""

from __future__ import annotations

import pytest
import torch
from conftest import Pixels, settings

from fsl_cli.algorithms.protonet import ProtoNet
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError
from fsl_cli.settings.binding import build

# two images of class 1, one of class 0, of two pixels each
SUPPORT = Examples(torch.tensor([[[0.0, 0], [0, 3], [2, 0]]])[..., None, None], torch.tensor([[1, 0, 1]]))
QUERY = torch.tensor([[[3.0, 4]]])[..., None, None]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits_are_minus_squared_distances_to_the_means(temperature: float) -> None:
    logits = ProtoNet(Pixels(2, 1, 1), temperature=temperature).adapt(SUPPORT)(QUERY)
    torch.testing.assert_close(logits, -torch.tensor([[[3.0**2 + 1, 2**2 + 4**2]]]) / temperature)


def test_cosines_to_the_means_are_scaled_by_what_is_learned() -> None:
    built = ProtoNet(Pixels(2, 1, 1), "cosine")
    torch.testing.assert_close(built.adapt(SUPPORT)(QUERY), torch.tensor([[[8.0, 6.0]]]))  # ten times 4/5 and 3/5
    torch.testing.assert_close(built.adapt(SUPPORT)(7 * QUERY), torch.tensor([[[8.0, 6.0]]]))
    assert [name for name, _ in built.named_parameters()] == ["scale"]
    with torch.no_grad():
        built.scale.fill_(5)
    torch.testing.assert_close(built.adapt(SUPPORT)(QUERY), torch.tensor([[[4.0, 3.0]]]))


def test_a_temperature_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="temperature=0.0: must be above 0"):
        build(settings(["algo.temperature=0.0"]).algo, backbone=Pixels(2, 1, 1))


@pytest.mark.parametrize(
    ("data", "temperature"),
    [("omniglot", 1), ("glyphs", 1), ("miniimagenet", 64), ("tieredimagenet", 64), ("cub", 64)],
)
def test_the_papers_distance_comes_without_being_asked_for(data: str, temperature: float) -> None:
    values = settings(["algo=protonet", f"data={data}"]).algo
    assert (values.get("distance"), values.get("temperature")) == ("euclidean", temperature)
