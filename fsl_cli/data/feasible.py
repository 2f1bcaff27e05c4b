"""Can a data set give such episodes? If not: why, and what to type. Classes that are too small may be left out."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import numpy as np

from fsl_cli.data.left_out import first_five
from fsl_cli.data.sampler import Numbers, Shape, largest, room_of, smallest
from fsl_cli.data.store import DataSet, split_hash

Shapes = Mapping[str, Shape]  # of each split


def shape_problems(data: DataSet, shapes: Shapes) -> list[str]:
    """Why these splits cannot give episodes of these shapes; empty when they can. Each advice is one that works."""
    problems = []
    for part, shape in shapes.items():
        if smallest(shape.way) < 2:
            problems.append(
                f"{_prefix(part)}way={shape.way}: with fewer than 2 classes there is nothing to tell apart."
            )
        if shape.query_balance == "dirichlet" and shape.query == "all":
            problems.append("query=all leaves no queries to choose from: type query=15, or query_balance=even.")
        problems += _against_the_law(part, shape)
        problems += _too_few(data, part, shapes) or _without_labels(data, part, shape)
        problems += _too_small(data, part, shapes) or _too_many(data, part, shape)
    return list(dict.fromkeys(problems))


def without_small(data: DataSet, shapes: Shapes) -> DataSet:
    """The data set with `on_small="skip"`: without the classes that have too few images for these episodes, as told."""
    if data.on_small != "skip":
        return data
    splits, lines = dict(data.splits), []
    for part, shape in shapes.items():
        split, counts = data.splits[part], np.diff(data.store.starts)[data.splits[part].classes]
        if split.pseudo:
            continue
        good = room(counts, shape) >= needed(shape)
        small = [f"{data.store.names[c]} ({n})" for c, n in zip(split.classes[~good], counts[~good], strict=True)]
        if small and good.sum() * split.turns >= largest(shape.way):  # else the shape is what does not fit
            what = "pictures" if data.items == "images" else data.items
            lines.append(f"classes of {part} with fewer than {needed(shape)} {what}: {first_five(small)}")
            groups = None if split.groups is None else split.groups[good]
            splits[part] = split._replace(classes=split.classes[good], groups=groups)
    for line in lines:
        print(f"Left out: {line}.")
    lists = {part: [data.store.names[c] for c in split.classes] for part, split in splits.items()}
    protocol = {**data.protocol, "split_hash": split_hash(lists)} if lines else data.protocol
    return data._replace(splits=splits, protocol=protocol, left_out=[*data.left_out, *lines])


def needed(shape: Shape) -> int:
    """How many images of each class an episode takes at least."""
    if shape.shot == "metadataset":
        return 2  # queries are half of the smallest class at most
    return smallest(shape.shot) + (1 if shape.query == "all" else shape.query)


def room(sizes: Numbers, shape: Shape) -> Numbers:
    """How many images of each class may be support and queries."""
    found = [room_of(size, shape.unlabelled, shape.labelled_share) for size in sizes.tolist()]
    return np.array(found, dtype=np.int64)


def sizes_of(data: DataSet, part: str) -> Numbers:
    """Images of each class of the split, turned classes counted on their own."""
    split = data.splits[part]
    if split.pseudo:
        return split.pseudo.sizes
    return np.repeat(np.diff(data.store.starts)[split.classes], split.turns)


def groups_of(data: DataSet, part: str) -> list[Numbers] | None:
    """The classes of each group, those turned alike on their own: an alphabet lies on its side as a whole."""
    split = data.splits[part]
    if split.pseudo:
        return split.pseudo.groups
    if split.groups is None:
        return None
    classes = [np.flatnonzero(split.groups == number) for number in np.unique(split.groups)]
    return [own * split.turns + turn for own in classes for turn in range(split.turns)]


def _prefix(part: str) -> str:
    """The prefix of the settings that give an episode's shape."""
    return "train_" if part == "train" else ""


def _alike(shapes: Shapes, part: str) -> list[str]:
    """The splits whose episodes the same settings shape."""
    return [each for each in shapes if _prefix(each) == _prefix(part)]


def _most(data: DataSet, part: str) -> int:
    """The classes that an episode of a split may have."""
    groups = groups_of(data, part)
    return len(sizes_of(data, part)) if groups is None else max((len(group) for group in groups), default=0)


def _against_the_law(part: str, shape: Shape) -> list[str]:
    """What does not go with shots by the law of Meta-Dataset."""
    prefix = _prefix(part)
    if shape.shot != "metadataset":
        return []
    problems = []
    if isinstance(shape.way, int):
        problems.append(
            f"{prefix}shot=metadataset draws ways too, and {prefix}way={shape.way} is one number. Type "
            f"{prefix}way=[5,50] as Meta-Dataset does, or [{shape.way},{shape.way}]."
        )
    if shape.query == "all":
        problems.append(f"{prefix}query=all leaves nothing to share out: type {prefix}query=10, as Meta-Dataset does.")
    return problems


def _too_few(data: DataSet, part: str, shapes: Shapes) -> list[str]:
    """Fewer classes than ways."""
    way, most, prefix = largest(shapes[part].way), _most(data, part), _prefix(part)
    if shapes[part].shot == "metadataset":
        way = smallest(shapes[part].way)
    if way <= most:
        return []
    grouped = groups_of(data, part) is not None
    where = f"no group of classes has more than {most}" if grouped else f"the {part} split of {data.name} has {most}"
    least = min(_most(data, each) for each in _alike(shapes, part))
    split = data.splits[part]
    advice = (
        f"Try {prefix}way={least}."
        if least > 1
        else f"The clusters are too small: type less than {prefix}query={shapes[part].query}, or fewer pseudo.clusters."
        if split.pseudo and not split.pseudo.copies
        else "Each split needs 2 classes or more. To tell a few classes apart nothing is trained: type fsl predict "
        "run=RUN support=FOLDER query=FOLDER with a run of another data set."
    )
    return [f"{prefix}way={shapes[part].way} needs {way} classes; {where}. {advice}"]


