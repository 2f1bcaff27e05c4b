"""Language modelling: what is shown and asked, bits of what is known, and that nothing looks ahead."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import settings

from fsl_cli.backbones.causal_chars import CausalChars
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.lm import lm
from fsl_cli.data.tasks import Batch
from fsl_cli.data.texts import as_text
from fsl_cli.episodes import IGNORED
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble

CPU = torch.device("cpu")
SMALL = ["backbone.width=8", "backbone.layers=1", "backbone.heads=2", "data.size=24", "data.symbols=20"]


def test_each_place_asks_for_the_symbol_that_the_next_place_shows(tmp_path: Path) -> None:
    tasks = lm(size=24, symbols=20, cache=str(tmp_path)).tasks({"train": Shape(20, 3, 2), "test": Shape(20, 3, 2)})
    [found] = tasks.gather(Batch("test", 0, [0, 1]), CPU)
    x, y = (
        torch.cat([found.support.x, found.query.x], 1).long().flatten(2),
        torch.cat([found.support.y, found.query.y], 1),
    )
    assert bool((x[..., 0] == 0).all()) and (tasks.symbols_of(x[..., 1:]) == y[..., :-1]).all()
    assert len({as_text(text) for text in x[0]}) == 5 and int(y.max()) == 19 and len(tasks.frequent) == 19
    assert tasks.symbols_of(torch.tensor([0, 0x3042])).tolist() == [IGNORED, 19]
    with pytest.raises(UserError, match="21 texts of a class"):
        lm(size=24, symbols=20, cache=str(tmp_path)).tasks({"test": Shape(20, 19, 2)})
    with pytest.raises(UserError, match="Type data.symbols=5"):
        lm(size=24, symbols=20, cache=str(tmp_path)).tasks({"test": Shape(5, 1, 2)})


def test_a_later_character_changes_no_earlier_output() -> None:
    torch.manual_seed(0)
    net = CausalChars(1, 12, width=8, heads=2).eval()
    x = torch.randint(1, 100, (1, 2, 1, 1, 12)).float()
    later = x.clone()
    later[..., 7] += 1
    same = (net(x) == net(later)).all(-1)[0]
    assert bool(same[:, :7].all()) and not bool(same[:, 7:].any())


@pytest.mark.parametrize("algo", ["maml", "joint"])
def test_bits_of_a_uniform_model_and_fewer_after_adapting(algo: str) -> None:
    experiment = assemble(settings([f"algo={algo}", "data=lm", "algo.inner_lr=0.5", *SMALL]), ["train", "test"])
    learner = experiment.learner.eval()
    head = learner.algorithm.net.head
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    groups = experiment.episodes.tasks.gather(Batch("test", 0, [0, 1, 2]), CPU)
    learner.algorithm.test_steps = 0
    learner._score(groups)
    assert [score.value for score in learner.scores] == pytest.approx([math.log2(20)] * 3)
    assert learner.algorithm.loss(groups[0]).item() == pytest.approx(math.log(20), rel=0.2)
    learner.algorithm.test_steps = 5
    learner.scores = []
    learner._score(groups)
    assert max(score.value for score in learner.scores) < math.log2(20) - 0.2


def test_what_tells_classes_apart_is_refused() -> None:
    with pytest.raises(UserError, match="does not predict characters"):
        assemble(settings(["algo=protonet", "data=lm", *SMALL]), ["test"])
