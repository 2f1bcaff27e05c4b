"""Cross-domain tables of fsl report: which tests make one, and which cells are at home."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import a_run

from fsl_cli.cli import run
from fsl_cli.report.gather import gather
from fsl_cli.report.rows import sections
from fsl_cli.report.transfer import Transfer, latex, table, transfers

HIGH = {i: 0.9 + 0.02 * (i % 3) for i in range(30)}
LOW = {i: value - 0.2 for i, value in HIGH.items()}


def found(folder: Path) -> list[Transfer]:
    return transfers(sections(gather([folder]).tests))


def test_sources_are_rows_and_targets_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path / "a", HIGH)
    a_run(tmp_path / "b", LOW, trained_on="glyphs")
    assert table(*found(tmp_path)) == [  # two sources, one target
        ["trained on", "omniglot"], ["glyphs", "72.00 ± 0.59"], ["omniglot", "92.00 ± 0.59 †"],
    ]  # fmt: skip
    of_glyphs = {"data": "glyphs", "split_hash": "0123456789", "split": "seeded", "rotations": "none"}
    a_run(tmp_path / "c", HIGH, trained_on="glyphs", **of_glyphs)
    a_run(tmp_path / "d", LOW, shot=5, trained_on="glyphs")  # of another task, alone there
    a_run(tmp_path / "e", LOW, algo="anil", trained_on="glyphs+cub", **of_glyphs)  # at home, and alone
    a_run(tmp_path / "f", LOW, trained_on="glyphs", changes=["backbone.finetune=50", "data=omniglot"])
    a_run(tmp_path / "g", HIGH, changes=["backbone.finetune=50"])
    one, two = found(tmp_path)
    assert one.title == "maml backbone.finetune=50, 5-way 1-shot" and set(one.cells) == {
        ("glyphs", "omniglot"), ("omniglot", "omniglot"),
    }  # fmt: skip
    assert two.title == "maml, 5-way 1-shot" and two.protocol.startswith("15 queries a class, 30 episodes, inductive")
    assert table(two) == [
        ["trained on", "glyphs", "omniglot"],
        ["glyphs", "92.00 ± 0.59 †", "72.00 ± 0.59"],
        ["omniglot", "", "92.00 ± 0.59 †"],
    ]
    run(["report", str(tmp_path)])
    said = capsys.readouterr().out
    assert "†: tested on new classes" in said and re.search(r"^trained on +glyphs +omniglot$", said, re.MULTILINE)
    run(["report", str(tmp_path), "format=markdown"])
    assert "| glyphs | 92.00 ± 0.59 † | 72.00 ± 0.59 |" in capsys.readouterr().out
    assert r"72.00 $\pm$ 0.59" in latex([two]) and r"0.59 $\dagger$" in latex([two])
    run(["report", str(tmp_path), f"to={tmp_path / 'page.html'}"])
    assert "Trained on one data set, tested on another" in (tmp_path / "page.html").read_text()


def test_runs_that_stay_at_home_or_have_one_cell_make_no_table(tmp_path: Path) -> None:
    a_run(tmp_path / "a", HIGH)
    a_run(tmp_path / "b", HIGH, trained_on="glyphs", data="glyphs", split_hash="0123456789")
    a_run(tmp_path / "c", LOW, algo="anil", trained_on="glyphs")
    assert found(tmp_path) == []


def test_two_variants_of_a_method_never_share_a_table(tmp_path: Path) -> None:
    for name, rate in (("a", 0.1), ("b", 0.4)):
        a_run(tmp_path / name, HIGH, **{"algo.inner_lr": rate})
        a_run(tmp_path / f"{name}2", LOW, trained_on="glyphs", **{"algo.inner_lr": rate})
    assert [each.title for each in found(tmp_path)] == [
        "maml algo.inner_lr=0.1, 5-way 1-shot", "maml algo.inner_lr=0.4, 5-way 1-shot"
    ]  # fmt: skip
    assert all(len(each.cells) == 2 for each in found(tmp_path))
