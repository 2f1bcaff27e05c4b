"""Which episodes the learner meets, and what evaluation leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import seen, settings, tiny_data, tiny_tasks

from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.errors import UserError
from fsl_cli.experiment.datamodule import EVALUATION_SEED, Episodic
from fsl_cli.experiment.method import learner
from fsl_cli.experiment.trainer import new_trainer, quiet


def module(seed: int = 5, step: int = 0, rank: int = 0, world: int = 1) -> Any:
    """Episodes of the tiny data set, as the trainer of one of `world` processes would ask for them at `step`."""
    counts = {"val": 6, "test": 9}
    built: Any = Episodic(tiny_tasks(), seed=seed, meta_batch=4, steps=10, val_every=4, episodes=counts)
    built.trainer = SimpleNamespace(global_step=step, global_rank=rank, world_size=world)
    return built


def drawn(batches: Iterator[Batch]) -> list[tuple[str, int, list[int]]]:
    return [tuple(batch)[:3] for batch in batches]


def test_training_steps_take_consecutive_episodes_up_to_the_next_validation() -> None:
    expected = [("train", 5, list(range(4 * step, 4 * step + 4))) for step in range(10)]
    assert drawn(module(step=0).train_dataloader()) == expected[:4]
    assert drawn(module(step=6).train_dataloader()) == expected[6:8]
    assert drawn(module(step=8).train_dataloader()) == expected[8:]


def test_several_processes_share_each_meta_batch() -> None:
    shares = [drawn(module(rank=rank, world=2).train_dataloader())[1][2] for rank in range(2)]
    assert shares == [[4, 5], [6, 7]]


@pytest.mark.parametrize(("part", "count"), [("val", 6), ("test", 9)])
def test_evaluation_takes_its_own_split_and_seed_whatever_the_runs_seed(part: str, count: int) -> None:
    found = [batch for rank in range(2) for batch in getattr(module(rank=rank, world=2), f"{part}_dataloader")()]
    assert sorted(index for batch in found for index in batch.index) == list(range(count))
    assert {(batch.split, batch.seed) for batch in found} == {(part, EVALUATION_SEED)}


def queries(tasks: ImageTasks) -> torch.Tensor:
    return tasks.gather(Batch("train", 0, [0]), torch.device("cpu"))[0].query.x


def test_pixels_are_scaled_by_the_data_sets_constants() -> None:
    scaled = tiny_tasks(tiny_data()._replace(mean=(0.4,), std=(0.25,)))
    torch.testing.assert_close(queries(scaled), (queries(tiny_tasks()) - 0.4) / 0.25)


def test_channels_are_brought_to_what_the_backbone_sees() -> None:
    assert torch.equal(queries(tiny_tasks(channels=3)), queries(tiny_tasks()).expand(-1, -1, 3, -1, -1))


def test_seeds_give_different_weights_and_the_same_seed_the_same() -> None:
    weights = [
        torch.cat([p.flatten() for p in learner(settings([f"seed={seed}"]), seen(1, 28)).parameters()])
        for seed in (0, 1, 0)
    ]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("algo", ["protonet", "maml"])
@pytest.mark.parametrize("verb", ["validate", "test"])
def test_evaluation_leaves_weights_and_statistics_alone(algo: str, verb: str) -> None:
    config = settings([f"algo={algo}", "trainer=cpu", "train_way=3", "backbone.filters=8"])
    built = learner(config, seen(1, 16))
    before = {name: value.clone() for name, value in built.state_dict().items()}
    episodes = Episodic(tiny_tasks(), episodes={"val": 6, "test": 6})
    with quiet():
        getattr(new_trainer(**config.trainer.values), verb)(built, datamodule=episodes, verbose=False)
    assert [score.index for score in built.scores] == list(range(6))
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


def test_episodes_of_several_shapes_are_averaged_and_leave_one_set_of_statistics() -> None:
    config = settings(["algo=protonet", "backbone.filters=8"])
    together, apart = learner(config, seen(1, 16)), learner(config, seen(1, 16))
    groups = tiny_tasks().gather(Batch("train", 0, [0, 1, 2]), torch.device("cpu"))
    alone = [tiny_tasks().gather(Batch("train", 0, index), torch.device("cpu"))[0] for index in ([0, 1], [2])]
    torch.testing.assert_close(together._loss(groups), apart._loss(alone))
    for one, other in zip(together.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_a_network_drops_depends_on_the_runs_seed_the_step_and_the_process_alone() -> None:
    words = ["backbone=resnet12", "backbone.filters=[4,4,4,4]", "backbone.drop_rate=0.5"]
    built = learner(settings(words), seen(1, 16)).train()
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    groups = tiny_tasks().gather(Batch("train", 0, [0]), torch.device("cpu"))

    def loss(seed: int = 0, step: int = 3, rank: int = 0) -> float:
        built.seed = seed
        built._trainer = SimpleNamespace(global_step=step, global_rank=rank, world_size=1, strategy=strategy)
        torch.rand(5)  # whatever was drawn before
        return built.training_step(groups, 0).item()

    first = loss()
    assert loss() == first
    assert len({first, loss(seed=1), loss(step=4), loss(rank=1)}) == 4


def test_a_backbone_is_told_how_much_of_the_training_is_done() -> None:
    built = learner(settings(["backbone=resnet12", "backbone.filters=[4,4,4,4]", "steps=8"]), seen(1, 16))
    assert built.algorithm.backbone.progress == 1
    built._trainer = SimpleNamespace(global_step=2)
    built._tell_progress()
    assert (built.algorithm.progress, built.algorithm.backbone.progress) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["algo=protonet", "backbone.frozen=true", "backbone.filters=8"], "nothing to train"),
        (["algo=maml", "algo.checkpoint_inner=true", "backbone=resnet12"], "Type backbone.drop_rate=0"),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says), torch.device("meta"):
        learner(settings(words), seen(1, 16))


def test_a_frozen_backbone_leaves_the_rest_to_learn() -> None:
    words = ["algo=anil", "backbone.frozen=true", "backbone.filters=8", "train_way=3", "algo.inner_steps=1"]
    built = learner(settings(words), seen(1, 16))
    built.train().algorithm.loss(tiny_tasks().gather(Batch("train", 0, [0, 1]), torch.device("cpu"))[0]).backward()
    learned = {name for name, value in built.algorithm.named_parameters() if value.grad is not None}
    assert learned == {"net.head.weight", "net.head.bias"}
    assert sum(map(len, (group["params"] for group in built.configure_optimizers()["optimizer"].param_groups))) == 2
