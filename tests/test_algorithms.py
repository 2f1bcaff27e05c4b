"""Every algorithm in conf/algo, one row each: the same tests for all of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from inspect import signature
from typing import NamedTuple

import pytest
import torch
from conftest import CURVES, made_by, settings, tiny_data
from torch import Tensor

import fsl_cli.algorithms.over_tasks
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.data.sampler import Shape
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.settings.binding import build
from fsl_cli.settings.registry import choices

GRADIENT_NORMS = ("support", "transductive", "group", "none")
SEQUENCE_NORMS = ("running", "group", "none")  # a sequence has no support set whose statistics could be taken
METRIC_NORMS = ("running", *GRADIENT_NORMS)


class Row(NamedTuple):
    """What is special about an algorithm."""

    norms: tuple[str, ...]  # that it is offered with; the first is its default
    overrides: tuple[str, ...] = ()  # to make it small
    exact: bool = True  # its gradient is that of its loss (first order's is not)
    own_loss: bool = False  # it trains on something else than the queries' loss after adapting
    lr: float = 0.01  # for learning the tiny data in 200 steps
    train_shot: int = 2  # likewise
    learns: bool = True  # in so few steps; joint training never, as labels change with each task
    steps: int = 200  # of learning the tiny data
    reaches: float = 0.8  # accuracy on its test classes
    rounding: float = 1e-12  # of gradients, where tasks are taken one by one or side by side
    wakes: str = ""  # a parameter whose zeros hide the gradients of others, until it has moved
    compares: bool = False  # the tasks of a step, so that their loss is not the mean of each one's
    unlabelled: int = 0  # support images of each class without labels, and of a further class


SMALL_MAML = ("algo.inner_lr=0.4", "algo.inner_steps=2", "algo.test_steps=3")
QUIET = ("algo.std=1e-30", "algo.weight=1e-6")  # noise that moves no number
SMALL_IMAML = ("algo.inner_lr=0.3", "algo.inner_steps=3", "algo.penalty=0.5")
SMALL_REPTILE = (
    "algo.inner_lr=0.02",
    "algo.inner_steps=6",
    "algo.inner_batch=5",
    "algo.test_steps=10",
    f"algo.test_batch={3 * 2}",  # the whole support set, so that its order does not matter
)
SMALL_BASELINE = (
    "backbone.filters=32",
    "algo.inner_lr=0.5",
    "algo.test_steps=20",
    "algo.minibatch=6",
)  # the whole support set
SMALL_SNAIL = ("algo.filters=16", "train_shot=2", "algo.first_dilation=1")
SMALL_MANN = ("backbone=conv4", "algo.hidden=32", "algo.memory=8", "algo.width=16", "algo.heads=2", "algo.sharpness=10")
SMALL_METANET = (  # so small that without a norm all fast weights of a layer may have one sign, and die behind ReLU
    *("backbone=conv4", "algo.filters=4", "algo.blocks=2", "algo.hidden=8", "algo.units=4"), "algo.norm=group",
)  # fmt: skip
SMALL_L2L = ("backbone=conv4", "algo.inner_steps=4", "algo.segment=2", "algo.hidden=4")
SMALL_INCONTEXT = ("algo.width=32", "algo.code=8", "algo.layers=2", "algo.heads=2")
SMALL_TIP = ("backbone.filters=16", "algo.scale=10", "algo.alpha=5")  # as wide as a class row
ROWS = {
    "protonet": Row(METRIC_NORMS),
    "simplecnaps": Row(METRIC_NORMS, ("algo.temperature=1",)),
    "tadam": Row(
        METRIC_NORMS, ("algo.scale=1", "algo.penalty=0", "algo.cotraining=false"), wakes="film.strength"
    ),  # the loss without these: test_tadam.py
    "gaussproto": Row(METRIC_NORMS),
    "softkmeans": Row(METRIC_NORMS, unlabelled=2),
    "tim": Row(METRIC_NORMS, ("algo.test_steps=10", "algo.lr=0.01"), own_loss=True),
    "alphatim": Row(METRIC_NORMS, ("backbone.filters=32", "algo.test_steps=20", "algo.lr=0.01"), own_loss=True),
    "bdcspn": Row(METRIC_NORMS, ("backbone.filters=32",), own_loss=True),
    "laplacianshot": Row(METRIC_NORMS, ("backbone.filters=32",), own_loss=True),
    "ptmap": Row(METRIC_NORMS, ("backbone.filters=32",), own_loss=True),
    "zeroshot": Row(METRIC_NORMS, ("backbone.filters=16",)),
    "tipadapter": Row(METRIC_NORMS, SMALL_TIP),
    "freelunch": Row(METRIC_NORMS, ("backbone.filters=32", "algo.samples=12"), own_loss=True),
    "tpn": Row(
        ("running", "support", "transductive", "group"),
        ("backbone.filters=32", "algo.neighbours=5", "algo.spread=0.5"),
        own_loss=True,
        lr=0.002,
        reaches=0.6,
    ),  # of so few images: see docs/transductive.md for Omniglot
    "tranfinetune": Row(METRIC_NORMS, ("backbone.filters=32", "algo.test_steps=3"), own_loss=True),
    "matching": Row(METRIC_NORMS),
    "siamese": Row(METRIC_NORMS, ("backbone.filters=32",), own_loss=True),
    "relation": Row(METRIC_NORMS, ("backbone.halvings=2",), own_loss=True),
    "maml": Row(GRADIENT_NORMS, SMALL_MAML),
    "fomaml": Row(GRADIENT_NORMS, SMALL_MAML, exact=False),
    "protomaml": Row(GRADIENT_NORMS, SMALL_MAML),
    "joint": Row(GRADIENT_NORMS, ("algo.inner_lr=0.4", "algo.test_steps=3"), own_loss=True, learns=False),
    "anil": Row(GRADIENT_NORMS, SMALL_MAML),
    "boil": Row(GRADIENT_NORMS, SMALL_MAML),
    "reptile": Row(GRADIENT_NORMS, SMALL_REPTILE, exact=False, own_loss=True, lr=0.02, train_shot=5),
    "cavia": Row(GRADIENT_NORMS, ("backbone.filters=32", "algo.inner_steps=3", "algo.test_steps=3"), lr=0.005),
    "metasgd": Row(GRADIENT_NORMS, ("algo.inner_lr=0.4", "algo.inner_steps=2", "algo.test_steps=3")),
    "metacurvature": Row(GRADIENT_NORMS, SMALL_MAML),
    "tnet": Row(GRADIENT_NORMS, SMALL_MAML),
    "taml": Row(GRADIENT_NORMS, SMALL_MAML, own_loss=True),
    # a sign turns on the rounding of a gradient near zero: attacked in tests/algorithms/test_attack.py
    "adml": Row(GRADIENT_NORMS, (*SMALL_MAML, "algo.strength=0"), own_loss=True),
    "mrmaml": Row(GRADIENT_NORMS, (*SMALL_MAML, *QUIET), own_loss=True),
    "gradagree": Row(GRADIENT_NORMS, SMALL_MAML, exact=False, own_loss=True, compares=True),
    "imaml": Row(GRADIENT_NORMS, SMALL_IMAML, exact=False, own_loss=True, reaches=0.7),
    "metalstm": Row(GRADIENT_NORMS, ("algo.inner_steps=3", "algo.hidden=6"), exact=False, steps=400),
    "l2l": Row(
        ("none", "support", "transductive", "group"), SMALL_L2L, exact=False, own_loss=True, learns=False
    ),  # learns: test_l2l.py
    "mamlpp": Row(GRADIENT_NORMS, SMALL_MAML),
    "simpleshot": Row(("running", *GRADIENT_NORMS), ("backbone.filters=32",), own_loss=True),
    "baseline": Row(("running", *GRADIENT_NORMS), SMALL_BASELINE, own_loss=True),
    "rfs": Row(("running", *GRADIENT_NORMS), ("backbone.filters=32",), own_loss=True),
    "baselinepp": Row(("running", *GRADIENT_NORMS), SMALL_BASELINE, own_loss=True),
    "r2d2": Row(("running", *GRADIENT_NORMS), ("backbone=conv4", "algo.scale=10", "algo.penalty=0.01")),
    "metaoptnet": Row(("running", *GRADIENT_NORMS), ("algo.smoothing=0", "algo.cost=10")),
    "metabaseline": Row(("running", *GRADIENT_NORMS)),
    "snail": Row(METRIC_NORMS, SMALL_SNAIL, lr=0.003, steps=800, reaches=0.6),  # learns to compare, slowly
    "mann": Row(SEQUENCE_NORMS, SMALL_MANN, own_loss=True, learns=False),  # in thousands of steps; test_mann.py
    "lstm": Row(SEQUENCE_NORMS, ("backbone=conv4", "algo.hidden=32"), own_loss=True, learns=False),
    "cnp": Row(METRIC_NORMS, ("algo.hidden=32",), own_loss=True, lr=0.003, steps=800, reaches=0.55),  # likewise
    "metanet": Row(
        ("group", "none"), SMALL_METANET, exact=False, learns=False, rounding=1e-11
    ),  # learns: test_metanet.py
    "incontext": Row(
        METRIC_NORMS, SMALL_INCONTEXT, lr=0.001, steps=400, reaches=0.5
    ),  # on features that nothing has trained
    "feat": Row(("running", *GRADIENT_NORMS), ("algo.temperature=1", "algo.contrast_temperature=1"), own_loss=True),
}
VARIANTS = {  # settings of an algorithm that all the tests are run with too
    f"{name}-prototypes": ROWS[name]._replace(overrides=(*ROWS[name].overrides, "algo.head_init=prototypes"))
    for name in ("anil", "mamlpp")
} | {
    "taml-theil": Row(GRADIENT_NORMS, (*SMALL_MAML, "algo.regulariser=theil"), own_loss=True, compares=True),
    "mrmaml-activations": Row(
        GRADIENT_NORMS, (*SMALL_MAML, *QUIET, "algo.regularise=activations", "algo.code=8"), own_loss=True
    ),
    "maml-exclusive": Row(GRADIENT_NORMS, (*SMALL_MAML, "algo.exclusive=0.1"), own_loss=True, compares=True),
    "softkmeans-cluster": Row(METRIC_NORMS, ("algo.variant=cluster", "algo.radius=1"), unlabelled=2),
    "softkmeans-masked": Row(METRIC_NORMS, ("algo.variant=masked",), exact=False, unlabelled=2),
    "tipadapter-tuned": Row(METRIC_NORMS, (*SMALL_TIP, "algo.test_steps=5", "algo.lr=0.01")),
    "protonet-cosine": Row(METRIC_NORMS, ("algo.distance=cosine",)),
    "matching-context": Row(METRIC_NORMS, ("algo.context=true",)),
    "simplecnaps-film": Row(
        METRIC_NORMS, ("algo.temperature=1", "algo.film=true", "algo.penalty=0"), wakes="film.strength"
    ),
}
ROWS |= VARIANTS
CHECKPOINTED = [name for name in ROWS if "checkpoint_inner" in signature(made_by(name.partition("-")[0])).parameters]
WAY, SHOT, QUERY = 3, 2, 3
CPU = torch.device("cpu")
DEALT = {"unlabelled": 0}  # images to each class in the episodes of the algorithm that is tested


@pytest.fixture(autouse=True)
def unlabelled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS.get(getattr(request.node, "callspec", None) and request.node.callspec.params.get("name"))
    monkeypatch.setitem(DEALT, "unlabelled", row.unlabelled if row else 0)


def algorithm(name: str, norm: str, halve: str = "pool") -> Algorithm:
    """An algorithm as it begins, small; composed once for all its norms, which are its backbone's setting alone."""
    torch.manual_seed(0)
    config = settings([f"algo={name.partition('-')[0]}", f"way={WAY}", "backbone.filters=8", *ROWS[name].overrides])
    backbone = build(config.backbone.having(norm=norm, halve=halve), channels=1, size=16)
    backbone.pixels = (tiny_data().mean, tiny_data().std)
    classes = len(tiny_data().splits["train"].classes)
    built = build(config.algo, backbone=backbone, train_classes=classes, row_width=16)
    assert isinstance(built, Algorithm)
    if ROWS[name].wakes:
        torch.nn.init.constant_(built.get_parameter(ROWS[name].wakes), 0.1)
    return built


