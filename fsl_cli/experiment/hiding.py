"""pseudo=…: a data set without the labels that training would see."""

from __future__ import annotations

from functools import partial

from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.mode import ALONE
from fsl_cli.data.clusters import Clusters
from fsl_cli.data.curves import Curves
from fsl_cli.data.pseudo import hidden
from fsl_cli.data.sampler import Shape
from fsl_cli.data.store import DataSet, PseudoClasses, cache_folder
from fsl_cli.data.tasks import ImageTasks
from fsl_cli.errors import UserError
from fsl_cli.experiment.clusters import clustered, in_order
from fsl_cli.experiment.method import trained
from fsl_cli.experiment.seen import image_tasks
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import build
from fsl_cli.settings.schema import Settings


def without_labels(settings: Settings, data: DataSet | Curves, shapes: dict[str, Shape]) -> DataSet:
    """The data set without labels where training would see them. Raises UserError where it has no images."""
    assert settings.pseudo
    pseudo = build(settings.pseudo)
    what = data.items if isinstance(data, DataSet) else "curves"
    possible = ("images", "embeddings") if isinstance(pseudo, Clusters) else ("images",)
    if not isinstance(data, DataSet) or what not in possible:
        makes = "clusters" if isinstance(pseudo, Clusters) else "copies"
        raise UserError(
            f"pseudo={settings.pseudo_name} makes {makes} of {' or '.join(possible)}, and {data.name} has {what}. "
            "Leave it out."
        )
    if settings.train_shot == "metadataset":
        raise UserError(
            f"train_shot=metadataset shares out the images of classes, which pseudo={settings.pseudo_name} hides. Type "
            "train_shot=1."
        )
    if settings.train_unlabelled or settings.labelled_share < 1:
        raise UserError(
            f"pseudo={settings.pseudo_name} hides the labels of all training images. Type train_unlabelled=0 "
            "labelled_share=1."
        )
    classes = partial(_clusters, settings, pseudo) if isinstance(pseudo, Clusters) else pseudo.classes
    return hidden(data, classes, shapes)


def _clusters(settings: Settings, pseudo: Clusters, data: DataSet, part: str, shape: Shape) -> PseudoClasses:
    """Clusters of a split as classes. Raises UserError where a run cannot give the features."""
    data, backbone = in_order(data, part), None
    tasks = ImageTasks(data, {}, data.store.images.shape[1])
    if pseudo.autoencoder and (pseudo.run or data.items != "images"):
        why = f"pseudo.run={pseudo.run} has features of its own" if pseudo.run else f"it takes images, not {data.items}"
        raise UserError(f"pseudo.autoencoder={pseudo.autoencoder}: {why}. Leave one of them out.")
    if pseudo.run:
        run = Run(pseudo.run)
        _demand_unlabelled(run, data)
        backbone = next((m for m in trained(run, settings.trust).modules() if isinstance(m, Backbone)), None)
        tasks, image = image_tasks(run.settings, data, {})
        if backbone is None or backbone.norm not in ALONE:
            raise UserError(
                f"pseudo.run={run}: what it makes of an image depends on those beside it. Choose a run with "
                f"{' or '.join(f'norm={each}' for each in ALONE)}."
            )
        if data.items == "images" and data.store.images.shape[2] != image.size:
            raise UserError(
                f"pseudo.run={run}: it sees images of {image.size} pixels, and {data.name} has "
                f"{data.store.images.shape[2]}. Choose a run of {data.name}."
            )
    return clustered(pseudo, tasks, part, shape, backbone, cache_folder(settings.data_cache))


def _demand_unlabelled(run: Run, data: DataSet) -> None:
    """Raises UserError where a run was trained with the labels that are to be hidden."""
    if run.settings.pseudo or not run.settings.steps or data.unsorted:
        return
    known = set(run.classes.get("train", {}).values())
    seen = [name for name, digest in data.fingerprints("train").items() if digest in known]
    if seen:
        raise UserError(
            f"pseudo.run={run}: it was trained with the labels of {len(seen)} of these training classes, such as "
            f"{seen[0]}, so nothing would be hidden. Choose a run with pseudo=prototransfer, or one of other data."
        )
