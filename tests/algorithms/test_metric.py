"""Methods that compare embeddings take any way and any shots, whatever they were trained with."""

from __future__ import annotations

import pytest
import torch
from test_algorithms import algorithm, episodes

from fsl_cli.episodes import Examples

METRIC = ("protonet", "protonet-cosine", "matching", "matching-context", "siamese", "relation")
LABELS = torch.tensor([[0, 3, 3, 1, 2, 3, 1]])  # four classes of one to three shots


@pytest.mark.parametrize("name", METRIC)
def test_classes_of_any_number_and_shots_keep_their_logits_under_any_label(name: str, float64: None) -> None:
    built = algorithm(name, "running").eval()
    x, queries = torch.rand(1, 7, 1, 16, 16), torch.rand(1, 5, 1, 16, 16)
    logits = built.adapt(Examples(x, LABELS))(queries)
    assert logits.shape == (1, 5, 4) and logits.isfinite().all()
    other = torch.tensor([2, 0, 3, 1])  # what the classes are called instead
    torch.testing.assert_close(built.adapt(Examples(x, other[LABELS]))(queries)[..., other], logits)
    assert not torch.allclose(logits[..., 0], logits[..., 1])


@pytest.mark.parametrize("name", METRIC)
def test_features_known_beforehand_give_the_logits_of_the_images(name: str) -> None:
    built, some = algorithm(name, "running").eval(), episodes()
    if not built.takes_features:
        pytest.skip("it asks for more than features, or for large ones")
    expected = built.adapt(some.support)(some.query.x)
    support, query = (Examples(built.backbone(part.x), part.y) for part in (some.support, some.query))
    built.backbone.precomputed = True
    torch.testing.assert_close(built.adapt(support)(query.x), expected)