def episodes(count: int = 2, part: str = "train", first: int = 0, shot: int = SHOT) -> Episodes:
    """Episodes of the tiny data, gathered once; each caller has a copy of its own, which it may change."""
    return deepcopy(gathered(count, part, first, shot, torch.get_default_dtype(), DEALT["unlabelled"]))


@cache
def gathered(count: int, part: str, first: int, shot: int, dtype: torch.dtype, unlabelled: int) -> Episodes:
    shape = Shape(WAY, shot, QUERY, unlabelled=unlabelled, distractors=min(unlabelled, 1))
    shapes = dict.fromkeys(("train", "val", "test"), shape)
    batch = Batch(part, 0, [*range(first, first + count)])
    [some] = ImageTasks(tiny_data(), shapes, 1).gather(batch, CPU, dtype)
    return some


def covering() -> list[tuple[str, str]]:
    """Each algorithm with its own norm and one of the others, in turn: where the norm adds no mathematics."""
    turns = [(row.norms[0], row.norms[1 + i % (len(row.norms) - 1)]) for i, row in enumerate(ROWS.values())]
    return [(name, norm) for name, norms in zip(ROWS, turns, strict=True) for norm in norms]


def product(of: Callable[[Row, str], bool] = lambda row, norm: True, fast: bool = False) -> pytest.MarkDecorator:
    """Parametrise over algorithms with each of their norms; what the sample leaves out is slow, unless `fast`."""
    sampled = set(covering())
    pairs = [(name, norm) for name, row in ROWS.items() for norm in row.norms if of(row, norm)]
    marks = [() if fast or pair in sampled else (pytest.mark.slow,) for pair in pairs]
    return pytest.mark.parametrize(
        ("name", "norm"), [pytest.param(*pair, marks=mark) for pair, mark in zip(pairs, marks, strict=True)]
    )


