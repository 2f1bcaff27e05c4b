"""Heads that start from the support set's prototypes (Proto-MAML): ProtoNet before the first step, any way after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_data
from test_algorithms import CPU, GRADIENT_NORMS, QUERY, VARIANTS, WAY, algorithm, episodes, flat
from torch import Tensor
from torch.func import functional_call

from fsl_cli.algorithms.network import prototype_head
from fsl_cli.algorithms.protonet import ProtoNet
from fsl_cli.cli import run
from fsl_cli.data.sampler import Shape
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Episodes
from fsl_cli.errors import UserError

every_variant = pytest.mark.parametrize(
    "name", ["protomaml", *(name for name in VARIANTS if name.endswith("-prototypes"))]
)


def of_shape(way: int, shot: int | list[int]) -> Episodes:
    [some] = ImageTasks(tiny_data(), {"test": Shape(way, shot, QUERY)}, 1).gather(Batch("test", 0, [0]), CPU)
    return some


def test_the_head_by_hand() -> None:
    """Unequal shots, labels in any order; logits are minus the squared distances, but for the query's own square."""
    features, y = torch.tensor([[2.0, 0.0], [1.0, 3.0], [0.0, 0.0]]), torch.tensor([0, 1, 0])
    head = prototype_head(features, y, 2)
    assert head["weight"].tolist() == [[2.0, 0.0], [2.0, 6.0]]
    assert head["bias"].tolist() == [-1.0, -10.0]
    assert prototype_head(features.bfloat16(), y, 2)["weight"].dtype == torch.float32
    query = torch.tensor([[1.0, 1.0], [4.0, 4.0]])
    distances = torch.tensor([[1.0, 4.0], [25.0, 10.0]])
    torch.testing.assert_close(F.linear(query, **head), query.square().sum(1, keepdim=True) - distances)


@pytest.mark.parametrize("norm", GRADIENT_NORMS)
@every_variant
def test_without_a_step_it_is_a_prototypical_network(name: str, norm: str, float64: None) -> None:
    built, some = algorithm(name, norm).eval(), of_shape(4, [1, 3])
    built.test_steps = 0
    logits = built.adapt(some.support)(some.query.x)
    expected = ProtoNet(algorithm("maml", norm).net.backbone).adapt(some.support)(some.query.x)  # the same weights
    torch.testing.assert_close(logits.log_softmax(-1), expected.log_softmax(-1))


@every_variant
def test_there_is_no_learned_head_and_any_way_and_shot_will_do(name: str) -> None:
    built = algorithm(name, "support")
    assert not [key for key in (*built.state_dict(), *dict(built.named_parameters())) if "head" in key]
    for way, shot in ((WAY + 4, 1), (2, [1, 4])):
        some = of_shape(way, shot)
        built.loss(some).backward()
        assert built.eval().adapt(some.support)(some.query.x).shape == (1, QUERY * way, way)


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("norm", GRADIENT_NORMS)
def test_a_step_and_its_meta_gradient_written_out(norm: str, first_order: bool, float64: None) -> None:
    """Body and head step as variables of their own; what becomes of the head is differentiated through the body."""
    built, some = algorithm("protomaml", norm), episodes(1)
    built.inner_steps, built.first_order = 1, first_order
    (x, y), (queries, truth) = ((part.x[0], part.y[0]) for part in (some.support, some.query))
    body = dict(built.net.backbone.named_parameters())

    def features(weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return functional_call(built.net.backbone, weights, tuple(each[None] for each in inputs))[0]

    member = F.one_hot(y).to(x.dtype).T  # (way, n)
    centres = member @ features(body, x) / member.sum(1, keepdim=True)
    start = {**body, "weight": 2 * centres, "bias": -(centres**2).sum(1)}
    own = {key: value.detach().requires_grad_() for key, value in start.items()}
    moving = [key for key in own if "norm" not in key]

    def support_loss(at: dict[str, Tensor]) -> Tensor:
        weights = {key: value for key, value in at.items() if key in body}
        return F.cross_entropy(F.linear(features(weights, x), at["weight"], at["bias"]), y)

    if first_order:
        steps = torch.autograd.grad(support_loss(own), [own[key] for key in moving])
    else:  # the gradient at `own` as a function of `own`, put behind `start` by the chain rule
        steps = torch.func.grad(lambda part: support_loss({**start, **part}))({key: start[key] for key in moving})
        steps = [steps[key] for key in moving]
    fast = {**start, **{key: start[key] - 0.4 * step for key, step in zip(moving, steps, strict=True)}}
    weights = {key: value for key, value in fast.items() if key in body}
    expected = F.cross_entropy(F.linear(features(weights, queries, x), fast["weight"], fast["bias"]), truth)
    loss = built.loss(some)
    torch.testing.assert_close(loss, expected)
    gradients = [flat(torch.autograd.grad(each, list(body.values()))) for each in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_a_learned_head_says_how_to_get_one_of_any_size() -> None:
    wide = of_shape(WAY + 1, 1)
    with pytest.raises(UserError, match=r"3 outputs, the episodes have 4 classes.*with algo\.head_init=prototypes"):
        algorithm("anil", "support").adapt(wide.support)
    with pytest.raises(UserError, match=r"learned rate for each number, and keeps its size"):
        algorithm("metasgd", "support").adapt(wide.support)
    with pytest.raises(UserError, match=r"train with way=4\.$"):
        algorithm("boil", "support").adapt(wide.support)


SMALL = [
    "data.train_classes=40", "data.val_classes=25", "data.test_classes=25", "query=3", "norm=support", "meta_batch=2",
    "backbone.filters=8", "steps=4", "val_every=2", "val_episodes=4", "episodes=6", "trainer=cpu", "train_query=2",
]  # fmt: skip


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def test_a_run_trains_on_varying_ways_and_is_tested_on_others(tmp_path: Path) -> None:
    words = ["algo=anil", "algo.head_init=prototypes", "train_way=[3,6]", "train_shot=[1,4]", f"out={tmp_path}"]
    run(["train", *words, *SMALL])
    (folder,) = tmp_path.glob("*/*/")
    run(["test", f"run={folder}", "way=20", "shot=[1,2]"])
    (again,) = folder.glob("tests/*/")
    assert (result(folder)["way"], result(again)["way"], result(again)["shot"]) == (5, 20, [1, 2])


def test_what_prototypes_are_needed_for_and_what_they_are_not_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"way=\[3, 6\]: a learned head.*train_way=3, or algo.head_init=prototypes"):
        run(["train", "algo=anil", "train_way=[3,6]", f"out={tmp_path}", *SMALL])
    with pytest.raises(UserError, match=r"a regression has no classes\. Type algo\.head_init=learned"):
        run(["train", "algo=maml", "data=sinusoid", "algo.head_init=prototypes", f"out={tmp_path}", "trainer=cpu"])
    assert not list(tmp_path.iterdir())
