"""Attacks on pictures: how far they go, that they go up, and the methods that are trained against them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from conftest import settings
from test_algorithms import ROWS, VARIANTS, algorithm, episodes, flat, learned
from torch import Tensor, nn

from fsl_cli.algorithms.adml import ADML
from fsl_cli.algorithms.attack import Attack, demand_gradient, perturbed, pixels_of, surprise
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.cli import run
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble
from fsl_cli.files import read_rows

# whose weights, learned from the queries, are constants to these
PARTIAL = {"tim", "alphatim", "tranfinetune"}
SLOW = {"ptmap"}  # seconds: through hundreds of rounds of transport


def attackable() -> list[str]:
    return [name for name in ROWS if name not in VARIANTS]


def changes(built: Algorithm, before: Tensor, after: Tensor) -> Tensor:
    """By how much pixels of 0..1 differ."""
    [std] = pixels_of(built)[1]
    return (after - before) * std


@pytest.mark.parametrize("name", [name for name in attackable() if name not in PARTIAL | SLOW])
def test_the_gradient_of_an_attack_equals_finite_differences(name: str, float64: None) -> None:
    built, some = algorithm(name, ROWS[name].norms[0]).eval(), episodes(1, "test")
    x = some.query.x + 0.01 * torch.randn_like(some.query.x)  # off the ties of pooling over black areas
    direction, classify = torch.randn_like(x), built.classifier(some)
    [gradient] = torch.autograd.grad(surprise(classify(x.requires_grad_()), some.query.y), [x])
    slope, errors = float((gradient * direction).sum()), []
    with torch.no_grad():
        for step in (1e-8, 1e-6):  # some step over a kink of ReLU, some see rounding
            up, down = (float(surprise(classify(x + by * direction), some.query.y)) for by in (step, -step))
            errors.append(abs((up - down) / (2 * step) - slope))
    assert min(errors) < 2e-4 * abs(slope) + 1e-7 and gradient.abs().sum() > 0


@pytest.mark.parametrize("name", [name for name in attackable() if name not in SLOW])
def test_pixels_change_by_the_strength_at_most_and_stay_pixels(name: str) -> None:
    built, some = algorithm(name, ROWS[name].norms[0]).eval(), episodes(1, "test")
    demand_gradient(built, some, name)
    [mean], [std] = pixels_of(built)
    with torch.no_grad():
        found = Attack(0.1, 2, 0.5, of="both").episodes(built, some, "")
        for before, after in ((some.support, found.support), (some.query, found.query)):
            assert changes(built, before.x, after.x).abs().max() == pytest.approx(0.1, abs=1e-6)
            pixels = after.x * std + mean
            assert pixels.min() > -1e-6 and pixels.max() < 1 + 1e-6
        assert Attack(0.0, of="both").episodes(built, some, "") is some


def test_fgsm_on_a_linear_model_moves_the_margin_by_strength_times_the_weights(float64: None) -> None:
    w, x, y = torch.randn(2, 16), torch.rand(5, 1, 4, 4) * 0.6 + 0.2, torch.tensor([0, 1, 0, 1, 1])
    pixels = ([0.3], [0.5])
    scaled = (x - 0.3) / 0.5

    def logits(scaled: Tensor) -> Tensor:
        return (scaled * 0.5 + 0.3).flatten(1) @ w.T

    after = perturbed(lambda at: surprise(logits(at), y), scaled, pixels, 0.1)
    margin = [(found[range(5), y] - found[range(5), 1 - y]) for found in map(logits, (scaled, after))]
    torch.testing.assert_close(margin[0] - margin[1], 0.1 * (w[0] - w[1]).abs().sum().expand(5))


def accuracies(built: Algorithm, some: Episodes, attacks: list[Attack]) -> list[float]:
    found = []
    with torch.no_grad():
        for attack in attacks:
            changed = attack.episodes(built, some, "")
            said = built.classifier(changed)(changed.query.x).argmax(-1)
            found.append(float((said == some.query.y).double().mean()))
    return found


@pytest.mark.parametrize("of", ["query", "both"])
def test_accuracy_falls_with_the_strength_and_with_the_steps(of: Literal["query", "both"]) -> None:
    built, some = algorithm("protonet", "none").eval(), episodes(12, "test")
    strengths = accuracies(built, some, [Attack(strength, 5, of=of) for strength in (0.0, 0.01, 0.03, 0.1)])
    assert all(after <= before for before, after in pairwise(strengths)) and strengths[-1] < strengths[0] - 0.2
    fgsm, pgd, support = accuracies(
        built, some, [Attack(0.02, 1, 1.0, False), Attack(0.02, 20), Attack(0.02, of="support")]
    )
    assert pgd <= fgsm < strengths[0] and support < strengths[0]


def test_an_image_told_with_certainty_is_attacked_all_the_same() -> None:
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    y = torch.tensor([0])
    [single] = torch.autograd.grad(task_loss(logits, y), [logits])
    [double] = torch.autograd.grad(surprise(logits, y), [logits])
    assert single[0, 0] == 0 and double[0, 1] > 0


def test_an_attack_moves_no_statistics_and_depends_on_the_episode_alone() -> None:
    built, some = algorithm("protonet", "running").train(), episodes(2)
    before = [buffer.clone() for buffer in built.buffers()]
    both = Attack(0.1, 2).episodes(built, some, "train/0")
    assert all(map(torch.equal, before, built.buffers()))
    built = algorithm("protonet", "none")
    both = Attack(0.1, 2).episodes(built, some, "train/0")
    second = Attack(0.1, 2).episodes(built, episodes(1, first=1), "train/0")
    torch.testing.assert_close(both.query.x[1:], second.query.x)
    assert not torch.equal(Attack(0.1, 2).episodes(built, some, "train/1").query.x, both.query.x)


@pytest.mark.parametrize("pairing", ["crossed", "same"])
def test_adml_without_an_attack_is_maml_twice(pairing: str, float64: None) -> None:
    maml, built, some = algorithm("maml", "support"), algorithm("adml", "support"), episodes(2)
    assert isinstance(built, ADML)
    built.strength, built.pairing = 0.0, pairing  # type: ignore[assignment]
    losses = maml.loss(some), built.loss(some)
    gradients = [flat(torch.autograd.grad(loss, learned(own))) for loss, own in zip(losses, (maml, built), strict=True)]
    torch.testing.assert_close([losses[1], gradients[1]], [2 * losses[0], 2 * gradients[0]], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pairing", ["crossed", "same"])
def test_adml_judges_each_arm_on_its_queries(pairing: str, float64: None) -> None:
    built, some = algorithm("adml", "none"), episodes(2)
    assert isinstance(built, ADML)
    built.strength, built.pairing = 0.05, pairing  # type: ignore[assignment]
    [std] = pixels_of(built)[1]

    def fgsm(examples: Examples) -> Examples:
        x = examples.x.clone().requires_grad_()
        loss = sum(task_loss(built.net(own), y) for own, y in zip(x, examples.y, strict=True))
        [gradient] = torch.autograd.grad(loss, [x])  # type: ignore[arg-type]
        [mean] = pixels_of(built)[0]
        pixels = (examples.x * std + mean + built.strength * gradient.sign()).clamp(0, 1)
        return Examples((pixels - mean) / std, examples.y)

    bad_support, bad_query = fgsm(some.support), fgsm(some.query)
    pairs = [(some.support, bad_query), (bad_support, some.query)]
    pairs = pairs if pairing == "crossed" else [(some.support, some.query), (bad_support, bad_query)]
    expected = sum(task_loss(built.adapt(own)(asked.x), asked.y) for own, asked in pairs)
    torch.testing.assert_close(built.loss(some), expected)


class Nearest(Algorithm):
    """The label of the nearest support image, which has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(1, 1)

    def adapt(self, support: Examples) -> Classifier:
        def classify(x: Tensor) -> Tensor:
            nearest = torch.cdist(x.flatten(2), support.x.flatten(2)).argmin(-1)
            return torch.nn.functional.one_hot(support.y.gather(1, nearest), 3).to(x)

        return classify