sample = pytest.mark.parametrize(("name", "norm"), covering())


def test_the_sample_covers_every_norm_of_both_kinds() -> None:
    for norms in (GRADIENT_NORMS, METRIC_NORMS):
        assert {norm for name, norm in covering() if ROWS[name].norms == norms} == set(norms)


def test_every_algorithm_has_a_row() -> None:
    assert set(choices("algo")) == set(ROWS) - set(VARIANTS) | CURVES


@sample
def test_logits_have_a_column_for_each_class(name: str, norm: str) -> None:
    some = episodes()
    assert algorithm(name, norm).classifier(some)(some.query.x).shape == (2, WAY * QUERY, WAY)


@sample
def test_the_gradient_reaches_every_parameter(name: str, norm: str) -> None:
    built = algorithm(name, norm)
    built.loss(episodes()).backward()
    for label, parameter in built.named_parameters():
        if not parameter.requires_grad:
            continue  # a frozen backbone
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label


@sample
def test_adapting_in_evaluation_leaves_parameters_and_buffers_alone(name: str, norm: str) -> None:
    built = algorithm(name, norm).eval()
    before = {key: value.clone() for key, value in built.state_dict().items()}
    some = episodes()
    built.classifier(some)(some.query.x)
    assert all(torch.equal(value, before[key]) for key, value in built.state_dict().items())


