"""Methods that read class rows: zero-shot prototypes by hand, the limits of Tip-Adapter, and runs without images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pixels, settings
from torch import Tensor

from fsl_cli import load_run
from fsl_cli.algorithms.tipadapter import TipAdapter
from fsl_cli.algorithms.zeroshot import ZeroShot
from fsl_cli.cli import run
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble
from fsl_cli.runs.run import Run

WIDTH, WAY, SHOT = 6, 3, 2
unit = torch.nn.functional.normalize


def task(seed: int = 0, shot: int = SHOT, queries: int = 8, noise: float = 0.5) -> Episodes:
    """Clouds around the directions that class rows have."""
    dice = torch.Generator().manual_seed(seed)
    rows = torch.randn(1, WAY, WIDTH, generator=dice)

    def items(each: int) -> Examples:
        y = torch.arange(WAY).repeat_interleave(each)[None]
        return Examples(rows[:, y[0]] + noise * torch.randn(1, WAY * each, WIDTH, generator=dice), y)

    return Episodes(items(shot), items(queries), torch.arange(WAY)[None], torch.tensor([seed]), rows)


def tip(**more: Any) -> TipAdapter:
    return TipAdapter(Pixels(WIDTH, 1, 1), WIDTH, **more).eval()


def said(built: TipAdapter, episode: Episodes) -> Tensor:
    with torch.no_grad():
        return built.classifier(episode)(episode.query.x)


def test_zero_shot_prototypes_by_hand(float64: None) -> None:
    built, episode = ZeroShot(Pixels(WIDTH, 1, 1), WIDTH, temperature=2.0), task()
    expected = []
    for query in episode.query.x[0]:
        for row in episode.class_rows[0]:  # type: ignore[index]
            prototype = built.rows.weight @ row + built.rows.bias
            expected.append(-(query - prototype / prototype.norm()).square().sum() / 2)
    found = built.classifier(episode)(episode.query.x)
    torch.testing.assert_close(found.flatten(), torch.stack(expected))
    empty = episode._replace(support=Examples(episode.support.x[:, :0], episode.support.y[:, :0]))
    torch.testing.assert_close(built.classifier(empty)(episode.query.x), found)


def test_tip_adapter_by_hand_and_at_its_limits(float64: None) -> None:
    episode = task()
    f, keys, rows = (unit(each[0], dim=-1) for each in (episode.query.x, episode.support.x, episode.class_rows))
    near = f @ keys.mT
    cache = torch.stack([(-2 * (1 - near[:, k * SHOT : (k + 1) * SHOT])).exp().sum(1) for k in range(WAY)], 1)
    torch.testing.assert_close(said(tip(alpha=3.0, beta=2.0, choose=False), episode)[0], 100 * f @ rows.mT + 3 * cache)
    by_rows = said(tip(alpha=0.0, choose=False), episode)
    torch.testing.assert_close(by_rows[0], 100 * f @ rows.mT)  # the zero-shot classifier
    nearest = episode.support.y[0, near.argmax(1)]
    far = said(tip(scale=1e-9, alpha=1e9, beta=500.0, choose=False), episode)
    assert (far[0].argmax(-1) == nearest).all()  # beta large: the nearest neighbour
    flat = said(tip(scale=1e-9, alpha=1.0, beta=0.0, choose=False), episode)
    torch.testing.assert_close(flat, torch.full_like(flat, SHOT), atol=1e-6, rtol=0)  # beta 0: counts of the classes
    empty = episode._replace(support=Examples(episode.support.x[:, :0], episode.support.y[:, :0]))
    torch.testing.assert_close(said(tip(), empty), by_rows)


def test_alpha_and_beta_are_those_of_the_best_accuracy_on_validation() -> None:
    def wrong_rows(seed: int) -> Episodes:
        episode = task(seed, noise=0.2)
        return episode._replace(class_rows=-episode.class_rows)  # type: ignore[operator]

    for make, low in ((wrong_rows, False), (lambda seed: task(seed, noise=2.0), True)):
        built = tip(scale=10.0)
        built.tune(make(seed) for seed in range(20))
        alpha = float(built.chosen[0])
        assert (alpha <= 5) if low else (alpha == 100), alpha
        others = [tip(scale=10.0, alpha=a, beta=b, choose=False) for a in (0.0, 1.17, 100.0) for b in (1.0, 7.0)]
        scores = [
            sum(float((said(each, make(s)).argmax(-1) == make(s).query.y).double().mean()) for s in range(20))
            for each in (built, *others)
        ]
        assert scores[0] >= max(scores[1:]) - 1e-9
    kept = tip(choose=False)
    kept.tune(iter([task()]))
    assert kept.chosen.tolist() == pytest.approx([1.17, 1.0])


def test_fine_tuned_keys_fit_the_support_set_and_nothing_is_kept(float64: None) -> None:
    episode = task(noise=1.5)
    episode = episode._replace(query=episode.support)
    built = tip(scale=1.0, alpha=10.0, choose=False, test_steps=20, lr=0.01)

    def loss(each: TipAdapter) -> float:
        return float(torch.nn.functional.cross_entropy(said(each, episode)[0], episode.query.y[0]))

    first = loss(built)
    assert first < loss(tip(scale=1.0, alpha=10.0, choose=False)) / 2
    assert loss(built) == first
    both = Episodes(*(_twice(part) for part in episode[:2]), *(torch.cat([each, each]) for each in episode[2:]))  # type: ignore[misc, arg-type]
    torch.testing.assert_close(said(built, both)[1], said(built, episode)[0])


def _twice(examples: Any) -> Examples:
    return Examples(*(torch.cat([each, each]) for each in examples))


CLASSES = 24


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features that are a linear map of class rows with noise, and a file whose rows are of another model."""
    folder = tmp_path_factory.mktemp("rows")
    dice = np.random.default_rng(0)
    names = np.array([f"class {i:02}" for i in range(CLASSES)])
    rows = dice.normal(size=(CLASSES, 8)).astype(np.float32)
    clean = rows @ dice.normal(size=(8, 8)).astype(np.float32)
    clean /= np.linalg.norm(clean, axis=1, keepdims=True)
    features = np.repeat(clean, 8, 0) + 0.1 * dice.normal(size=(8 * CLASSES, 8)).astype(np.float32)
    split = np.repeat(np.repeat(["train", "val", "test"], [14, 5, 5]), 8)
    most = {"features": features, "labels": np.repeat(names, 8), "split": split, "class_names": names}
    np.savez(folder / "rows.npz", class_rows=rows, **most)
    np.savez(folder / "text.npz", class_rows=clean, **most)
    np.savez(folder / "wide.npz", class_rows=rows[:, :5], **most)
    np.savez(folder / "none.npz", **{name: value for name, value in most.items() if name != "class_names"})
    return folder