def _too_small(data: DataSet, part: str, shapes: Shapes) -> list[str]:
    """Classes with fewer images than support and queries."""
    shape, split, prefix = shapes[part], data.splits[part], _prefix(part)
    sizes, need = room(sizes_of(data, part), shape), needed(shape)
    if not len(sizes) or sizes.min() >= need:
        return []
    short = int(np.argmin(sizes))
    name, least = data.store.names[split.classes[short // split.turns]], int(sizes[short])
    advice = _advice(data, part, shapes)
    if shape.unlabelled and shape.labelled_share == 1 and least + shape.unlabelled >= need:
        advice = [f"Try {prefix}unlabelled={least + shape.unlabelled - need}", *advice]
    size = int(sizes_of(data, part)[short])
    if shape.labelled_share < 1 and size >= need:
        advice = [f"Try labelled_share={ceil(100 * need / size) / 100:g}", *advice]
    advice = [*advice[:1], *(each[0].lower() + each[1:] for each in advice[1:])]
    text = "; or ".join(advice) or f"Each class needs 2 {data.items} or more: give it more, or remove it"
    has = f"has {least}"
    if shape.labelled_share < 1:
        has += f" with labels (labelled_share={shape.labelled_share:g})"
    elif shape.unlabelled:
        has += f" beside those without labels ({prefix}unlabelled={shape.unlabelled})"
    return [
        f"{prefix}shot={shape.shot} and {prefix}query={shape.query} need {need} {data.items} of each class; {name} in "
        f"the {part} split of {data.name} {has}. {text}."
    ]


def _without_labels(data: DataSet, part: str, shape: Shape) -> list[str]:
    """Too few images, or classes, of those that an episode takes without labels."""
    sizes, prefix, problems = sizes_of(data, part), _prefix(part), []
    if shape.distractors and not shape.unlabelled:
        problems.append(f"distractors={shape.distractors}: they have as many images without labels as each class has, "
                        f"and {prefix}unlabelled=0. Type {prefix}unlabelled=5, or distractors=0.")  # fmt: skip
    if not shape.unlabelled or not len(sizes):
        return problems
    if shape.query == "all":
        problems.append(f"{prefix}query=all leaves no images without labels: type {prefix}query=15.")
    free = len(sizes) - largest(shape.way)
    if shape.distractors > free:
        problems.append(
            f"distractors={shape.distractors} needs as many classes besides the {shape.way} of an episode; the {part} "
            f"split of {data.name} has {free}. Try distractors={free}."
        )
    spare = int((sizes - room(sizes, shape)).min())
    if shape.labelled_share < 1 and shape.unlabelled > spare:
        problems.append(
            f"labelled_share={shape.labelled_share:g} leaves {spare} of the {data.items} of a class in the {part} "
            f"split of {data.name} without labels. Try {prefix}unlabelled={spare}."
        )
    return problems


def _too_many(data: DataSet, part: str, shape: Shape) -> list[str]:
    """A range of shots whose upper end no class reaches: what would be drawn is not what was asked for."""
    sizes, most = room(sizes_of(data, part), shape), largest(shape.shot)
    queries = needed(shape) - smallest(shape.shot)
    if isinstance(shape.shot, int | str) or not len(sizes) or most + queries <= sizes.max():
        return []
    there, able = int(sizes.max()), int(sizes.max()) - queries
    prefix = _prefix(part)
    return [
        f"{prefix}shot={shape.shot} and {prefix}query={shape.query} need up to {most + queries} {data.items} of a "
        f"class; the largest in the {part} split of {data.name} has {there}. "
        f"Try {prefix}shot=[{smallest(shape.shot)},{able}]."
    ]


def _advice(data: DataSet, part: str, shapes: Shapes) -> list[str]:
    """What to type where classes of a split are too small, and those of the splits that the same settings shape."""
    shape, prefix, alike = shapes[part], _prefix(part), _alike(shapes, part)
    shot, way, need = smallest(shape.shot), largest(shape.way), needed(shape)
    each = [room(sizes_of(data, name), shape) for name in alike]
    every = np.concatenate(each)
    able = every[every > shot]  # with fewer queries
    counts = (np.diff(data.store.starts)[data.splits[name].classes] for name in alike)
    small = sum(int((room(own, shape) < need).sum()) for own in counts)
    leave = f"data.on_small=skip to leave out the {small} class{'es' * (small > 1)} with fewer"
    may_skip = data.on_small == "stop"
    skipping = may_skip and all((sizes >= need).sum() >= way for sizes in each)
    if len(able) == len(every):
        return [f"Try {prefix}query={able.min() - shot}", *([f"type {leave}"] if skipping else [])]
    if skipping:
        return [f"Type {leave}"]
    single = every.min() < 2 and all((sizes > 1).any() for sizes in each)  # these go before the others are divided anew
    if may_skip and len(able) and (single or all((sizes > shot).sum() >= way for sizes in each)):
        return [f"Type {leave}" if able.min() >= need else f"Type {prefix}query={able.min() - shot} data.on_small=skip"]
    return [f"Try {prefix}shot={every.min() - 1} {prefix}query=1"] if every.min() > 1 else []
