"""Terms over all tasks of a step: by hand, none for one task, and MAML where they are left out."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed
from conftest import settings
from test_algorithms import ROWS, SMALL_MAML, algorithm, episodes, flat
from torch import Tensor

from fsl_cli.algorithms.across_tasks import exclusiveness
from fsl_cli.algorithms.gradagree import agreement
from fsl_cli.algorithms.taml import TAML, entropy, inequality
from fsl_cli.episodes import task_loss
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble

MEASURES = [
    ("theil", 1.0),
    ("ge", 2.0),
    ("ge", 1.0),
    ("ge", 0.0),
    ("atkinson", 1.0),
    ("atkinson", 2.0),
    ("gini", 1.0),
    ("varlogs", 1.0),
]


def test_inequality_by_hand(float64: None) -> None:
    """Of 1, 2, 3 and 4."""
    wanted = [0.1064, 0.1, 0.1064, 0.1218, 0.1147, 1 - 4 / (25 / 12) / 2.5, 0.25, 0.2711]
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = [float(inequality(losses, *each)) for each in MEASURES]  # type: ignore[arg-type]
    assert found == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize(("measure", "exponent"), MEASURES)
def test_inequality_depends_on_ratios_alone(measure: str, exponent: float, float64: None) -> None:
    losses = torch.rand(5, requires_grad=True)
    own = inequality(losses, measure, exponent)  # type: ignore[arg-type]
    torch.testing.assert_close(inequality(7 * losses, measure, exponent), own)  # type: ignore[arg-type]
    assert own.item() > 0
    assert torch.autograd.gradcheck(lambda each: inequality(each, measure, exponent), losses)  # type: ignore[arg-type]
    for same in (torch.full((3,), 0.3), torch.tensor([0.7])):
        same.requires_grad_()
        none = inequality(same, measure, exponent)  # type: ignore[arg-type]
        assert abs(none.item()) < (1e-30 if len(same) == 1 else 1e-12)
        (gradient,) = torch.autograd.grad(none, same)
        assert gradient.abs().max() < (1e-30 if len(same) == 1 else 1e-12)


@pytest.mark.parametrize(("measure", "exponent"), MEASURES)
def test_a_loss_of_nothing_gives_no_infinity(measure: str, exponent: float) -> None:
    losses = torch.tensor([0.0, 1.0], requires_grad=True)
    found = inequality(losses, measure, exponent)  # type: ignore[arg-type]
    assert found.isfinite() and torch.autograd.grad(found, losses)[0].isfinite().all()


def test_entropy_is_largest_of_even_logits(float64: None) -> None:
    assert float(entropy(torch.zeros(4, 5))) == pytest.approx(math.log(5))
    p = torch.tensor([0.2, 0.8])
    assert float(entropy(p.log()[None])) == pytest.approx(-float((p * p.log()).sum()))


def test_the_start_is_to_be_undecided_and_what_adapts_decided(float64: None) -> None:
    """The term is the entropy of the queries after adapting less that before, as it is added to the loss."""
    built, some = algorithm("taml", "support"), episodes(1)
    assert isinstance(built, TAML)
    built.weight = 0.7
    before, after = built.net(some.query.x[0], some.support.x[0]), built.adapt(some.support)(some.query.x)[0]
    wanted = task_loss(after, some.query.y[0]) + 0.7 * (entropy(after) - entropy(before))
    torch.testing.assert_close(built.loss(some), wanted)


def test_tasks_count_as_their_updates_agree(float64: None) -> None:
    g = torch.randn(6)
    torch.testing.assert_close(agreement(g.expand(4, 6)), torch.full((4,), 0.25))
    opposed = agreement(torch.stack([g, g, g, -g]))
    torch.testing.assert_close(opposed, torch.tensor([0.25, 0.25, 0.25, -0.25]))
    some = torch.randn(5, 6)
    by_pairs = (some @ some.T).sum(1)
    torch.testing.assert_close(agreement(some), by_pairs / by_pairs.abs().sum())
    assert agreement(g[None]).tolist() == [1.0]
    torch.testing.assert_close(agreement(torch.zeros(3, 6)), torch.full((3,), 1 / 3))


def test_exclusiveness_is_of_distances_by_hand(float64: None) -> None:
    """Heads 0, 1 and 3 and bodies (0, 0), (1, 1) and (0, 2) of three tasks; what all share changes nothing."""
    fast = {
        "head.weight": torch.tensor([[0.0], [1.0], [3.0]]),
        "body": torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 2.0]]),
    }
    ratios = [1 / 1, 9 / 2, 4 / 1]
    wanted = sum((ratio - 2) ** 2 / 2 for ratio in ratios) / 3
    assert float(exclusiveness(fast, 2.0)) == pytest.approx(wanted)
    assert float(exclusiveness({name: value + 5 for name, value in fast.items()}, 2.0)) == pytest.approx(wanted)
    alone = {name: value[:1].requires_grad_() for name, value in fast.items()}
    none = exclusiveness(alone, 2.0)
    assert none.item() == 0
    assert all(not g.any() for g in torch.autograd.grad(none, list(alone.values()), materialize_grads=True))


@pytest.mark.parametrize("words", [["taml"], ["taml", "algo.regulariser=gini"], ["maml"]])
def test_without_weight_it_is_maml_to_the_bit(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name, *more = words
    more += ["algo.weight=0"] if name == "taml" else ["algo.exclusive=0"]
    maml, some = algorithm("maml", "support"), episodes()
    monkeypatch.setitem(ROWS, name, ROWS[name]._replace(overrides=(*SMALL_MAML, *more)))
    assert torch.equal(*map(flat, map(gradients, (algorithm(name, "support"), maml), (some, some))))


def gradients(built, some) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    return torch.autograd.grad(built.loss(some), list(built.parameters()))


@pytest.mark.parametrize("name", ["taml-theil", "gradagree", "maml-exclusive"])
def test_of_one_task_there_is_no_term(name: str) -> None:
    own, maml, some = algorithm(name, "support"), algorithm("maml", "support"), episodes(1)
    assert torch.equal(own.loss(some), maml.loss(some))
    torch.testing.assert_close(*map(flat, map(gradients, (own, maml), (some, some))))


def test_gradient_agreement_weighs_each_tasks_own_gradient(float64: None) -> None:
    own, some = algorithm("gradagree", "support"), episodes(3)
    maml = algorithm("maml", "support")
    updates, each = [], []
    for i in range(3):
        alone = episodes(1, first=i)
        fast = own._fast_weights(
            own.net,
            dict(own.net.named_parameters()),
            alone.support._replace(x=alone.support.x[0], y=alone.support.y[0]),
        )
        updates.append(flat(tuple((own.net.get_parameter(name) - fast[name]).detach() for name in sorted(own.adapted))))
        each.append(flat(gradients(maml, alone)))
    weights = agreement(torch.stack(updates))
    assert (weights < 1).all() and float(weights.abs().sum()) == pytest.approx(1)
    torch.testing.assert_close(flat(gradients(own, some)), weights @ torch.stack(each))


def test_theils_term_is_of_the_losses_before_adapting(float64: None) -> None:
    own, maml, some = algorithm("taml-theil", "support"), algorithm("maml", "support"), episodes(3)
    maml.inner_steps = 0
    before = [maml.loss(part._replace(query=part.support)) for part in (episodes(1, first=i) for i in range(3))]
    maml.inner_steps = own.inner_steps
    torch.testing.assert_close(own.loss(some), maml.loss(some) + inequality(torch.stack(before), "theil"))


@pytest.mark.parametrize(
    "words", [["algo=gradagree"], ["algo=taml", "algo.regulariser=theil"], ["algo=maml", "algo.exclusive=1"]]
)
def test_tasks_that_are_compared_have_one_shape(words: list[str]) -> None:
    few = ["data.train_classes=20", "data.val_classes=5", "data.test_classes=5"]
    with pytest.raises(UserError, match="Type one number each for train_way, train_shot and train_query"):
        assemble(settings([*words, *few, "train_shot=[1,3]"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algo=gradagree", "meta_batch=1"], "GradAgree compares the tasks of a step, and meta_batch=1 has one"),
        (["algo=maml", "algo.exclusive=1", "meta_batch=1"], "has one. Type meta_batch=4, or algo.exclusive=0"),
        (["algo=maml", "algo.exclusive=1", "algo.frozen=head"], "algo.frozen=head the inner loop does not adapt both"),
        (["algo=maml", "algo.exclusive=1", "algo.frozen=backbone"], "Type algo.frozen=norm, or algo.exclusive=0"),
    ],
)
def test_where_nothing_can_be_compared_it_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        assemble(settings([*words, "data.train_classes=20", "data.val_classes=5", "data.test_classes=5"]))


COMPARING = ("taml-theil", "gradagree", "maml-exclusive")


@pytest.mark.slow
@pytest.mark.alone
def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path, float64: None) -> None:
    """Each has two of four tasks, and their gradients are averaged, as in training."""
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=one_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(120)
        assert each.exitcode == 0
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in COMPARING:
        built = algorithm(name, "support")
        loss = built.loss(episodes(4))
        wanted = torch.cat([loss.detach()[None], flat(torch.autograd.grad(loss, list(built.parameters())))])
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, wanted, rtol=1e-9, atol=1e-12)


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)  # threads that the parent began are not there in a process that was forked
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meet'}", rank=rank, world_size=2)
    found = {}
    for name in COMPARING:
        built = algorithm(name, "support")
        loss = built.loss(episodes(2, first=2 * rank))
        found[name] = torch.cat([loss.detach()[None], flat(torch.autograd.grad(loss, list(built.parameters())))])
        with torch.no_grad():
            assert built.loss(episodes(1)) == algorithm("maml", "support").loss(episodes(1))  # alone, asked of one
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
