"""Which episodes make up a training step, a validation and a test, on one process or on several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from pytorch_lightning import LightningDataModule

from fsl_cli.data.tasks import Batch, Tasks
from fsl_cli.episodes import Episodes

EVALUATION_SEED = 0  # of validation and test episodes, whatever the seed of the run: all runs meet the same ones
EVALUATION_BATCH = 4  # episodes at a time
FEATURES_BATCH = 64  # the same, where they consist of features
SAMPLE = 16  # training episodes that an algorithm may look at before a validation
TUNED = 100  # validation episodes that it may choose settings on


class Episodic(LightningDataModule):
    """Meta-batches of episodes of `tasks`; with several processes, each takes its share of every one.

    Training step s consists of the episodes s * meta_batch to (s + 1) * meta_batch - 1 of (seed, "train"),
    so a resumed run goes on where it stopped.
    """

    def __init__(
        self,
        tasks: Tasks,
        *,
        seed: int = 0,
        meta_batch: int = 1,
        steps: int = 0,
        val_every: int = 1,
        episodes: dict[str, int],
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.seed = seed
        self.meta_batch = meta_batch
        self.steps = steps
        self.val_every = val_every
        self.episodes = episodes  # how many of "val" and "test"

    def train_dataloader(self) -> Iterable[Batch]:
        return _Loader(self._training)

    def val_dataloader(self) -> Iterable[Batch]:
        return _Loader(lambda: self._evaluation("val"))

    def test_dataloader(self) -> Iterable[Batch]:
        return _Loader(lambda: self._evaluation("test"))

    def sample(self, part: str, count: int, device: torch.device, dtype: torch.dtype) -> Iterator[Episodes]:
        """The first episodes of a split, one by one, always the same, their images not augmented."""
        for index in range(count):
            yield from self.tasks.gather(Batch(part, EVALUATION_SEED, [index], plain=True), device, dtype)

    def _training(self) -> Iterator[Batch]:
        """The meta-batches from the trainer's present step up to the next validation."""
        share = self.meta_batch // self.trainer.world_size
        first = self.trainer.global_step
        for step in range(first, min((first // self.val_every + 1) * self.val_every, self.steps)):
            start = step * self.meta_batch + self.trainer.global_rank * share
            yield Batch("train", self.seed, list(range(start, start + share)))

    def _evaluation(self, part: str) -> Iterator[Batch]:
        mine = list(range(self.episodes[part]))[self.trainer.global_rank :: self.trainer.world_size]
        size = FEATURES_BATCH if part in self.tasks.features else EVALUATION_BATCH
        for start in range(0, len(mine), size):
            yield Batch(part, EVALUATION_SEED, mine[start : start + size])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> list[Episodes]:
        return self.tasks.gather(batch, device, self.trainer.lightning_module.dtype)


class _Loader:
    """What Lightning takes for a data loader of unknown length: each epoch, a fresh iterator."""

    def __init__(self, batches: Callable[[], Iterator[Batch]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()
