"""ANIL and BOIL are MAML with all but the head, or the head, left alone by the inner loop: to the last digits."""

from __future__ import annotations

import pytest
import torch
from test_algorithms import GRADIENT_NORMS, ROWS, SMALL_MAML, algorithm, episodes, flat
from torch import nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.over_tasks import for_each_task

FROZEN = {"anil": "^backbone", "boil": "^head"}


def twins(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Algorithm, Algorithm]:
    """The algorithm and MAML whose inner loop leaves the same parameters alone, with the same first weights."""
    monkeypatch.setitem(ROWS, "maml", ROWS["maml"]._replace(overrides=(*SMALL_MAML, f"algo.frozen='{FROZEN[name]}'")))
    return algorithm(name, norm), algorithm("maml", norm)


@pytest.mark.parametrize("norm", GRADIENT_NORMS)
@pytest.mark.parametrize("name", FROZEN)
def test_loss_and_meta_gradient_are_those_of_maml_with_the_rest_frozen(
    name: str, norm: str, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = episodes()
    losses, gradients = [], []
    for built in twins(name, norm, monkeypatch):
        losses.append(built.loss(some))
        gradients.append(flat(torch.autograd.grad(losses[-1], list(built.parameters()))))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", GRADIENT_NORMS)
@pytest.mark.parametrize("name", FROZEN)
def test_classifiers_are_those_of_maml_with_the_rest_frozen(
    name: str, norm: str, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = episodes()
    own, mamls = (built.eval().adapt(some.support)(some.query.x) for built in twins(name, norm, monkeypatch))
    torch.testing.assert_close(own, mamls, rtol=1e-9, atol=1e-12)


def test_anils_body_sees_the_support_set_once_however_many_steps_there_are() -> None:
    built, passes = algorithm("anil", "support"), []
    built.inner_steps = 7
    built.net.backbone.convs[0].register_forward_hook(lambda *_: passes.append(1))
    built.loss(episodes(1)).backward()
    assert len(passes) == 1


def test_boils_body_adapts_its_norms_and_its_head_stays() -> None:
    built, some = algorithm("boil", "support"), episodes(1)
    before = dict(built.net.named_parameters())

    def learn(net: nn.Module, *support: torch.Tensor) -> dict[str, torch.Tensor]:
        return built._fast_weights(net, before, some.support._make(support))

    after = for_each_task(built.net, learn, *some.support)
    moved = {name for name, value in after.items() if not torch.equal(value[0], before[name])}
    assert moved == {name for name in before if not name.startswith("head")}
    assert any("norms" in name for name in moved)
