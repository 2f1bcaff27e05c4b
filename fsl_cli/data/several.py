"""Several data sets in one run: each episode is of one of them, and they take turns.

Of as many episodes in a row as there are data sets, one is of each, in an order drawn from (seed, split, round). The
episode numbered r of a data set is the same as where it is alone: the tests of two runs can be paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fsl_cli.data.names import all_different
from fsl_cli.data.sampler import distinct, raw_numbers
from fsl_cli.data.store import DataSet, split_hash
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Episodes, Metric
from fsl_cli.errors import UserError


class DataSets(NamedTuple):
    """Data sets by what they are called, two or more."""

    sets: dict[str, DataSet]

    @property
    def name(self) -> str:
        """Those of all; one whose name is there already has what it is called here."""
        return "+".join(all_different({called: data.name for called, data in self.sets.items()}))

    @property
    def hash(self) -> str:
        """The hashes of all images."""
        return "+".join(data.hash for data in self.sets.values())

    @property
    def protocol(self) -> dict[str, str]:
        """What must stand beside every number: of each, or once where it is the same; the classes of all in a hash."""
        each = [data.protocol for data in self.sets.values()]
        keys = dict.fromkeys(key for own in each for key in own)
        values = {key: [own.get(key, "uniform") for own in each] for key in keys}
        found = {key: own[0] if len(set(own)) == 1 else "+".join(own) for key, own in values.items()}
        return {
            **found,
            "split_hash": split_hash({name: [data.protocol["split_hash"]] for name, data in self.sets.items()}),
        }

    @property
    def class_rows_hash(self) -> str:
        return "+".join(data.class_rows_hash for data in self.sets.values())

    @property
    def part_of(self) -> str:
        """A larger collection of which the classes of one are some."""
        return next((data.part_of for data in self.sets.values() if data.part_of), "")

    @property
    def unsorted(self) -> bool:
        return any(data.unsorted for data in self.sets.values())

    @property
    def items(self) -> str:
        return next(iter(self.sets.values())).items

    def fingerprints(self, part: str) -> dict[str, str]:
        """Each class of a split, by its data set and its name, with a hash of its first image."""
        return {
            f"{name}: {each}": digest
            for name, data in self.sets.items()
            for each, digest in data.fingerprints(part).items()
        }


def several(**sets: Any) -> DataSets:
    """These data sets in one run. Raises UserError where they cannot go together."""
    for name, data in sets.items():
        if not isinstance(data, DataSet):
            raise UserError(
                f"data=[{','.join(sets)}]: the tasks of {name} have no classes, and several data sets are of classes. "
                f"Leave out {name}."
            )
    for name, data in sets.items():
        if same := [other for other, its in sets.items() if other != name and its.hash == data.hash]:
            raise UserError(
                f"data=[{','.join(sets)}]: {name} and {same[0]} have the same {data.items}. Leave one of them out."
            )
    shapes = {name: data.store.images.shape[2:] for name, data in sets.items() if data.items == "images"}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {height} x {width}" for name, (height, width) in shapes.items())
        raise UserError(f"The images of a run have one size, and here are {found}. Type data.size=84.")
    return DataSets(sets)


class SeveralTasks:
    """Episodes of several data sets in turn; the classes of all are numbered one after the other."""

    metric: Metric = "accuracy"

    def __init__(self, each: dict[str, ImageTasks]) -> None:
        self.each = each
        self.features: dict[str, Tensor] = {}
        self.samplers = next(iter(each.values())).samplers  # which splits there are is the same for all

    @property
    def ordered(self) -> bool:
        return all(tasks.ordered for tasks in self.each.values())

    @ordered.setter
    def ordered(self, value: bool) -> None:
        for tasks in self.each.values():
            tasks.ordered = value

    def turn(self, seed: int, split: str, index: int) -> tuple[int, int]:
        """Which data set episode `index` of (seed, split) is of, and which episode of that one it is."""
        count = len(self.each)
        number, place = divmod(index, count)
        return distinct(raw_numbers(f"{seed}/{split}/{number}/turn", count), count)[place], number

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        alike: dict[tuple[Any, ...], list[Episodes]] = {}
        for which, (own, tasks) in self._turns(batch).items():
            number_of = dict(own)
            for group in tasks.gather(batch._replace(index=[*number_of]), device, dtype):
                index = torch.tensor([number_of[number] for number in group.index.tolist()], device=device)
                group = group._replace(index=index, classes=group.classes + self._before(which, batch.split))
                shape = group.classes.shape[1], group.support.y.shape[1], group.query.y.shape[1]
                alike.setdefault(shape, []).append(group)
        return [_side_by_side(groups) for groups in alike.values()]

    def outside(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Tensor]:
        """For each episode of `batch`, images (n, *item) of classes of its data set that it does not have."""
        found: dict[int, Tensor] = {}
        for own, tasks in self._turns(batch).values():
            images = tasks.outside(batch._replace(index=[number for number, _ in own]), device, dtype)
            found |= zip((index for _, index in own), images, strict=True)
        return [found[index] for index in batch.index]

    def classes(self, part: str, device: torch.device, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """All images of a split, class by class, in the order of the classes' numbers."""
        for tasks in self.each.values():
            yield from tasks.classes(part, device, dtype)

    def _turns(self, batch: Batch) -> dict[int, tuple[list[tuple[int, int]], ImageTasks]]:
        """Of each data set that has episodes in `batch`: their numbers there and in `batch`, and the tasks."""
        tasks, found = [*self.each.values()], dict[int, tuple[list[tuple[int, int]], ImageTasks]]()
        for index in batch.index:
            which, number = self.turn(batch.seed, batch.split, index)
            found.setdefault(which, ([], tasks[which]))[0].append((number, index))
        return dict(sorted(found.items()))

    def _before(self, which: int, part: str) -> int:
        """How many classes of a split the data sets before this one have."""
        return int(sum(len(tasks.samplers[part].sizes) for tasks in [*self.each.values()][:which]))


def _side_by_side(groups: list[Episodes]) -> Episodes:
    """Groups of episodes of one shape as one."""
    if len(groups) == 1:
        return groups[0]
    join: Callable[..., Any] = lambda *own: None if own[0] is None else torch.cat(own)  # noqa: E731
    return tree_map(join, *groups)


OfClasses = DataSet | DataSets  # what has classes; curves and corpora have none
ClassTasks = ImageTasks | SeveralTasks
