"""Instances of a class are counted, and scored, by hand."""

from __future__ import annotations

import pytest
import torch

from fsl_cli.experiment.by_instance import first_at_most, instances, scores, summary


def test_instances_are_counted_within_their_class() -> None:
    assert instances(torch.tensor([[1, 0, 1, 1, 0, 2]])).tolist() == [[0, 0, 1, 2, 1, 0]]


def test_the_share_of_classes_that_were_right_at_each_instance() -> None:
    y = torch.tensor([[0, 1, 1, 0]])
    said = torch.nn.functional.one_hot(torch.tensor([[0, 0, 1, 0]]), 3).double()  # a third column is never right
    assert scores(said, y).tolist() == [[0.5, 1.0]]


def test_in_regression_each_place_has_its_error() -> None:
    said, y = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0], [5.0]]])
    assert scores(said, y).tolist() == [[0.0, 9.0]]


def test_who_guesses_best_at_first_instances_is_right_as_often_as_said() -> None:
    """Of five classes 45.7%: by drawing orders, and guessing a class that was not seen at each first instance."""
    torch.manual_seed(0)
    assert first_at_most(5) == pytest.approx(137 / 300)
    right = []
    for _ in range(4000):
        seen: list[int] = []
        order = torch.randperm(5).tolist()
        for label in order:
            guess = next(other for other in range(5) if other not in seen)
            right.append(guess == label)
            seen.append(label)
    assert sum(right) / len(right) == pytest.approx(first_at_most(5), abs=0.01)


def test_means_come_with_intervals() -> None:
    found = summary([[0.0, 1.0], [1.0, 1.0]])
    assert found["mean"] == [0.5, 1.0] and found["interval"][1] == 0