def words(folder: Path, name: str, *more: str) -> list[str]:
    return ["data=embeddings", f"data.root={folder / name}", "trainer=cpu", "query=3", "episodes=30", *more]


def test_zero_shot_learns_classes_from_their_rows(rooms: Path, tmp_path: Path) -> None:
    shape = ("train_way=10", "train_query=3", "steps=200", "val_every=100", "val_episodes=20", "optim.lr=0.01")
    more = (*shape, f"out={tmp_path}", "algo.temperature=0.1")
    run(["train", "algo=zeroshot", *words(rooms, "rows.npz", *more)])
    [folder] = tmp_path.glob("zeroshot-rows-5w0s/*")
    result = Run(folder).result
    assert result is not None and result.mean > 0.6 and result.shot == 0 and result.class_rows
    file = np.load(rooms / "rows.npz")
    known = {str(name): row for name, row in zip(file["class_names"][19:], file["class_rows"][19:], strict=True)}
    classify = load_run(folder).adapt([], [], class_rows=known)
    assert classify.classes == [*known] and classify(file["features"][-8:]).shape == (8, 5)
    with pytest.raises(UserError, match="class a needs a class row of 8 numbers"):
        load_run(folder).adapt(file["features"][:2], ["a", "b"])
    with pytest.raises(UserError, match=r"class rows of 5 numbers, and this run reads 8"):
        run(["test", f"run={folder}", f"data.root={rooms / 'wide.npz'}"])


def test_tip_adapter_chooses_on_validation_and_never_on_the_test(rooms: Path, tmp_path: Path) -> None:
    more = (f"out={tmp_path}", "val_episodes=20")
    run(["test", "algo=tipadapter", *words(rooms, "text.npz", *more)])
    [folder] = tmp_path.glob("tipadapter-text-5w1s/*")
    result, state = Run(folder).result, torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert result is not None and result.mean > 0.9
    chosen = state["state_dict"]["algorithm.chosen"]

    file = dict(np.load(rooms / "text.npz"))
    test = file["split"] == "test"
    file["features"][test] = file["features"][test][::-1]  # other test features: the choice must not notice
    np.savez(tmp_path / "text.npz", **file)
    run(["test", "algo=tipadapter", *words(tmp_path, "text.npz", f"out={tmp_path / 'again'}", "val_episodes=20")])
    [again] = (tmp_path / "again").glob("*/*/checkpoints/best.ckpt")
    assert torch.equal(torch.load(again, weights_only=True)["state_dict"]["algorithm.chosen"], chosen)


@pytest.mark.parametrize(
    ("algo", "file", "more", "message"),
    [
        ("zeroshot", "none.npz", (), r"ZeroShot reads class rows.*none has none. Type .*data.class_rows=FILE"),
        ("tipadapter", "none.npz", (), "TipAdapter reads class rows"),
        ("tipadapter", "wide.npz", ("steps=0",), r"Class rows have 5 numbers, features 8.*type algo=zeroshot"),
        ("tipadapter", "text.npz", (), "nothing to train"),
        ("protonet", "text.npz", ("shot=0",), "shot=0: must be at least 1"),
        ("zeroshot", "rows.npz", ("train_shot=-1",), "train_shot=-1: must be at least 0"),
        ("zeroshot", "rows.npz", ("shot=1",), "shot=1: ZeroShot looks at no support images. Type shot=0."),
    ],
)
def test_what_cannot_be_is_refused(rooms: Path, algo: str, file: str, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        assemble(settings([f"algo={algo}", *words(rooms, file, "train_way=5", "train_query=2", *more)]))
