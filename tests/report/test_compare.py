"""Comparing two tests, episode by episode."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import a_run, a_test

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.report.comparison import verdict
from fsl_cli.settings.compose import compose
from fsl_cli.stats import Difference, compare


def test_differences_of_one_size_are_ties_whatever_their_rounding() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(40, 76, 300), random.integers(38, 76, 300)
    exact = compare([[float(k) for k in first]], [[float(k) for k in second]])
    assert len({abs(a / 75 - b / 75) for a, b in zip(first, second, strict=True)}) > len(set(np.abs(first - second)))
    found = compare([[k / 75 for k in first]], [[k / 75 for k in second]])
    assert found.wilcoxon == pytest.approx(exact.wilcoxon, rel=1e-12)


def test_runs_are_paired_by_the_number_of_the_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = a_test(tmp_path / "maml", {i: 0.9 + 0.01 * (i % 3) for i in range(60)})
    b = a_test(tmp_path / "protonet", {i: 0.8 + 0.01 * (i % 3) + 0.001 * (i % 2) for i in reversed(range(40))})
    run(["compare", str(a), str(b)])
    out = capsys.readouterr().out
    assert (
        "40 paired episodes" in out
        and "9.95% ± 0.02%" in out
        and "A is ahead: the 95% interval" in out
        and "about these two runs" in out
    )
    run(["compare", str(b), str(a), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["mean"] == pytest.approx(-0.0995) and found["episodes"] == 40


def test_a_difference_within_its_interval_says_how_many_episodes_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = a_test(tmp_path / "a", {i: 0.5 + 0.1 * (i % 5) for i in range(50)}, norm="support")
    b = a_test(tmp_path / "b", {i: 0.5 + 0.1 * (i * i % 5) + 0.01 for i in range(50)})
    run(["compare", str(a), str(b)])
    out = capsys.readouterr().out
    assert "cannot be told apart: the 95% interval of the difference, which decides, holds zero" in out
    needed = json_of(capsys, a, b)["needed"]
    assert f"{needed:,} episodes in all ({needed - 50:,} more) would show it with a probability of 80%:" in out
    assert f"  fsl test run={a} episodes={needed}\n  fsl test run={b} episodes={needed}" in out
    assert "A is inductive (norm=support), B is inductive (norm=running)" in out


def json_of(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    run(["compare", *map(str, words), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_where_two_tests_disagree_that_is_said_and_nothing_firmer() -> None:
    found = Difference(30, (1, 1), 0.056, 0.0488, 0.03, 0.061, None, None)
    said = verdict("accuracy", found)
    assert said.startswith("A is ahead") and "Wilcoxon's test disagrees: take it as undecided." in said
    assert "disagrees" in verdict("accuracy", found._replace(mean=0.01, p=0.6, wilcoxon=0.01))
    assert "disagrees" not in verdict("accuracy", found._replace(wilcoxon=0.01))
    assert verdict("mse", found).startswith("B is ahead")  # the lower error
    several = verdict("accuracy", found._replace(seeds=(3, 1), wilcoxon=None))
    assert several.endswith("; B is one run, whose other seeds were not tried.")
    assert "not tried" not in verdict("accuracy", found._replace(seeds=(3, 2), wilcoxon=None))


def seeds_of(top: Path, algo: str, by: list[float]) -> list[Path]:
    """A run for each of these mean accuracies."""
    values = {i: 0.6 + 0.02 * (i % 5) for i in range(40)}
    return [
        a_run(top / f"{algo}-{seed}", {i: v + mean + 0.001 * ((i * seed) % 3) for i, v in values.items()}, algo, seed)
        for seed, mean in enumerate(by)
    ]


@pytest.mark.parametrize("words", ["lists", "folders", "named folders"])
def test_seeds_of_two_methods_are_compared_over_seeds_and_episodes(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = seeds_of(tmp_path / "of, a", "maml", [0.10, 0.11, 0.12])
    b = seeds_of(tmp_path / "b", "anil", [0.0, 0.01])
    given = {
        "lists": [f"a={a[0]},{a[1]},{a[2]}".replace("of, a", "a"), f"b={b[0]},{b[1]}"],
        "folders": [tmp_path / "of, a", tmp_path / "b"],
        "named folders": [f"a={tmp_path / 'of, a'}", f"b={tmp_path / 'b'}"],
    }[words]
    (tmp_path / "a").symlink_to(tmp_path / "of, a")
    found = json_of(capsys, *given)
    assert found["seeds"] == [3, 2] and found["wilcoxon"] is None and found["ahead"]
    assert found["mean"] == pytest.approx(0.106, abs=0.002)
    one = json_of(capsys, a[0], b[0])
    assert one["interval"] < found["interval"]  # of two runs, and of two methods
    run(["compare", *map(str, given)])
    assert "40 paired episodes, 3 and 2 seeds" in capsys.readouterr().out


def test_seeds_that_differ_more_than_methods_ask_for_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds_of(tmp_path / "a", "maml", [0.0, 0.1, 0.22])
    seeds_of(tmp_path / "b", "anil", [0.0, 0.11, 0.08])
    run(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    out = capsys.readouterr().out
    assert "More episodes alone would not show" in out and "seeds a side would, with a probability of 80%." in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a=x/maml-0"], "a=… and b=…, once each"),
        (["a=x/maml-0,x/anil-0", "b=x/maml-1"], "A holds 2 methods: maml; anil"),
        (["x", "y"], "A holds 2 methods"),
        (["a=x/maml-0,z/maml-0", "b=x/anil-0"], "A holds seed 0 more than once: x/maml-0, z/maml-0"),
        (["a=x/maml-0,x/maml-1", "b=x/maml-1"], "Both sides hold"),
        (["a=", "b=x/maml-1"], "Which runs?"),
        (["x/maml-0", "x/maml-1", "x/anil-0"], "two runs, not 3"),
    ],
)
def test_sides_that_are_no_method_are_refused(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for top in ("x", "z"):
        seeds_of(Path(top), "maml", [0.0, 0.1])
    seeds_of(Path("x"), "anil", [0.0])
    seeds_of(Path("y"), "anil", [0.0])
    with pytest.raises(UserError) as refused:
        run(["compare", *words])
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"shot": 5}, ["shot is 1 and 5", "fsl test run=RUN shot=1, and"]),
        ({"way": [5, 20], "query": "all"}, ["way is 5 and [5,20]", "way=5 query=15"]),
        ({"data": "glyphs", "split": "seeded", "images": "c"}, ["fsl test run=RUN data=omniglot, and"]),
        ({"rotations": "none"}, ["fsl test run=RUN data.rotations=all"]),
        ({"sampling": "within_alphabet"}, ["data.within_alphabet=false"]),
        ({"split": "lake", "split_hash": "c", "way": 20}, ["train B as A was: fsl train … data.split=vinyals way=5"]),
        ({"images": "c"}, ["fsl data verify"]),
        ({"metric": "mse"}, ["classifies"]),
        ({"episode_seed": 1}, ["one version of fsl"]),
    ],
)
def test_tests_of_different_episodes_are_refused(changed: dict[str, object], says: list[str], tmp_path: Path) -> None:
    a, b = a_test(tmp_path / "a", {0: 0.5, 1: 0.6}), a_test(tmp_path / "b", {0: 0.5, 1: 0.6}, **changed)
    with pytest.raises(UserError) as refused:
        run(["compare", str(a), str(b)])
    assert all(line.replace("RUN", str(b)) in str(refused.value) for line in says), refused.value


def test_a_refusal_names_the_setting_of_the_data_set_that_differs(tmp_path: Path) -> None:
    a, b = a_test(tmp_path / "a", {0: 0.5, 1: 0.6}), a_test(tmp_path / "b", {0: 0.5, 1: 0.6}, images="c")
    for folder, size in ((a, 28), (b, 84)):
        config = compose(["algo=maml", "data=omniglot", f"data.size={size}", f"data.root={folder}"])
        (folder / "config.yaml").write_text(yaml.safe_dump({**config.values, "choices": config.choices}))
    with pytest.raises(UserError, match=r"train B as A was: fsl train … data.size=28\.$"):
        run(["compare", str(a), str(b)])


def test_tests_of_fewer_episodes_are_paired_as_far_as_they_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = a_test(tmp_path / "a", dict.fromkeys(range(30), 0.9))
    b = a_test(tmp_path / "b" / "tests" / "more", {i: 0.8 + 0.01 * (i % 2) for i in range(40)})
    run(["compare", str(a), str(b)])
    assert "A met 30 episodes and B 40: only those that both met are paired." in capsys.readouterr().out
    with pytest.raises(UserError, match=re.escape(f"There is {b}.")):
        run(["compare", str(a), str(tmp_path / "b")])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "holds a list, not an object"),
        ({"image": None}, "lacks image"),
        ({"temperature": 3, "version": "9.1"}, "but by 9.1: it has temperature"),
        ({"mean": "high"}, "mean is 'high'"),
        ({"episodes": 3}, "has 2 episodes, result.json says 3"),
    ],
)
def test_results_that_are_damaged_or_of_another_version_are_refused(
    content: str | dict[str, object], says: str, tmp_path: Path
) -> None:
    a = a_test(tmp_path / "a", {0: 0.5, 1: 0.6})
    if isinstance(content, dict):
        changed = {**json.loads((a / "result.json").read_text()), **content}
        content = json.dumps({key: value for key, value in changed.items() if value is not None})
    (a / "result.json").write_text(content)
    with pytest.raises(UserError, match=says):
        run(["compare", str(a), str(a)])


def test_what_holds_no_test_is_refused(tmp_path: Path) -> None:
    a = a_test(tmp_path / "a", {0: 0.5, 1: 0.6})
    with pytest.raises(UserError, match="holds no test"):
        run(["compare", str(a), str(tmp_path)])
    with pytest.raises(UserError, match="two runs, not 1"):
        run(["compare", str(a)])
    (a / "episodes.csv").write_text("index\n0\n")
    with pytest.raises(UserError, match=r"episodes.csv cannot be read"):
        run(["compare", str(a), str(a)])
    b = a_test(tmp_path / "b", {7: 0.5, 8: 0.6})
    c = a_test(tmp_path / "c", {8: 0.5, 9: 0.6})
    with pytest.raises(UserError, match="share 1 episodes"):
        run(["compare", str(b), str(c)])
