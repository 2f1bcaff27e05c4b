"""The episodes of a data set of images, texts or embeddings, or of several, and what a backbone sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.data.augment import Augment
from fsl_cli.data.clusters import Clusters
from fsl_cli.data.embeddings import BYTES
from fsl_cli.data.feasible import shape_problems
from fsl_cli.data.sampler import Shape
from fsl_cli.data.several import DataSets, SeveralTasks
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import ImageTasks
from fsl_cli.errors import UserError
from fsl_cli.settings.binding import build, class_of
from fsl_cli.settings.schema import Image, Settings


def several_tasks(
    settings: Settings, data: DataSets, shapes: Mapping[str, dict[str, Shape]]
) -> tuple[SeveralTasks, Image]:
    """The episodes of several data sets, all seen alike: as the first of those with the most channels is alone.

    Raises UserError as `image_tasks`, and where one backbone cannot take the items of all.
    """
    images = {name: own_image(own) for name, own in data.sets.items()}
    image = settings.image or max(images.values(), key=lambda own: own.channels)
    for name, own in images.items():
        if own.items != image.items:
            others = next(other for other, its in images.items() if its.items == image.items)
            raise UserError(
                f"data={name} has {own.items}, and data={others} has {image.items}: a run sees one of the two. "
                f"Leave out {name}."
            )
        if own.items == "embeddings" and own.channels != image.channels:
            raise UserError(
                f"data={name} has embeddings of {own.channels:,} numbers, another has {image.channels:,}. Choose "
                "data sets that the same network has embedded."
            )
    each = {}
    for name, one in data.sets.items():
        each[name], image = image_tasks(settings.having(image=image), one, shapes[name])
    return SeveralTasks(each), image


def own_image(data: DataSet) -> Image:
    """What a backbone would see of a data set alone."""
    channels, size = data.store.images.shape[1:3]
    if data.items == "texts":
        channels, size = 1, data.store.images.shape[3]
    elif data.items == "embeddings":
        channels, size = data.store.images.shape[3] // BYTES, 1
    return Image(channels, size, list(data.mean), list(data.std), data.ink, data.items)


def demand_as_trained(settings: Settings, name: str, own: Image) -> None:
    """Raises UserError where a finished run sees other items than those of the data set `name`, or wider ones."""
    seen = settings.image or own
    if seen.items != own.items:
        raise UserError(f"{name} has {own.items}, and this run sees {seen.items}. Choose another data set.")
    if seen.size != own.size:
        unit = "pixels a side" if own.items == "images" else "characters"
        raise UserError(
            f"{name} has {own.items} of {own.size} {unit}, and this run sees {seen.size}. Type data.size={seen.size}, "
            "or bring them to that size."
        )
    if own.items != "images" and seen.channels != own.channels:
        alike = "those that the same network has made" if own.items == "embeddings" else "another data set"
        numbers = f"{own.channels:,} number{'s' * (own.channels > 1)}"
        raise UserError(f"{name} has {own.items} of {numbers}, and this run sees {seen.channels:,}. Choose {alike}.")


def image_tasks(settings: Settings, data: DataSet, shapes: dict[str, Shape]) -> tuple[ImageTasks, Image]:
    """The episodes of a data set of images, and what the backbone sees of them."""
    own = own_image(data)
    demand_as_trained(settings, data.name, own)
    if found := shape_problems(data, shapes):
        raise UserError("\n".join(found))
    size, image = own.size, settings.image or own
    image = replace(image, class_rows=_row_width(settings, data, image))
    mean, std = tuple(image.mean), tuple(image.std)
    if image.ink != data.ink:  # 1 - pixel takes the place of pixel
        mean, std = tuple(1 - value for value in mean), tuple(-value for value in std)
    scaled = data._replace(mean=mean, std=std)
    augmentation = build(settings.augment) if settings.augment else Augment()
    if data.items != "images" and augmentation != Augment():
        raise UserError(f"augment changes images, and these are {data.items}. Type augment=null.")
    if (augmentation.padding or 0) > size:
        raise UserError(
            f"augment.padding={augmentation.padding}: images have {size} pixels a side. Type less, such as 8."
        )
    changes = None if augmentation == Augment() else augmentation
    pseudo = build(settings.pseudo) if settings.pseudo else None
    copies = None if isinstance(pseudo, Clusters) else pseudo
    tasks = ImageTasks(scaled, shapes, image.channels, changes, settings.labels, copies)
    return tasks, image


def _row_width(settings: Settings, data: DataSet, image: Image) -> int:
    """Numbers of a class row, where the method reads these; else 0. Raises UserError where it cannot have them."""
    if not class_of(settings.algo, Algorithm).reads_class_rows:
        return 0
    if data.class_rows is None:
        raise UserError(
            f"algo={settings.algo_name} reads class rows, such as attributes or the embeddings of names, and "
            f"{data.name} has none. Type data=embeddings data.root=FILE.npz with the arrays class_rows (classes, k) "
            "and class_names, or data.class_rows=FILE."
        )
    width: int = data.class_rows.shape[1]
    if image.class_rows not in (0, width):
        raise UserError(
            f"{data.name} has class rows of {width:,} numbers, and this run reads {image.class_rows:,}. Choose those "
            "that were made alike."
        )
    return width
