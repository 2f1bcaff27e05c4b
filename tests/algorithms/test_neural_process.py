"""Neural processes: sums by hand, limits, and a likelihood that is never better than that of what draws the curves."""

from __future__ import annotations

import pytest
import torch
from conftest import Pixels

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.neural_process import NeuralProcess
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.gp import gp
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples, Normal

CPU = torch.device("cpu")


def built(**more: object) -> NeuralProcess:
    torch.manual_seed(0)
    return NeuralProcess(Pixels(1, 1, 1), 1, hidden=16, regression=True, **more)  # type: ignore[arg-type]


def points(n: int = 5) -> Examples:
    torch.manual_seed(1)
    x = torch.rand(2, n, 1, 1, 1)
    return Examples(x, torch.rand(2, n, 1))


KINDS = [{}, {"path": "attention"}, {"path": "none", "latent": True}, {"path": "attention", "latent": True}]


@pytest.mark.parametrize("more", KINDS)
def test_the_order_of_the_points_does_not_matter(more: dict[str, object], float64: None) -> None:
    model, known, order = built(**more), points(), torch.tensor([3, 1, 4, 0, 2])
    x = torch.rand(2, 4, 1, 1, 1)
    torch.testing.assert_close(
        model.distribution(Examples(known.x[:, order], known.y[:, order]))(x), model.distribution(known)(x)
    )


@pytest.mark.parametrize("more", [{}, {"path": "none", "latent": True}])
def test_every_point_twice_says_the_same(more: dict[str, object], float64: None) -> None:
    model, known, x = built(**more), points(), torch.rand(2, 4, 1, 1, 1)
    twice = Examples(known.x.repeat(1, 2, 1, 1, 1), known.y.repeat(1, 2, 1))
    torch.testing.assert_close(model.distribution(twice)(x), model.distribution(known)(x))


def test_attention_without_queries_is_the_mean(float64: None) -> None:
    model, known, x = built(path="attention"), points(), torch.rand(2, 4, 1, 1, 1)
    attention = model.attention
    with torch.no_grad():
        attention.query.weight.zero_()
        attention.query.bias.zero_()
        for layer in (attention.value, attention.out):
            layer.weight.copy_(torch.eye(16))
            layer.bias.zero_()
    mean = built()
    mean.load_state_dict({name: value for name, value in model.state_dict().items() if "attention" not in name})
    torch.testing.assert_close(model.distribution(known)(x), mean.distribution(known)(x))


def test_log_likelihood_and_divergence_by_hand() -> None:
    one, other = Normal(torch.tensor(0.3), torch.tensor(0.5)), Normal(torch.tensor(-0.2), torch.tensor(1.2))
    assert float(one.divergence(other)) == pytest.approx(0.549080, abs=1e-6)
    assert float(one.divergence(one)) == 0
    expected = torch.distributions.Normal(0.3, 0.5).log_prob(torch.tensor(1.0))
    torch.testing.assert_close(one.log_prob(torch.tensor(1.0)), expected)


def test_the_latents_loss_is_that_of_their_code(float64: None) -> None:
    """Minus the mean over the targets of log p minus the divergence divided by their number."""
    model, known, asked = built(path="none", latent=True), points(), points(3)
    episodes = Episodes(known, asked, torch.zeros(2, 1), torch.arange(2))
    torch.manual_seed(5)
    loss = model.loss(episodes)
    x = torch.cat([known.x, asked.x], 1).flatten(2)
    y = torch.cat([known.y, asked.y], 1)
    prior, posterior = model.latent(x[:, :5], known.y), model.latent(x, y)
    torch.manual_seed(5)
    z = posterior.mean + posterior.std * torch.randn_like(posterior.std)
    mean, raw = model.decoder(torch.cat([z.unsqueeze(1).expand(-1, 8, -1), x], -1)).chunk(2, -1)
    p = torch.distributions.Normal(mean, 0.1 + 0.9 * torch.nn.functional.softplus(raw))
    q, c = (torch.distributions.Normal(each.mean, each.std) for each in (posterior, prior))
    apart = torch.distributions.kl_divergence(q, c).sum(-1)
    torch.testing.assert_close(loss, -(p.log_prob(y).squeeze(-1) - (apart / 8).unsqueeze(-1)).mean())