@sample
def test_the_same_support_gives_the_same_logits(name: str, norm: str) -> None:
    built, some = algorithm(name, norm).eval(), episodes()
    assert torch.equal(built.classifier(some)(some.query.x), built.classifier(some)(some.query.x))


@product()
def test_the_order_of_support_and_query_does_not_matter(name: str, norm: str, float64: None) -> None:
    """Where the support set is a sequence, that of the queries alone; `ordered` says so."""
    built, some = algorithm(name, norm).eval(), episodes()
    expected = built.classifier(some)(some.query.x)
    size = some.support.y.shape[1]
    support_order = torch.arange(size) if built.ordered else torch.randperm(size)
    query_order = torch.randperm(WAY * QUERY)
    shuffled = Examples(some.support.x[:, support_order], some.support.y[:, support_order])
    torch.testing.assert_close(
        built.classifier(some._replace(support=shuffled))(some.query.x[:, query_order]), expected[:, query_order]
    )


@product()
def test_a_query_is_judged_alone_unless_transductive(name: str, norm: str, float64: None) -> None:
    built, some = algorithm(name, norm).eval(), episodes()
    classify = built.classifier(some)
    together, alone = classify(some.query.x)[:, :1], classify(some.query.x[:, :1])
    assert torch.allclose(together, alone, rtol=1e-9) == (norm != "transductive" and not built.sees_queries)


@product(lambda row, norm: not row.compares)  # its own tests say how it weighs the tasks of a step against each other
def test_an_episode_does_not_depend_on_its_neighbours(name: str, norm: str, float64: None) -> None:
    both = algorithm(name, norm).loss(episodes(2))
    one_by_one = torch.stack([algorithm(name, norm).loss(episodes(1, first=i)) for i in range(2)]).mean()
    torch.testing.assert_close(both, one_by_one)


@product(lambda row, norm: row.exact, fast=True)  # the others' leave out terms on purpose
def test_the_gradient_equals_finite_differences(name: str, norm: str, float64: None) -> None:
    compare_with_finite_differences(name, norm, "pool")


@product(lambda row, norm: row.exact)
def test_the_gradient_equals_finite_differences_with_strides(name: str, norm: str, float64: None) -> None:
    compare_with_finite_differences(name, norm, "stride")


