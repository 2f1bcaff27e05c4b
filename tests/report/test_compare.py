"""Comparing two tests, episode by episode."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import a_test

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.settings.compose import compose
from fsl_cli.stats import compare


def test_differences_of_one_size_are_ties_whatever_their_rounding() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(40, 76, 300), random.integers(38, 76, 300)
    exact = compare([float(k) for k in first], [float(k) for k in second])
    assert len({abs(a / 75 - b / 75) for a, b in zip(first, second, strict=True)}) > len(set(np.abs(first - second)))
    assert compare([k / 75 for k in first], [k / 75 for k in second]).p == pytest.approx(exact.p, rel=1e-12)


def test_the_paired_difference_by_hand() -> None:
    found = compare([0.9, 0.8, 1.0, 0.7], [0.8, 0.9, 0.7, 0.6])
    deviation = math.sqrt(sum((d - 0.1) ** 2 for d in (0.1, -0.1, 0.3, 0.1)) / 3)
    assert found.mean == pytest.approx(0.1)
    assert found.interval == pytest.approx(1.96 * deviation / 2)
    assert found.episodes == 4
    with_more = compare([0.9, 0.8, 1.0, 0.7] * found.needed, [0.8, 0.9, 0.7, 0.6] * found.needed)
    assert with_more.mean > with_more.interval


def test_as_many_episodes_as_are_needed_tell_apart_and_fewer_do_not() -> None:
    first, second = [0.5, 0.9, 0.7, 0.8, 0.6], [0.6, 0.7, 0.7, 0.7, 0.7]
    needed = compare(first, second).needed
    assert needed is not None
    times = needed // 5
    more = compare(first * (times + 3), second * (times + 3))
    fewer = compare(first * (times // 2), second * (times // 2))
    assert abs(more.mean) > more.interval and abs(fewer.mean) < fewer.interval


def test_equal_columns_do_not_differ() -> None:
    found = compare([0.5, 0.6], [0.5, 0.6])
    assert (found.mean, found.p, found.needed) == (0, 1, None)


def test_runs_are_paired_by_the_number_of_the_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = a_test(tmp_path / "maml", {i: 0.9 + 0.01 * (i % 3) for i in range(60)})
    b = a_test(tmp_path / "protonet", {i: 0.8 + 0.01 * (i % 3) + 0.001 * (i % 2) for i in reversed(range(40))})
    run(["compare", str(a), str(b)])
    out = capsys.readouterr().out
    assert "40 paired episodes" in out and "9.95% ± 0.02%" in out and "A is better" in out
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
    assert "cannot be told apart" in out and "episodes more" in out
    assert "A is inductive (norm=support), B is inductive (norm=running)" in out


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
