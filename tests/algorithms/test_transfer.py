"""Supervised pre-training, and what is done with its backbone: SimpleShot, Baseline, Baseline++, init=RUN."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_data
from torch import Tensor, nn

from fsl_cli.algorithms.baseline import Baseline
from fsl_cli.algorithms.inner_loop import momentum_sgd
from fsl_cli.algorithms.simpleshot import SimpleShot
from fsl_cli.algorithms.supervised import CosineHead
from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.backbones.mode import Mode
from fsl_cli.cli import run
from fsl_cli.data.sampler import Shape
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.errors import UserError

CPU = torch.device("cpu")


class Numbers(Backbone):
    """Features are the inputs themselves, times one weight."""

    norm = "none"
    out_features = 2
    map_shape = (2, 1, 1)
    block_channels = ()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        return self.weight * x


def examples(x: list[list[float]], y: list[int]) -> Examples:
    return Examples(torch.tensor([x]), torch.tensor([y]))


def test_pre_training_tells_the_training_splits_own_classes_apart(float64: None) -> None:
    [some] = ImageTasks(tiny_data(), {"train": Shape(4, 1, 1)}, 1).gather(Batch("train", 0, [0, 1]), CPU)
    built = SimpleShot(Numbers(), train_classes=100)
    flat = Episodes(*(Examples(part.x.flatten(2)[..., :2], part.y) for part in (some.support, some.query)), *some[2:])
    with torch.no_grad():
        built.head.weight.normal_()
    losses = []
    for t in range(2):
        for part in (flat.support, flat.query):
            for x, label in zip(part.x[t], part.y[t].tolist(), strict=True):
                losses.append(-F.log_softmax(built.head(x), 0)[some.classes[t, label]])
    torch.testing.assert_close(built.loss(flat), torch.stack(losses).mean())


def test_simpleshot_transforms_features_as_it_says(float64: None) -> None:
    support = examples([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]], [0, 1, 0])
    query = torch.tensor([[[2.0, 2.0]]])
    train = Episodes(
        examples([[1.0, 0.0], [0.0, 0.0]], [0, 1]), examples([[1.0, 2.0]], [0]), torch.tensor([[0, 1]]), CPU
    )
    expected = {}
    centre = torch.tensor([2 / 3, 2 / 3])
    for name, change in {
        "UN": lambda f: f,
        "L2N": lambda f: f / f.norm(dim=-1, keepdim=True),
        "CL2N": lambda f: (f - centre) / (f - centre).norm(dim=-1, keepdim=True),
    }.items():
        s, q = change(support.x[0]), change(query[0, 0])
        expected[name] = torch.stack([-(q - (s[0] + s[2]) / 2).square().sum(), -(q - s[1]).square().sum()])
        built = SimpleShot(Numbers(), 5, name).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            built.prepare([train])
        torch.testing.assert_close(built.adapt(support)(query)[0, 0], expected[name])
    assert not torch.allclose(expected["L2N"], expected["CL2N"])


def test_the_rule_is_that_of_torchs_sgd(float64: None) -> None:
    weight = torch.randn(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, dampening=0.4, weight_decay=0.01)
    rule = momentum_sgd(0.1, 0.9, 0.4, 0.01)
    fast = {"w": weight.detach().clone()}
    state = rule.init(fast)
    for step in range(5):
        gradient = torch.randn(3)
        weight.grad = gradient.clone()
        optimizer.step()
        fast, state = rule.update(step, fast, {"w": gradient}, torch.zeros(()), state)
        torch.testing.assert_close(fast["w"], weight.detach())


@pytest.mark.parametrize("finetune", ["head", "all"])
@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize("minibatch", [None, 4])
def test_a_new_head_is_trained_as_torch_would(minibatch: int | None, head: str, finetune: str, float64: None) -> None:
    """Two tasks side by side: each is what a plain loop with torch.optim.SGD makes of it alone."""
    support = Examples(torch.randn(2, 6, 2), torch.tensor([[0, 1, 2, 0, 1, 2], [2, 1, 0, 0, 0, 1]]))
    query = torch.randn(2, 4, 2)
    built = Baseline(Numbers(), 5, 0.1, 7, head, finetune, minibatch=minibatch).eval()  # type: ignore[arg-type]
    found = built.adapt(support)(query)
    for t in range(2):
        net = Numbers()
        new: nn.Module = CosineHead(2, 3) if head == "cosine" else nn.Linear(2, 3)
        with torch.no_grad():
            dice = torch.Generator().manual_seed(0)
            start, bias = ((2 * torch.rand(shape, generator=dice) - 1) / 2**0.5 for shape in ((3, 2), (3,)))
            zero = minibatch is None and head == "linear"
            list(new.parameters())[0].copy_(torch.zeros(3, 2) if zero else start)
            list(new.parameters())[1].copy_(start.norm(dim=1) if head == "cosine" else torch.zeros(3) if zero else bias)
        learned = [*new.parameters(), *(net.parameters() if finetune == "all" else [])]
        optimizer = torch.optim.SGD(learned, 0.1, momentum=0.9, dampening=0.9, weight_decay=0.001)
        order = torch.Generator().manual_seed(0)
        for _ in range(7):
            taken = torch.arange(6).split(6) if minibatch is None else torch.randperm(6, generator=order).split(4)
            assert [len(some) for some in taken] == ([6] if minibatch is None else [4, 2])
            for some in taken:
                optimizer.zero_grad()
                losses = F.cross_entropy(new(net.features(support.x[t, some], 0)), support.y[t, some], reduction="none")
                (losses.mean() if minibatch else losses.sum() / 4).backward()
                optimizer.step()
        torch.testing.assert_close(found[t], new(net.features(query[t], 0)))
    assert torch.equal(built.backbone.weight, torch.ones(()))


SMALL = [
    "data.train_classes=40", "data.val_classes=25", "data.test_classes=25", "train_way=5", "train_query=2", "query=3",
    "backbone.filters=8", "steps=3", "val_every=2", "val_episodes=6", "episodes=8", "trainer=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    run(["train", "algo=simpleshot", f"out={out}", *SMALL])
    (path,) = out.glob("*/*/")
    return path


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("words", [["algo=protonet"], ["algo=maml", "norm=support"]])
def test_init_begins_with_the_backbone_of_another_run(words: list[str], trained: Path, tmp_path: Path) -> None:
    run(["train", *words, f"init={trained}", f"out={tmp_path}", *SMALL, "steps=0"])
    (folder,) = tmp_path.glob("*/*/")
    theirs, own = weights(trained), weights(folder)
    for name, value in own.items():
        if "backbone" in name:
            assert torch.equal(value, theirs["algorithm.backbone." + name.partition("backbone.")[2]]), name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["backbone.filters=4"], ["convs.0.weight is (8, 1, 3, 3), here (4, 1, 3, 3)"]),
        (["backbone=mlp", "~backbone.filters"], ["layers.0.weight is missing", "convs.0.weight has no place"]),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_by_name(
    words: list[str], says: list[str], trained: Path, tmp_path: Path
) -> None:
    small = [word for word in SMALL if "filters" not in word]
    words = [word for word in words if not word.startswith("~")]
    with pytest.raises(UserError) as refused:
        run(["train", "algo=protonet", f"init={trained}", f"out={tmp_path}", *small, *words])
    assert all(line in str(refused.value) for line in says), refused.value
    assert not list(tmp_path.iterdir())


def test_init_sees_images_as_the_run_that_it_begins_with(trained: Path, tmp_path: Path) -> None:
    run(["train", "algo=protonet", f"init={trained}", f"out={tmp_path}", *SMALL, "steps=0", "data.size=32"])
    (folder,) = tmp_path.glob("*/*/")
    first, second = (json.loads((path / "result.json").read_text())["image"] for path in (trained, folder))
    assert first == second


@pytest.mark.parametrize("norm", ["running", "support", "group"])
def test_fine_tuning_is_the_same_one_by_one_and_side_by_side(
    norm: Mode, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With running averages too, whose scale and shift have wrong gradients in torch's own layer under vmap."""
    [some] = ImageTasks(tiny_data(), {"test": Shape(3, 2, 2)}, 1).gather(Batch("test", 0, [0, 1]), CPU)
    found = []
    for size in (2, 0):
        torch.manual_seed(0)
        built = Baseline(Conv4(1, 16, norm, 4), 5, 0.5, 4, "cosine", "all").eval()
        monkeypatch.setattr("fsl_cli.algorithms.over_tasks._at_once", lambda *_, size=size: size)
        found.append(built.adapt(some.support)(some.query.x))
    torch.testing.assert_close(*found)