def compare_with_finite_differences(name: str, norm: str, halve: str) -> None:
    built, some = algorithm(name, norm, halve), episodes()
    gradient = flat(torch.autograd.grad(built.loss(some), learned(built)))
    direction = torch.randn_like(gradient)
    step = 1e-8  # small enough not to step over the kinks of ReLU
    values = []
    for sign in (1, -1):
        shift(built, sign * step * direction)
        values.append(built.loss(some).item())
        shift(built, -sign * step * direction)
    measured = (values[0] - values[1]) / (2 * step)
    assert measured == pytest.approx(float(gradient @ direction), rel=1e-5)


@product()
def test_tasks_one_by_one_equal_tasks_side_by_side(
    name: str, norm: str, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_one_by_one_with_side_by_side(name, norm, monkeypatch)


def compare_one_by_one_with_side_by_side(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for size in (0, 2, 3):  # one by one, a group and the rest, all
        monkeypatch.setattr(fsl_cli.algorithms.over_tasks, "_at_once", lambda *_, size=size: size)
        built = algorithm(name, norm)  # anew: a loss may move buffers
        loss = built.loss(episodes(3))
        results.append((loss, flat(torch.autograd.grad(loss, learned(built)))))
    torch.testing.assert_close(results[1:], [results[0]] * 2, rtol=1e-9, atol=ROWS[name].rounding)


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_steps_that_are_built_again_give_the_same_loss_and_gradient(name: str, float64: None) -> None:
    built, some, results = algorithm(name, ROWS[name].norms[0]), episodes(), []
    for built.checkpoint_inner in (False, True):
        loss = built.loss(some)
        results.append((loss, flat(torch.autograd.grad(loss, learned(built)))))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", GRADIENT_NORMS)
def test_side_by_side_is_right_for_norms_that_adapt_too(
    norm: str, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vmap over batch_norm with weights gives wrong gradients, which show where the inner loop adapts them."""
    monkeypatch.setitem(ROWS, "maml", ROWS["maml"]._replace(overrides=(*SMALL_MAML, "algo.frozen=nothing")))
    compare_one_by_one_with_side_by_side("maml", norm, monkeypatch)


def test_first_order_leaves_second_derivatives_out(float64: None) -> None:
    some = episodes()
    first, second = (algorithm(name, "support") for name in ("fomaml", "maml"))
    assert torch.equal(first.loss(some), second.loss(some))
    gradients = [flat(torch.autograd.grad(built.loss(some), learned(built))) for built in (first, second)]
    assert (gradients[0] - gradients[1]).norm() > 0.01 * gradients[1].norm()


def test_maml_takes_its_own_number_of_steps_in_a_test() -> None:
    built, some = algorithm("maml", "support"), episodes()
    trained, tested = (built.train(mode).classifier(some)(some.query.x) for mode in (True, False))
    assert not torch.allclose(trained, tested)
    built.test_steps = built.inner_steps
    assert torch.equal(built.eval().classifier(some)(some.query.x), trained)


@product(lambda row, norm: not row.own_loss and norm != "running")  # in training, of support and query together
def test_the_loss_has_the_gradient_of_the_contract(name: str, norm: str, float64: None) -> None:
    built, some = algorithm(name, norm), episodes()
    own = torch.autograd.grad(built.loss(some), learned(built))
    contract = torch.autograd.grad(Algorithm.loss(built, some), learned(built))
    torch.testing.assert_close(flat(own), flat(contract), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.learns])
def test_it_learns(name: str) -> None:
    built = algorithm(name, ROWS[name].norms[0])
    before = accuracy(built)
    optimizer = torch.optim.Adam(learned(built), ROWS[name].lr)
    for step in range(ROWS[name].steps):
        optimizer.zero_grad()
        built.train().loss(episodes(4, first=4 * step, shot=ROWS[name].train_shot)).backward()
        optimizer.step()
    assert before < 0.65
    assert accuracy(built) > ROWS[name].reaches


def accuracy(built: Algorithm) -> float:
    some = episodes(30, "test")
    with torch.no_grad():
        built.eval().prepare([episodes(4)])
        built.prepare_classes(episodes(1, first=i).support.x[0] for i in range(4))
        logits = built.eval().classifier(some)(some.query.x)
    return float((logits.argmax(-1) == some.query.y).double().mean())


def learned(built: Algorithm) -> list[Tensor]:
    return [parameter for parameter in built.parameters() if parameter.requires_grad]


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def shift(built: Algorithm, by: Tensor) -> None:
    with torch.no_grad():
        for parameter, part in zip(learned(built), by.split([p.numel() for p in learned(built)]), strict=True):
            parameter += part.view_as(parameter)