def tasks(count: int, shot: int | list[int] = 5) -> tuple[list[Episodes], list[float]]:
    source = gp().tasks({"test": Shape(1, shot, 10)})
    batch = Batch("test", 0, [*range(count)])
    return source.gather(batch, CPU, torch.float64), source.best(batch, CPU)


def test_curves_have_the_covariance_of_their_kernel() -> None:
    source = gp().tasks({"test": Shape(1, 1, 1)})
    x = torch.tensor([[-0.5], [0.0], [0.3]], dtype=torch.float64)
    drawn = source.truth(Batch("test", 0, [*range(10_000)]), x).squeeze(-1)
    expected = torch.exp(-((x - x.mT) ** 2) / (2 * 0.4**2)) + 0.02**2 * torch.eye(3)
    torch.testing.assert_close(drawn.T @ drawn / len(drawn), expected, atol=0.04, rtol=0)


def test_a_curve_goes_through_its_points() -> None:
    source = gp(noise=1e-4).tasks({"test": Shape(1, 5, 3)})
    batch = Batch("test", 0, [3])
    [episodes] = source.gather(batch, CPU, torch.float64)
    places = episodes.support.x[0] + 1e-6
    torch.testing.assert_close(source.truth(batch, places)[0], episodes.support.y[0], atol=1e-3, rtol=0)


def test_nobody_knows_curves_better_than_what_draws_them() -> None:
    [episodes], best = tasks(2000)
    prior = -Normal(torch.tensor(0.0), torch.tensor(1.0002)).log_prob(episodes.query.y).mean()
    assert sum(best) / len(best) < float(prior) == pytest.approx(1.42, abs=0.03)
    nearest = (episodes.query.x - episodes.support.x.mT).abs().argmin(-1, keepdim=True)
    guess = episodes.support.y.gather(1, nearest)
    other = -Normal(guess, (episodes.query.y - guess).std()).log_prob(episodes.query.y).mean()
    assert sum(best) / len(best) < float(other)


def test_shots_are_drawn_and_episodes_do_not_depend_on_others() -> None:
    groups, _ = tasks(30, [3, 9])
    assert {group.support.x.shape[1] for group in groups} == set(range(3, 10))
    alone = gp().tasks({"test": Shape(1, [3, 9], 10)}).gather(Batch("test", 0, [7]), CPU, torch.float64)[0]
    together = next(group for group in groups if 7 in group.index)
    place = together.index.tolist().index(7)
    assert torch.equal(alone.support.y[0], together.support.y[place]) and torch.equal(
        alone.query.x[0], together.query.x[place]
    )


def test_classes_are_told_apart_by_their_means_side_by_side() -> None:
    torch.manual_seed(0)
    model = NeuralProcess(Pixels(2, 1, 1), 3, hidden=8)
    x = torch.rand(1, 4, 2, 1, 1)
    query = torch.rand(1, 1, 2, 1, 1)
    means = [x[0, :1].mean(0), x[0, 1:3].mean(0), x[0, 3:].mean(0)]
    expected = model.decoder(torch.cat([*(mean.flatten() for mean in means), query.flatten()]))
    torch.testing.assert_close(model.adapt(Examples(x, torch.tensor([[0, 1, 1, 2]])))(query)[0, 0], expected)


def test_a_classifier_trains_with_each_class_in_every_place(float64: None) -> None:
    torch.manual_seed(0)
    model = NeuralProcess(Pixels(1, 2, 2), 3, hidden=16)
    known = Examples(torch.rand(2, 3, 1, 2, 2), torch.arange(3).expand(2, 3))
    asked = Examples(torch.rand(2, 6, 1, 2, 2), torch.arange(3).repeat(2).expand(2, 6))

    def renamed(some: Examples, turn: int) -> Examples:
        return Examples(some.x, (some.y + turn) % 3)

    names, index = torch.arange(3).expand(2, 3), torch.arange(2)
    each = [
        Algorithm.loss(model, Episodes(renamed(known, turn), renamed(asked, turn), names, index)) for turn in range(3)
    ]
    torch.testing.assert_close(model.loss(Episodes(known, asked, names, index)), torch.stack(each).mean())
    assert not torch.allclose(each[0], each[1])
