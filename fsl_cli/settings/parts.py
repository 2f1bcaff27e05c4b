"""A part of a configuration, and what fsl asks of it before it is built, typed: where a data set lies, say.

A part is open: whatever class of the user's `_target_` names may stand there, so a part has values by name and no
attributes. The names that fsl itself knows stand here and nowhere else, as fields of a dataclass for each part. mypy
checks who reads them, and a test checks that each is a parameter of something that conf/ offers.
What is built already is asked itself: the attributes of Algorithm, Backbone and DataSet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

from fsl_cli.settings.values import fits


@dataclass(frozen=True)
class Part:
    """One part of a configuration: the Python that makes it, and the values that it is called with."""

    target: str  # full path of a class or function
    values: Mapping[str, Any]

    def get(self, name: str, usual: Any = None) -> Any:
        """A value, or the usual one where the part has none of this name."""
        return self.values.get(name, usual)

    def having(self, **values: Any) -> Part:
        """The same part with other values."""
        return Part(self.target, {**self.values, **values})

    def plain(self) -> dict[str, Any]:
        """The part as a YAML writes it."""
        return {"_target_": self.target, **self.values}


@dataclass(frozen=True)
class OfData:
    """Of a data set; of one of the user's own, its place, its columns, and how it is divided."""

    of: str | None = None  # the data set of whose items it makes other tasks
    root: str | None = None
    cache: str | None = None
    labels: str | None = None
    class_rows: str | None = None
    name: str | None = None
    download: bool | None = None
    size: int | None = None
    channels: int | None = None
    file_column: str | None = None
    label_column: str | None = None
    on_error: str | None = None
    on_small: str | None = None
    unsorted: bool = False
    val_fraction: float | None = None
    test_fraction: float | None = None
    split_seed: int = 0


@dataclass(frozen=True)
class OfBackbone:
    """Of a network: which one of a library's, or of which file, and the pixels that it brings images to."""

    name: str | None = None
    file: str | None = None
    weights: str | None = None
    resize: int | None = None
    norm: str | None = None


@dataclass(frozen=True)
class OfAlgorithm:
    """Of a method: what its logits or its inner steps are multiplied by."""

    scale: float | None = None
    inner_lr: float | None = None


@dataclass(frozen=True)
class OfOptimizer:
    lr: float | None = None


@dataclass(frozen=True)
class OfTrainer:
    """Of the machine."""

    precision: str | None = None
    devices: int = 1
    num_nodes: int = 1


@dataclass(frozen=True)
class OfTracker:
    tracking_uri: str | None = None


OF = {
    "data": OfData,
    "backbone": OfBackbone,
    "algo": OfAlgorithm,
    "optim": OfOptimizer,
    "trainer": OfTrainer,
    "logger": OfTracker,
}
View = TypeVar("View", OfData, OfBackbone, OfAlgorithm, OfOptimizer, OfTrainer, OfTracker)


def asked(part: Part, of: type[View]) -> View:
    """What a part says of the fields of `of`.

    A field is as if it were not there where the part has no such value, or one of another kind: a class of the user's
    may mean something else by the same name.
    """
    kinds, values = get_type_hints(of), part.values
    return of(
        **{f.name: values[f.name] for f in fields(of) if f.name in values and fits(values[f.name], kinds[f.name])}
    )


def sets_of(data: Part) -> dict[str, Part]:
    """Several data sets, each by what it is called; nothing where there is one."""
    nodes = {name: node for name, node in data.values.items() if isinstance(node, dict) and "_target_" in node}
    return {
        name: Part(node["_target_"], {key: value for key, value in node.items() if key != "_target_"})
        for name, node in nodes.items()
    }


def on_each_set(data: Part, change: Callable[[Part], Part]) -> Part:
    """A data set, or each of several, changed."""
    sets = sets_of(data)
    return (
        data.having(**{name: on_each_set(own, change).plain() for name, own in sets.items()}) if sets else change(data)
    )


def offline(data: Part) -> Part:
    """A data set that is not fetched where it is not here."""
    return on_each_set(data, lambda own: _changed(own, {"download": False}))


def all_for_the_test(data: Part) -> Part:
    """A data set of the user's own with all its classes in the test split, where it is to be divided at all."""
    return on_each_set(data, lambda own: _changed(own, {"val_fraction": 0.0, "test_fraction": 1.0}))


def maybe_unsorted(data: Part) -> Part:
    """A data set of the user's own that may be a folder of pictures without labels."""
    return on_each_set(data, lambda own: _changed(own, {"unsorted": True}))


def of_size(data: Part, size: int) -> Part:
    """A data set with images brought to this size, where it has a setting for it."""
    return on_each_set(data, lambda own: _changed(own, {"size": size}))


def with_norm(backbone: Part, norm: str) -> Part:
    """A backbone normalised so, where it has a setting for it."""
    return _changed(backbone, {"norm": norm})


def without_first_weights(backbone: Part) -> Part:
    """A backbone that begins with random weights."""
    return _changed(backbone, {"weights": None, "pretrained": False, "tag": None})


def with_absolute_paths(part: Part, absolute: Callable[[str], str]) -> Part:
    """A data set, a backbone or pseudo-classes whose files are named such that they are the same from any folder."""
    names = ("root", "labels", "class_rows", "weights", "file", "run")
    return on_each_set(
        part, lambda own: own.having(**{name: absolute(path) for name in names if (path := own.values.get(name))})
    )


def shortened(schedule: Part, share: float) -> Part:
    """A schedule of the outer learning rate whose meta-iterations all come earlier."""
    found: dict[str, Any] = {}
    for key in ("steps", "every"):
        if isinstance(value := schedule.values.get(key), int):
            found[key] = max(1, round(value * share))
    if table := schedule.values.get("table"):
        found["table"] = {round(int(start) * share): factor for start, factor in table.items()}
    return schedule.having(**found)


def _changed(part: Part, values: Mapping[str, Any]) -> Part:
    """The part with these values in place of those that it has by the same names."""
    return part.having(**{name: value for name, value in values.items() if name in part.values})
