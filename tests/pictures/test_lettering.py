"""Names in pictures: any script, no mathematics, nothing over anything else, and no word about it in the terminal."""

from __future__ import annotations

import ast
import warnings
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from fsl_cli.pictures import confusion, lettering

PACKAGE = Path(lettering.__file__).parents[1]
ODD = [
    "$$",
    "a$b$c",
    r"$\frac{1}$",
    "mask_$x^",
    "猫",
    "قطة",
    "बिल्ली",
    "🐈",
    "\u202ename",
    "\x1b[31mred",
    "\udcff.png",
    "W" * 60,
]


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved from here on."""
    found: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (found.append(figure), save(figure, *a, **k))[1])
    return found


@pytest.mark.parametrize("fonts", ["of this machine", "none but Matplotlib's"])
def test_any_name_is_drawn_and_told_where_no_font_has_it(
    fonts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if fonts == "of this machine":
        monkeypatch.setattr(lettering, "warn", lambda line: None)
    else:
        monkeypatch.setattr(lettering, "_others", lambda: [])
    lettering._tell_of.cache_clear()
    figures = drawn(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a", "b"):
            confusion.confusion_picture(np.eye(len(ODD), dtype=int), ODD, tmp_path / f"{name}.png")
    said, wrong = capfd.readouterr()
    assert not wrong and said.count("No font of this machine has") == (fonts != "of this machine")
    assert fonts == "of this machine" or "猫" in said
    assert (tmp_path / "a.png").stat().st_size > 1000
    labels = [label.get_text() for label in figures[0].axes[0].get_xticklabels()]
    assert labels[:4] == ODD[:4] and labels[8] == "<U+202E>name" and labels[9] == "<U+001B>[31mred"
    assert labels[10] == "<0xFF>.png"
    if fonts != "of this machine":
        assert labels[4] == lettering.BOX and labels[7] == lettering.BOX


def test_a_letter_that_only_another_font_has_is_drawn_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_others", lambda: [("a.ttf", "A"), ("b.ttf", "B"), ("c.ttf", "C")])
    covered = {"a.ttf": set("xyz"), "b.ttf": set("猫"), "c.ttf": set("猫犬")}
    monkeypatch.setattr(lettering, "_letters", lambda path: covered.get(path, set(map(chr, range(256)))))
    assert lettering.fonts("a猫") == ([lettering.OWN, "B"], set())
    assert lettering.fonts("猫犬🐈") == ([lettering.OWN, "B", "C"], {"🐈"})


@pytest.mark.parametrize(
    "names",
    [["W" * 40] * 30, ["猫犬鳥" * 12] * 12, pytest.param(["i" * 80, "m" * 80] * 60, marks=pytest.mark.slow)],
    ids=len,
)
def test_names_do_not_overlap(names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    confusion.confusion_picture(np.eye(len(names), dtype=int), names, tmp_path / "a.png")
    [figure] = figures
    figure.draw_without_rendering()  # at its own resolution again
    for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        assert all(not a.overlaps(b) for a, b in pairwise(boxes(labels))), "names lie over one another"
    inside = figure.bbox
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes(figure.axes[0].get_yticklabels()))


def boxes(labels: list[Any]) -> list[Any]:
    return [label.get_window_extent() for label in labels if label.get_text()]


def test_a_name_above_an_image_is_as_wide_as_its_column() -> None:
    from fsl_cli.pictures.episodes import CELL, narrow

    for name in ("W" * 15, "i" * 15, "猫" * 15, "Japanese_(kanji)/character12"):
        assert all(lettering.width(line, 7) <= CELL for line in narrow(name).split("\n"))
    assert narrow("short") == "short"


def test_names_that_differ_at_their_end_stay_different() -> None:
    names = [f"family genus species {i}" for i in range(10)]
    assert all(lettering.cut(a, 12) != lettering.cut(b, 12) for a, b in combinations(names, 2))


def test_every_picture_goes_through_the_one_door() -> None:
    for path in PACKAGE.rglob("*.py"):
        calls = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert path.name == "lettering.py" or not calls & {"savefig", "print_png", "pyplot"}, path
