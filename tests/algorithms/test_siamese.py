"""Siamese networks: the weighted L1 distance, the best pair and the balanced loss, by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from conftest import Pixels
from torch import Tensor

from fsl_cli.algorithms.siamese import Siamese
from fsl_cli.episodes import Episodes, Examples


def built() -> Siamese:
    siamese = Siamese(Pixels(2, 1, 1))
    with torch.no_grad():
        siamese.alike.weight.copy_(torch.tensor([[-1.0, -0.5]]))
        siamese.alike.bias.fill_(3)
    return siamese


def examples(x: list[list[float]], y: list[int]) -> Examples:
    return Examples(torch.tensor([x], dtype=torch.float32)[..., None, None], torch.tensor([y]))


SUPPORT = examples([[0, 0], [4, 2], [1, 6]], [1, 0, 1])
QUERY = examples([[1, 2], [3, 0]], [1, 0])
PAIRS = torch.tensor([[[3.0 - 1 - 1, 3 - 3 - 0, 3 - 0 - 2], [3 - 3 - 0, 3 - 1 - 1, 3 - 2 - 3]]])


def test_a_query_is_of_the_class_of_the_support_image_most_like_it() -> None:
    expected = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])  # class 0 has one image, of the two of class 1 the better
    torch.testing.assert_close(built().adapt(SUPPORT)(QUERY.x), expected)


def test_the_loss_weighs_pairs_of_one_class_as_much_as_those_of_two() -> None:
    same = torch.tensor([[[True, False, True], [False, True, False]]])
    losses = [-F.logsigmoid(score if alike else -score) for score, alike in zip(PAIRS[same], [True] * 3, strict=True)]
    others = [-F.logsigmoid(-score) for score in PAIRS[~same]]
    expected = (torch.stack(losses).mean() + torch.stack(others).mean()) / 2
    episodes = Episodes(SUPPORT, QUERY, torch.tensor([[0, 1]]), torch.tensor([0]))
    torch.testing.assert_close(built().loss(episodes), expected)


def test_each_episode_counts_the_same_however_its_shots_are_spread() -> None:
    """Episodes side by side have as many images, not as many pairs of one class."""
    even = Episodes(SUPPORT, QUERY, torch.tensor([[0, 1]]), torch.tensor([0]))
    uneven = even._replace(query=Examples(QUERY.x, torch.tensor([[1, 1]])))

    def side_by_side(*parts: Tensor) -> Tensor:
        return torch.cat(parts)

    both = Episodes(
        Examples(*map(side_by_side, even.support, uneven.support)),
        Examples(*map(side_by_side, even.query, uneven.query)),
        torch.tensor([[0, 1], [0, 1]]),
        torch.tensor([0, 1]),
    )
    siamese = built()
    torch.testing.assert_close(siamese.loss(both), (siamese.loss(even) + siamese.loss(uneven)) / 2)
