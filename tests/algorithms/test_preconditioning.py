"""Learned preconditioning: nothing at first, and what it does to a step by hand."""

from __future__ import annotations

import pytest
import torch
from test_algorithms import GRADIENT_NORMS, algorithm, episodes, flat
from torch.func import functional_call

from fsl_cli.algorithms.inner_loop import adapt
from fsl_cli.algorithms.metacurvature import bend, bent, identities
from fsl_cli.algorithms.tnet import TNet
from fsl_cli.backbones.mlp import MLP
from fsl_cli.episodes import Examples


@pytest.mark.parametrize("halve", ["pool", "stride"])
@pytest.mark.parametrize("norm", GRADIENT_NORMS)
@pytest.mark.parametrize("name", ["metacurvature", "tnet"])
def test_it_starts_as_maml_to_the_bit(name: str, norm: str, halve: str) -> None:
    """But for the order in which torch sums the meta-gradient of a T-net's weights, where blocks are not compiled."""
    own, maml, some = algorithm(name, norm, halve), algorithm("maml", norm, halve), episodes()
    losses = [built.loss(some) for built in (own, maml)]
    assert torch.equal(*losses)
    weights = [own.net.get_parameter(name) for name, _ in maml.net.named_parameters()]
    gradients = torch.autograd.grad(losses[0], weights), torch.autograd.grad(losses[1], list(maml.parameters()))
    if name == "metacurvature" or norm in ("support", "transductive"):
        assert torch.equal(*map(flat, gradients))
    torch.testing.assert_close(*map(flat, gradients))
    logits = [built.eval().adapt(some.support)(some.query.x) for built in (own, maml)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("shape", [(3, 2, 5, 2), (3, 2), (4,)])
def test_matrices_along_the_axes_are_one_kronecker_matrix(shape: tuple[int, ...], float64: None) -> None:
    gradient = torch.randn(shape)
    own = [torch.randn_like(matrix) for matrix in identities(gradient)]
    assert [len(matrix) for matrix in own] == {4: [3, 2, 10], 2: [3, 2], 1: [4]}[len(shape)]
    whole = torch.diag(own[0]) if len(shape) == 1 else own[0]
    for matrix in own[1:]:
        whole = torch.kron(whole, matrix)
    torch.testing.assert_close(bend(gradient, own).flatten(), whole @ gradient.flatten())


def test_a_bent_step_on_a_quadratic_has_its_closed_form(float64: None) -> None:
    """w - a M (w - c) on |w - c|^2 / 2; half the loss's square there has the gradient -a v (w - c) for M = diag(m)."""
    w, c, m = (torch.randn(3, requires_grad=True) for _ in range(3))
    fast = adapt(lambda p, step: (p["w"] - c).square().sum() / 2, {"w": w}, {"w"}, 1, bent(0.3, {"w": [m]}))
    torch.testing.assert_close(fast["w"], w - 0.3 * m * (w - c))
    (gradient,) = torch.autograd.grad(fast["w"].square().sum() / 2, m)
    torch.testing.assert_close(gradient, -0.3 * fast["w"] * (w - c))


def test_a_step_of_a_t_net_is_in_the_metric_of_t(float64: None) -> None:
    """One linear layer T (W x + b), squared error: W moves by -a T' g x', what it gives by -a T T' g (x'x + 1)."""
    built = TNet(MLP(1, 2, "none", []), 3, inner_lr=0.1, inner_steps=1, test_steps=1)
    transform = torch.randn(3, 3)
    built.net.transform[0].data = transform - torch.eye(3)
    x, y = torch.randn(1, 1, 1, 2, 2), torch.randn(1, 1, 3)
    head, features = built.net.head, x.flatten()
    with torch.no_grad():
        before = transform @ head(features)
        g = 2 / 3 * (before - y.flatten())  # of the mean squared error
        moved = functional_call(
            head,
            {
                "weight": head.weight - 0.1 * torch.outer(transform.T @ g, features),
                "bias": head.bias - 0.1 * transform.T @ g,
            },
            (features,),
        )
        found = built.adapt(Examples(x, y))(x).flatten()
    torch.testing.assert_close(found, transform @ moved)
    torch.testing.assert_close(found, before - 0.1 * transform @ transform.T @ g * (features @ features + 1))


def test_what_a_t_net_embeds_has_its_matrices(float64: None) -> None:
    built, some = algorithm("tnet", "support"), episodes()
    before = built.embed(some.query.x)
    with torch.no_grad():
        built.net.transform[1] += 0.3 * torch.randn_like(built.net.transform[1])
    assert not torch.allclose(built.embed(some.query.x), before)
