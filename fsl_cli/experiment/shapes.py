"""Which splits a run looks at, and the shape of their episodes."""

from __future__ import annotations

from collections.abc import Sequence

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.data.curves import Curves
from fsl_cli.data.feasible import room, shape_problems, sizes_of
from fsl_cli.data.sampler import Shape, smallest
from fsl_cli.data.store import SPLITS, DataSet
from fsl_cli.experiment.taking_in import parts_taken_in
from fsl_cli.settings.binding import class_of
from fsl_cli.settings.parts import Part, all_for_the_test, maybe_unsorted
from fsl_cli.settings.schema import Settings


def data_part(settings: Settings) -> Part:
    """The node of the data set; where all classes are to be tested and none is trained on, all are of the test split.

    That is, if it would else be divided here: a split of its own stands.
    """
    whole = settings.classes == "all" and not settings.steps
    data = maybe_unsorted(settings.data) if settings.pseudo else settings.data
    return all_for_the_test(data) if whole else data


def shapes_of(
    settings: Settings, data: DataSet | Curves, parts: Sequence[str] | None, fewer_queries: bool
) -> dict[str, Shape]:
    """The shape of each split's episodes; without `parts`, of those splits that the run looks at.

    A run that trains nothing looks at the test split, and at what its method takes in: training images, and validation
    episodes where the split has enough for some.
    """
    taken_in = parts_taken_in(class_of(settings.algo, Algorithm))
    wanted = parts or (SPLITS if settings.steps else ("train", "test"))
    evaluation = evaluated(settings)
    shapes = {part: evaluation for part in wanted if part != "train"}
    if "train" in wanted and (settings.steps or parts):
        shapes["train"] = Shape(
            settings.train_way,
            settings.train_shot,
            settings.train_query,
            unlabelled=settings.train_unlabelled,
            distractors=settings.distractors if settings.train_unlabelled else 0,
            labelled_share=settings.labelled_share,
        )
    if not isinstance(data, DataSet):
        return shapes
    if "val" in taken_in and not (settings.steps or parts) and not shape_problems(data, {"val": evaluation}):
        shapes["val"] = evaluation
    if "train" in wanted and "train" not in shapes and "train" in taken_in:
        sizes = sizes_of(data, "train")
        if len(sizes) > 1 and sizes.min() > 1:  # as many as there are: nobody has asked for episodes of a shape
            shapes["train"] = Shape(min(smallest(settings.train_way), len(sizes)), 1, 1)
    if "test" in shapes and settings.classes == "all":
        shapes["test"] = shapes["test"]._replace(way=len(sizes_of(data, "test")))
    if "test" in shapes and fewer_queries and isinstance(settings.query, int) and settings.shot != "metadataset":
        most = room(sizes_of(data, "test"), shapes["test"]).min(initial=settings.query + 1)
        left = int(most) - smallest(settings.shot)
        shapes["test"] = shapes["test"]._replace(query=max(1, min(settings.query, left)))
    return shapes


def evaluated(settings: Settings) -> Shape:
    """The shape of validation and test episodes."""
    return Shape(
        settings.way, settings.shot, settings.query, settings.query_balance, settings.unlabelled, settings.distractors
    )
