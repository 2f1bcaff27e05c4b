"""The clusters that are classes of training without labels (CACTUs): of a network's features, or of pixels; and kept.

A file is named by all that they depend on: weights, images and their order, scaling, how many clusters.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fsl_cli.backbones.base import Backbone
from fsl_cli.data.clusters import Clusters
from fsl_cli.data.feasible import needed
from fsl_cli.data.pseudo import unlabelled
from fsl_cli.data.sampler import Numbers, Shape
from fsl_cli.data.store import DataSet, PseudoClasses
from fsl_cli.data.tasks import ImageTasks
from fsl_cli.experiment.autoencoder import autoencoder
from fsl_cli.experiment.features import in_pieces, weights_digest
from fsl_cli.files import replacing

PIECE = 256  # images at a time


def in_order(data: DataSet, part: str) -> DataSet:
    """The data set with all images of a split in the order of their bytes, some at a time in the place of a class."""
    items = unlabelled(data, part)
    starts = np.unique(np.append(np.arange(0, len(items), PIECE), len(items)))
    split = data.splits[part]._replace(pseudo=PseudoClasses(items, starts))
    return data._replace(splits={**data.splits, part: split})


def clustered(
    pseudo: Clusters, tasks: ImageTasks, part: str, shape: Shape, backbone: Backbone | None, cache: Path
) -> PseudoClasses:
    """Clusters of what `backbone` makes of the images of `tasks`, whose data are `in_order`.

    None: of the codes of an auto-encoder, where that is chosen, or of pixels.
    """
    found = tasks.data.splits[part].pseudo
    assert found
    need = needed(shape)
    path = cache / "clusters" / f"{tasks.data.name}-{part}-{_key(pseudo, tasks, part, need, backbone)}.npy"
    with suppress(OSError, ValueError):
        return pseudo.classes(found.items, np.load(path), need)
    divisions = _divisions(pseudo, tasks, part, need, backbone)
    with suppress(OSError):  # a full disk only costs the time to make them again
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, divisions)
    return pseudo.classes(found.items, divisions, need)


@torch.no_grad()
def _divisions(pseudo: Clusters, tasks: ImageTasks, part: str, need: int, backbone: Backbone | None) -> Numbers:
    device = torch.device("cuda" if backbone and torch.cuda.is_available() else "cpu")
    network: Any = backbone.to(device).eval() if backbone else None
    pieces = tasks.images(part, device, torch.float32)
    if pseudo.autoencoder:
        images = torch.cat(list(pieces))
        coded = autoencoder(images, pseudo.autoencoder)
        features = torch.cat([coded(x) for x in images.split(PIECE)]).numpy()
    else:
        features = torch.cat([in_pieces(network, x) if network else x.flatten(1) for x in pieces]).float().cpu().numpy()
    several = f", {pseudo.partitions} times" if pseudo.partitions > 1 else ""
    print(f"Dividing {len(features):,} {tasks.data.items} of {part} into clusters{several}.", flush=True)
    return pseudo.divisions(features, need)


def _key(pseudo: Clusters, tasks: ImageTasks, part: str, need: int, backbone: Backbone | None) -> str:
    data, found = tasks.data, tasks.data.splits[part].pseudo
    assert found
    items = hashlib.blake2b(found.items.tobytes(), digest_size=8).hexdigest()
    about = [data.hash, items, data.mean, data.std, tasks.channels, pseudo.clusters, pseudo.partitions, need]
    about += [backbone.norm if backbone else "", *([pseudo.autoencoder] if pseudo.autoencoder else [])]
    return weights_digest(backbone or nn.Identity(), json.dumps(about))
