"""Types and ranges of values, as annotations say them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import torch

from fsl_cli.ranges import Count, Natural, PartOf, Range, Rate, Share, Weight
from fsl_cli.settings.values import LARGEST, problem, words

NAN, INF = float("nan"), float("inf")
COUNTS = Annotated[int | list[int], Range(least=1)]
ADMITTED = [
    (Count, [1, 5, LARGEST]), (Natural, [0, 3]), (Rate, [1e-9, 1, 0.5]), (Weight, [0, 0.0, 2]), (Share, [0, 1, 0.5]),
    (PartOf, [0, 0.99]), (int, [1]), (float, [0, -1.5, 3]), (bool, [True]), (str, ["", "2"]), (COUNTS, [3, [1, 2]]),
    (Rate | None, [None, 0.1]), (Count | Literal["all"], [1, "all"]), (float | torch.Tensor, [0.1]),
    (dict[str, Any], [{"a": 1}]), (Literal["a", "b"], ["a"]), (torch.Tensor, [1, "x"]),
]  # fmt: skip
REFUSED = [
    (Count, [0, -1, True, 1.0, "1", None, LARGEST + 1]), (Natural, [-1]), (Rate, [0, -1, NAN, INF, "x", True]),
    (Weight, [-1e-9, NAN]), (Share, [1.01, -0.1]), (PartOf, [1, 1.0]), (int, [0]), (float, [NAN, INF]),
    (bool, [1, "true"]), (str, [2, None]), (Rate | None, [0]), (COUNTS, [0, [1, 0]]), (Literal[1, 3], [2, True]),
    (list[float], [[0.1, NAN], 0.1, ["a"]]), (dict[str, float], [[1], {"a": NAN}]),
    (dict[int, float], [{"5": 0.1}, {5: "x"}]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in ADMITTED for value in values])
def test_what_is_admitted(kind: Any, value: Any) -> None:
    assert problem(value, kind) == ""


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in REFUSED for value in values])
def test_what_is_refused(kind: Any, value: Any) -> None:
    assert problem(value, kind).startswith("must be ")


def test_the_words_say_type_and_range() -> None:
    assert problem(0, Count) == "must be at least 1."
    assert problem("x", Rate | None) == "must be a number or null, not str 'x'."
    assert problem(1.5, Share) == "must be from 0 to 1."
    assert problem(1, PartOf) == "must be from 0 and below 1."
    assert words(Count | Literal["all"]) == "a whole number, at least 1 or all"
