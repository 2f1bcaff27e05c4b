"""MAML's inner step beside the formula of its authors' code (cbfinn/maml, maml.py and utils.py)."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from conftest import settings
from torch import Tensor

from fsl_cli.algorithms.inner_loop import Parameters
from fsl_cli.algorithms.maml import MAML
from fsl_cli.episodes import Examples
from fsl_cli.settings.binding import build
from fsl_cli.settings.registry import conf_dir
from fsl_cli.settings.schema import Settings

TASKS = [("omniglot", 5, 1), ("omniglot", 5, 5), ("omniglot", 20, 1), ("miniimagenet", 5, 1), ("miniimagenet", 5, 5)]
RATES = {
    ("omniglot", 5): 0.4,
    ("omniglot", 20): 0.1,
    ("miniimagenet", 5): 0.01,
}  # as the paper and their code have them
ITEMS = {"omniglot": (1, 28, 28), "miniimagenet": (3, 84, 84)}


def theirs(data: str) -> list[str]:
    """The settings that the recipe says are the authors'."""
    (line,) = re.findall("^# theirs: (.*)$", (conf_dir() / "recipe" / f"maml_{data}.yaml").read_text(), re.MULTILINE)
    return line.split()


def built(data: str, way: int, shot: int, *words: str) -> tuple[MAML, Settings]:
    torch.manual_seed(0)
    config = settings(["algo=maml", f"data={data}", f"way={way}", f"shot={shot}", *words])
    channels, size, _ = ITEMS[data]
    found = build(config.algo, backbone=build(config.backbone, channels=channels, size=size))
    assert isinstance(found, MAML)
    found.inner_steps = 1
    return found.train(), config


def support_set(data: str, way: int, shot: int) -> Examples:
    x = torch.randn(way * shot, *ITEMS[data], generator=torch.Generator().manual_seed(1))
    return Examples(x.to(torch.get_default_dtype()), torch.arange(way).repeat_interleave(shot))


def one_step(algorithm: MAML, support: Examples) -> Parameters:
    return algorithm._fast_weights(0, algorithm.net, dict(algorithm.net.named_parameters()), support)


def authors_step(weights: Parameters, support: Examples, shot: int, rate: float, stride: bool) -> Parameters:
    """w - rate * d sum_i(cross-entropy_i / K) / dw, norms with a shift alone, which does not adapt."""
    own = {name: value.detach().requires_grad_() for name, value in weights.items()}

    def forward(x: Tensor) -> Tensor:
        for number in range(4):
            x = F.conv2d(x, own[f"backbone.convs.{number}.weight"], None, 2 if stride else 1, 1)
            shift = own[f"backbone.norms.{number}.bias"]
            x = F.batch_norm(x, None, None, torch.ones_like(shift), shift, training=True, eps=1e-3).relu()
            x = x if stride else F.max_pool2d(x, 2)
        features = x.mean((2, 3)) if stride else x.flatten(1)
        return features @ own["head.weight"].T + own["head.bias"]

    losses = F.cross_entropy(forward(support.x), support.y, reduction="none") / shot  # a vector of N K
    names = [name for name in own if "norm" not in name]
    gradients = torch.autograd.grad(losses.sum(), [own[name] for name in names])
    return {name: own[name] - rate * gradient for name, gradient in zip(names, gradients, strict=True)}


@pytest.mark.parametrize(("data", "way", "shot"), TASKS)
def test_with_what_the_recipe_calls_theirs_a_step_is_the_authors(data: str, way: int, shot: int, float64: None) -> None:
    algorithm, config = built(data, way, shot, *theirs(data))
    support = support_set(data, way, shot)
    fast = one_step(algorithm, support)
    stride = config.backbone.get("halve") == "stride"
    start = dict(algorithm.net.named_parameters())
    for name, value in authors_step(start, support, shot, RATES[data, way], stride).items():
        torch.testing.assert_close(fast[name], value)
    assert not any(name.startswith("backbone.norms") and name.endswith("weight") for name in start)
    assert not start["head.bias"].any()
    expected = 1.0 if data == "omniglot" else (2 / (start["head.weight"].shape[1] + way)) ** 0.5
    assert float(start["head.weight"].detach().std()) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(("data", "way", "shot"), TASKS)
def test_as_the_recipe_is_a_step_goes_an_nth_of_the_way(data: str, way: int, shot: int, float64: None) -> None:
    algorithm, config = built(data, way, shot, "backbone.norm_scale=false", "backbone.norm_eps=1e-3")
    support, start = support_set(data, way, shot), dict(algorithm.net.named_parameters())
    fast = one_step(algorithm, support)
    stride = config.backbone.get("halve") == "stride"
    for name, value in authors_step(start, support, shot, RATES[data, way], stride).items():
        torch.testing.assert_close(way * (fast[name] - start[name]), value - start[name], rtol=1e-6, atol=1e-12)


def test_the_clip_that_the_recipe_calls_theirs_is_10_of_their_loss() -> None:
    text = (conf_dir() / "recipe" / "maml_miniimagenet.yaml").read_text()
    for shot, clip in ((1, "gradient_clip_val=([0-9.]+)"), (5, "5-shot: ([0-9.]+)")):
        config = settings(["algo=maml", "data=miniimagenet", f"shot={shot}"])
        images = config.train_way * config.train_query
        (found,) = re.findall(clip, text.split("trainer:")[0])
        assert float(found) * images / shot == pytest.approx(10, rel=1e-3)
