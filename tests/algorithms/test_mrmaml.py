"""MR-MAML: the divergence as it is, which the head's gradient knows nothing of, and without noise it is ANIL."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import settings
from test_algorithms import algorithm, episodes, flat
from torch.distributions import Normal, kl_divergence

from fsl_cli.algorithms.anil import ANIL
from fsl_cli.algorithms.mrmaml import MRMAML, divergence
from fsl_cli.backbones.mlp import MLP
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble

HEAD = ("net.head.0.weight", "net.head.0.bias")


def small(name: str = "mrmaml", **values: float) -> MRMAML:
    """As in the common tests, but with these settings."""
    built = algorithm(name, "support")
    assert isinstance(built, MRMAML)
    for key, value in values.items():
        setattr(built, key, value)
    return built


def test_the_divergence_is_that_of_normal_distributions(float64: None) -> None:
    mean, log_std = torch.randn(7), torch.randn(7)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(divergence(mean, log_std), expected)
    assert divergence(torch.zeros(3), torch.zeros(3)) == 0


@pytest.mark.parametrize("name", ["mrmaml", "mrmaml-activations"])
def test_the_heads_gradient_does_not_depend_on_the_weight_and_the_encoders_does(name: str, float64: None) -> None:
    found = []
    for weight in (0.0, 0.5):
        built = small(name, weight=weight)
        built.loss(episodes()).backward()
        found.append({key: value.grad for key, value in built.named_parameters()})
    for key in found[0]:
        same = torch.allclose(found[0][key], found[1][key], rtol=1e-12, atol=1e-14)
        untouched = key in HEAD or (name == "mrmaml" and "norm" in key)  # norms are no part of the random weights
        assert same == untouched, key


def test_without_noise_and_weight_it_is_maml_whose_head_alone_adapts(float64: None) -> None:
    built, some = small(weight=0.0), episodes()
    anil = algorithm("anil", "support")
    assert isinstance(anil, ANIL)
    names = {"head.weight": "head.0.weight", "head.bias": "head.0.bias"}
    values = built.net.state_dict()
    anil.net.load_state_dict({key: values[names.get(key, key)] for key in anil.net.state_dict()})
    own, other = built.loss(some), anil.loss(some)
    torch.testing.assert_close(own, other)
    gradients = [
        flat(torch.autograd.grad(loss, [*each.net.backbone.parameters(), *each.net.head.parameters()]))
        for loss, each in ((own, built), (other, anil))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    tested = [each.eval().adapt(some.support)(some.query.x) for each in (built, anil)]
    torch.testing.assert_close(*tested)


@pytest.mark.parametrize("name", ["mrmaml", "mrmaml-activations"])
def test_noise_is_drawn_anew_in_training_and_never_in_evaluation(name: str) -> None:
    built, some = small(name), episodes()
    with torch.no_grad():
        for value in built.net.log_std:
            value.fill_(math.log(0.5))
        if built.net.code is not None:
            built.net.code.bias.fill_(math.log(0.5))
    assert built.loss(some) != built.loss(some)
    built.eval()
    assert torch.equal(built.adapt(some.support)(some.query.x), built.adapt(some.support)(some.query.x))


@pytest.mark.parametrize(("regularise", "heads"), [("weights", "sign"), ("activations", "adam")])
def test_a_fresh_adam_each_step_goes_by_signs(regularise: str, heads: str) -> None:
    """Of all that is learned where weights are regularised, else of the encoder alone, as in the authors' notebook."""
    words = ["algo=mrmaml", "data=sinusoid_coded", f"algo.regularise={regularise}", "algo.outer=sign", "trainer=cpu"]
    learner = assemble(settings(words)).learner
    built, optimizer = learner.algorithm, learner.configure_optimizers()["optimizer"]
    before = {name: value.detach().clone() for name, value in built.named_parameters()}
    for scale in (1.0, 100.0):  # signs forget the sizes, also those before
        for name, value in built.named_parameters():
            value.grad = scale * torch.ones_like(value) * (-1 if name.endswith("bias") else 1)
        optimizer.step()
    for name, value in built.named_parameters():
        moved = (value.detach() - before[name]) / 0.001
        signed = ".head." not in name or heads == "sign"
        assert (float((moved.abs() - 2).abs().max()) < 0.02) == signed, name
    with pytest.raises(UserError, match="asks the outer optimizer for betas, which SGD has not"):
        assemble(settings([*words, "optim=sgd"])).learner.configure_optimizers()


def test_a_linear_layer_behind_the_backbone_is_encoder_too(float64: None) -> None:
    built = MRMAML(MLP(1, 2, "none", [5]), 2, 0.1, 1, 1, code=3, std=0.5)
    assert {"code.weight", "code.bias", "backbone.layers.0.weight", "backbone.layers.0.bias"} == set(built.random)
    some = Examples(torch.rand(1, 4, 1, 2, 2), torch.tensor([[0, 0, 1, 1]]))
    z = built._means(built.net.backbone(some.x))
    torch.testing.assert_close(z, built.net.code(built.net.backbone(some.x)))  # type: ignore[misc]
    assert built.eval().adapt(some)(some.x).shape == (1, 4, 2)