def test_what_cannot_be_attacked_is_refused() -> None:
    with pytest.raises(UserError, match="algo=nearest has no gradient"):
        demand_gradient(Nearest(), episodes(1), "nearest")
    for words in (["algo=maml", "attack=pgd"], ["algo=adml"]):
        with pytest.raises(UserError, match="changes pixels, and babble has texts"):
            assemble(settings([*words, "data=babble", "backbone=chars", "norm=none", "trainer=cpu"]))


def test_training_under_an_attack_on_what_is_not_trained_on_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    few = ["data.train_classes=12", "data.val_classes=6", "data.test_classes=6"]
    with pytest.raises(UserError, match=r"attack.of=query: algo=l2l does not train on its queries.*fsl test run=RUN"):
        run(["check", "algo=l2l", *few, "attack=fgsm", "algo.inner_steps=2", "train_way=5"])
    run(["check", "algo=l2l", *few, "attack=fgsm", "attack.of=both", "algo.inner_steps=2", "train_way=5"])


DATA = ["data=glyphs", "data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.rotations=none"]
SMALL = [*DATA, "data.size=16", "backbone.filters=4", "trainer=cpu", "way=3", "train_way=3", "train_query=2"]
QUICK = ["steps=2", "val_every=2", "val_episodes=5", "episodes=5"]


def test_a_run_is_trained_and_tested_under_attack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", "algo=protonet", *SMALL, *QUICK, "attack=pgd", "attack.strength=0.2", f"out={tmp_path}"])
    [folder] = tmp_path.glob("*/*")
    own = json.loads((folder / "result.json").read_text())
    assert (own["attacked"]["attack"], own["attacked"]["strength"], own["attacked"]["steps"]) == ("pgd", 0.2, 7)
    assert "under pgd of 7 steps on the queries, strength 0.2: " in " ".join(capsys.readouterr().out.split())
    run(["test", f"run={folder}", "attack.strength=0.0"])
    run(["test", f"run={folder}", "attack=null"])
    run(["test", f"run={folder}", "attack=fgsm", "attack.of=both", "attack.strength=1.0"])
    assert "under fgsm on support and queries, strength 1: " in capsys.readouterr().out
    tests = {test.name: read_rows(test / "episodes.csv") for test in (folder / "tests").iterdir()}
    none, zero = (next(rows for name, rows in tests.items() if word in name) for word in ("null", "strength=0.0"))
    assert [row["attacked"] for row in zero] == [row["accuracy"] for row in zero]
    assert "attacked" not in none[0] and [row["accuracy"] for row in none] == [row["accuracy"] for row in zero]
    capsys.readouterr()
    run(["report", str(tmp_path), "format=csv"])
    run(["report", str(tmp_path)])
    shown = capsys.readouterr().out
    assert f"{own['attacked']['mean']},{own['attacked']['interval']}" in shown and "(pgd of 7 steps" in shown
    run(["train", "algo=protonet", *SMALL, "steps=0", "episodes=5", f"out={tmp_path / 'plain'}"])
    with pytest.raises(UserError, match=r"Choose the attack first: attack=pgd"):
        run(["test", f"run={next(tmp_path.glob('plain/*/*'))}", "attack.strength=0.1"])
