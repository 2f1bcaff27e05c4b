"""What learners that read a task as a sequence share: labels as inputs, orders, and the lengths that they take."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms import by_class
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.errors import UserError

Counts = int | list[int]  # a number, or the range [least, most] that it is drawn from


def code(y: Tensor, width: int) -> Tensor:
    """Labels as numbers: one-hot (T, n, width); in regression the targets themselves."""
    return y if y.is_floating_point() else F.one_hot(y, width).float().to(y.device)


def demand_no_set(backbone: Backbone) -> None:
    """Raises UserError for a norm that takes its statistics from a set: a sequence shows its images one by one."""
    if backbone.norm in ("support", "transductive"):
        raise UserError(
            f"norm={backbone.norm} takes statistics of a whole set, and this method reads image by image. Type "
            "norm=running, norm=group or norm=none."
        )


def demand_way(support: Examples, way: int) -> None:
    """Raises UserError when the number of classes is not the one that the labels are read with."""
    if support.y.is_floating_point():
        return
    found = by_class.way(support)
    if found != way:
        raise UserError(
            f"This model reads labels of {way} classes, and the episodes have {found}. "
            f"{by_class.way_advice(way, found)}"
        )


def lengths(way: int, shot: Counts) -> range:
    """The lengths of support sets of so many classes."""
    least, most = (shot, shot) if isinstance(shot, int) else (shot[0], shot[1])
    return range(way * least, way * most + 1)


def demand_length(support: Examples, known: range) -> None:
    """Raises UserError when the support set is not as long as those that the model was trained on."""
    found, way = support.x.shape[1], by_class.way(support)
    if found not in known:
        ends = [known[0]] if len(known) == 1 else [known[0], known[-1]]
        shots = " to ".join(str(end // way) for end in ends)
        raise UserError(
            f"This model was trained on support sets of {' to '.join(map(str, ends))} examples, and this one has "
            f"{found}. Type a shot of {shots} (fsl predict: {shots} of each class), or train it with more, such as "
            "train_shot=[1,5]."
        )


def shuffled(episodes: Episodes) -> Examples:
    """Support and query set of each episode as one sequence, in a random order that its index alone decides."""
    both = Examples(*(torch.cat(parts, 1) for parts in zip(episodes.support, episodes.query, strict=True)))
    orders = [np.random.default_rng(index).permutation(both.x.shape[1]) for index in episodes.index.tolist()]
    return both.in_order(torch.from_numpy(np.stack(orders)).to(both.x.device))
