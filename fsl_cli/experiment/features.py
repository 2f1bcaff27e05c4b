"""A fixed backbone looks at each image of a split once; its features are kept, also on disk, and make up the episodes.

A file is named by all that the features depend on: the backbone's weights, the images, the classes and turns of the
split, how pixels are scaled, and the precision. Of the files in the cache the oldest go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.mode import ALONE
from fsl_cli.data.sampler import smallest
from fsl_cli.data.several import SeveralTasks
from fsl_cli.data.tasks import ImageTasks
from fsl_cli.experiment.datamodule import SAMPLE, Episodic
from fsl_cli.experiment.learner import Learner
from fsl_cli.files import replacing

KEPT = 20  # files in the cache
AT_ONCE = 64  # images through the network: 600 of 224 pixels would take 15 GB


def possible(learner: Learner) -> bool:
    """Whether the algorithm only asks for features, which each image has by itself in evaluation.

    Not where pixels are attacked, or the backbone is fine-tuned.
    """
    changes = learner.attack or learner.finetuning
    return not changes and learner.algorithm.takes_features and _backbone(learner).norm in ALONE


def backbone_is_frozen(learner: Learner) -> bool:
    """Whether training leaves the backbone as it is."""
    return not any(parameter.requires_grad for parameter in _backbone(learner).parameters())


def augmented(episodes: Episodic) -> bool:
    """Whether training images are never the same twice."""
    tasks = episodes.tasks
    return isinstance(tasks, ImageTasks) and (tasks.augmentation is not None or tasks.copies is not None)


def train_on_them(learner: Learner, episodes: Episodic) -> bool:
    """Whether training and its validations need no more than the features of each image, computed once."""
    one = not isinstance(episodes.tasks, SeveralTasks)
    return one and possible(learner) and backbone_is_frozen(learner) and not augmented(episodes)


def worth_it(episodes: Episodic, part: str, count: int | None = None) -> bool:
    """Whether `count` episodes, by default those of an evaluation, or of training that a method takes in, have more
    images than there are."""
    if not isinstance(episodes.tasks, ImageTasks):
        return False
    sampler, count = episodes.tasks.samplers[part], count or (SAMPLE if part == "train" else episodes.episodes[part])
    each = smallest(sampler.way) * (smallest(sampler.shot) + (1 if sampler.query == "all" else sampler.query))
    return bool(count * each > sampler.sizes.sum())


def _takes_all(learner: Learner) -> bool:
    """Whether the method takes in each training image."""
    return type(learner.algorithm).prepare_classes is not Algorithm.prepare_classes


def _copied(episodes: Episodic, part: str) -> bool:
    """Whether the episodes of a split take changed copies, which are never the same twice."""
    tasks = episodes.tasks
    pseudo = tasks.data.splits[part].pseudo if isinstance(tasks, ImageTasks) else None
    return bool(pseudo and pseudo.copies)


@contextmanager
def features_where_worth_it(
    learner: Learner, episodes: Episodic, parts: Sequence[str], trainer: lightning.Trainer, cache: Path
) -> Iterator[None]:
    """While inside, `features_for_images` for those of these splits where that is possible and worth it."""
    there = [part for part in parts if isinstance(episodes.tasks, ImageTasks) and part in episodes.tasks.samplers]
    chosen = [part for part in there if worth_it(episodes, part) and not _copied(episodes, part)]
    chosen += [part for part in there if part == "train" and _takes_all(learner) and part not in chosen]
    if possible(learner) and chosen:
        with features_for_images(learner, episodes, chosen, trainer, cache):
            yield
    else:
        yield


@contextmanager
def features_for_images(
    learner: Learner, episodes: Episodic, parts: Iterable[str], trainer: lightning.Trainer, cache: Path
) -> Iterator[None]:
    """While inside, the episodes of these splits consist of features (T, n, d), and the backbone hands them on."""
    tasks, backbone = episodes.tasks, _backbone(learner)
    assert isinstance(tasks, ImageTasks)
    learner.to(trainer.strategy.root_device)
    try:
        tasks.features = {part: _features(backbone, tasks, part, trainer, cache / "features") for part in parts}
        backbone.precomputed = True
        yield
    finally:
        backbone.precomputed = False
        tasks.features = {}


def left_to_compute(learner: Learner, tasks: ImageTasks, part: str, trainer: lightning.Trainer, cache: Path) -> int:
    """Images of a split whose features are not in the cache."""
    kept = _path(_backbone(learner), tasks, part, trainer, cache / "features").exists()
    return 0 if kept else int(tasks.samplers[part].sizes.sum())


def _path(backbone: Backbone, tasks: ImageTasks, part: str, trainer: lightning.Trainer, folder: Path) -> Path:
    return folder / f"{tasks.data.name}-{part}-{_key(backbone, tasks, part, str(trainer.precision))}.npy"


def _backbone(learner: Learner) -> Backbone:
    backbone = learner.algorithm.backbone
    assert isinstance(backbone, Backbone)
    return backbone


def _features(backbone: Backbone, tasks: ImageTasks, part: str, trainer: lightning.Trainer, folder: Path) -> Tensor:
    """Features of all images of a split, (N, d) on the trainer's device, from the cache or computed now."""
    device = trainer.strategy.root_device
    if not any(True for _ in backbone.parameters()):  # as fast as reading what was kept
        return torch.cat([backbone(items.unsqueeze(0)).squeeze(0) for items in tasks.images(part, device)])
    path = _path(backbone, tasks, part, trainer, folder)
    with suppress(OSError, ValueError):
        found = torch.from_numpy(np.load(path)).to(device)
        path.touch()
        return found
    training = backbone.training
    backbone.eval()
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        dtype = next((weight.dtype for weight in backbone.parameters()), torch.get_default_dtype())
        chunks = [in_pieces(backbone, images).to(dtype) for images in tasks.images(part, device, dtype)]
    backbone.train(training)
    found = torch.cat(chunks)
    with suppress(OSError):  # a full disk only costs the time to compute them again
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, found.cpu().numpy())
        for old in sorted(folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return found


def in_pieces(backbone: Backbone, items: Tensor) -> Tensor:
    """Features (n, d) of items (n, *item), so many at once that memory does not grow with a class's items."""
    return torch.cat([backbone(piece.unsqueeze(0)).squeeze(0) for piece in items.split(AT_ONCE)])


def _key(backbone: Backbone, tasks: ImageTasks, part: str, precision: str) -> str:
    data, split = tasks.data, tasks.data.splits[part]
    about = [
        data.hash,
        split.classes.tolist(),
        split.turns,
        data.mean,
        data.std,
        tasks.channels,
        backbone.norm,
        precision,
    ]
    if split.pseudo:
        made = split.pseudo.items.tobytes() + split.pseudo.starts.tobytes()
        about.append(hashlib.blake2b(made, digest_size=8).hexdigest())
    return weights_digest(backbone, json.dumps(about))


def weights_digest(backbone: nn.Module, about: str) -> str:
    """A hash of a network, its weights, and the text `about`."""
    digest = hashlib.blake2b(f"{backbone}{about}".encode(), digest_size=8)
    for name, value in backbone.state_dict().items():
        digest.update(f"{name}{value.dtype}".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
