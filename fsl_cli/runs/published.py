"""What papers report for a task, from the table that ships with fsl."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fsl_cli.errors import setting, typed
from fsl_cli.runs.jobs import Dotted
from fsl_cli.runs.records import Result

MARKS = {
    "P": "read in the paper",
    "S": "read in the authors' source",
    "2": "quoted by another paper or the authors' README",
}


class Published(NamedTuple):
    """One published accuracy."""

    method: str
    accuracy: str  # per cent, with its interval where one is given: 98.7 ± 0.4
    source: str
    mark: str  # a key of MARKS
    algo: str | None  # the algorithm of fsl that reproduces it
    when: dict[str, Any]  # settings of a run that it belongs to
    backbone: str | None  # a network of `published.yaml`, or words for one that fsl has not; None: not known
    inference: str | None  # inductive | transductive; None: not known
    split: (
        str | None
    )  # as in result.json, or words for one that fsl has not; None: not known, or the data set's only one
    rotations: str | None  # likewise
    note: str | None
    query: int | str | None  # images a class in the test, or "shot": as many as in the support set; None: not known
    settings: dict[str, Any]  # what a run has to set as it was there
    differs: str | None = None  # in what it was obtained otherwise than the run that it stands beside

    def remarks(self) -> str:
        """Source, how we know, and the protocol as far as it is known, in one line."""
        facts = [f"{self.method}: {self.source} ({MARKS[self.mark]})", self.inference, self.backbone, self.note]
        return ", ".join(fact for fact in facts if fact) + (f"; not as here: {self.differs}" if self.differs else "")


def published(result: Result) -> list[Published]:
    """What papers report for a result's data set, way and shot; nothing for other training data or splits."""
    if _unlike_papers(result) or not _known_task(result):
        return []
    task = f"{result.way}w{result.shot}s"
    return [
        _of_task(entry, task)
        for entry in _table()["rows"]
        if entry["data"] == result.data and task in entry["accuracy"]
    ]


class PublishedInstances(NamedTuple):
    """A paper's accuracies by instance of a class."""

    method: str
    source: str
    shares: dict[int, float]  # instance, from 1 -> accuracy, 0..1


def published_instances(result: Result) -> list[PublishedInstances]:
    """What papers report of a result's data set and way at the k-th image of a class; k - 1 of it were seen."""
    if _unlike_papers(result):
        return []
    return [
        PublishedInstances(
            entry["method"], entry["source"], {place: value / 100 for place, value in entry["accuracy"].items()}
        )
        for entry in _table()["instances"]
        if (entry["data"], entry["way"]) == (result.data, result.way)
    ]


def reported(method: str, data: str, task: str, network: str | None = None) -> Published:
    """What a method's paper reports for a task such as 5w1s; `network` where it does for several.

    Raises KeyError where the table has no such number, or several.
    """
    found = [
        entry
        for entry in _table()["rows"]
        if (entry["method"], entry["data"]) == (method, data)
        and task in entry["accuracy"]
        and network in (None, entry.get("backbone"))
    ]
    if len(found) != 1:
        raise KeyError(f"published.yaml has {len(found)} numbers of {method} for {data} {task}")
    return _of_task(found[0], task)


def _of_task(entry: dict[str, Any], task: str) -> Published:
    return Published(
        method=entry["method"],
        accuracy=str(entry["accuracy"][task]),
        source=entry["source"],
        mark=entry["mark"],
        algo=entry.get("algo"),
        when=entry.get("when", {}),
        backbone=entry.get("backbone"),
        inference=entry.get("inference"),
        split=entry.get("split"),
        rotations=entry.get("rotations"),
        note=entry.get("note"),
        query=entry.get("query"),
        settings=entry.get("settings", {}),
    )


def _known_task(result: Result) -> bool:
    """Whether papers report it: nothing within one alphabet, on Omniglot's lake or small splits, on turned photos.

    Nor with unlabelled images in the support set, or classes that have different numbers of queries.
    """
    if result.sampling != "uniform" or result.query_balance != "even" or result.unlabelled:
        return False
    return result.split == "vinyals" if result.data == "omniglot" else result.rotations == "none"


def _unlike_papers(result: Result) -> bool:
    """Whether no paper's number can stand beside it: of other training, or of the user's own data set.

    That is in a folder or files, which may have the name of a known one.
    """
    own = result.split.startswith("seeded-") or result.split in ("folders", "csv", "own")
    elsewhere = result.trained_on != result.data or result.pretrained
    return bool(result.metric != "accuracy" or elsewhere or result.finetuned or own)


def beside(result: Result, settings: Dotted) -> Published | None:
    """The published number of a run's own method on its very network, the one nearest to its protocol.

    What else was otherwise there, split, rotations, pixels, whose statistics normalise, queries that normalise each
    other or a setting that counts, stands in its `differs`. None for a run that was trained without labels, with a
    share of them, or on tasks whose labels were fixed.
    """
    if result.hidden_labels or result.labelled_share < 1 or result.memorisation:
        return None
    own = backbone_name(settings, result)

    def fits(entry: Published) -> bool:
        alike = entry.backbone in (None, own) and entry.algo == settings.algo
        return alike and all(settings.get(key) == value for key, value in entry.when.items())

    def nearness(entry: Published) -> tuple[bool, bool, int]:
        return entry.inference == result.inference, entry.backbone == own, len(entry.when)

    found = max(filter(fits, published(result)), key=nearness, default=None)
    return found and found._replace(differs=_differences(found, result, settings) or None)


def _differences(entry: Published, result: Result, settings: Dotted) -> str:
    """What differs, or is not known to be the same, in words."""
    facts = {"inference": entry.inference, "network": entry.backbone}
    if result.data == "omniglot":
        facts |= {"split": entry.split, "rotations": entry.rotations}
    here = {**asdict(result), "network": entry.backbone}
    known = [f"{name} {value} (here {here[name]})" for name, value in facts.items() if value not in (None, here[name])]
    unknown = [name for name, value in facts.items() if value is None]
    query = result.shot if entry.query == "shot" else entry.query
    known += [f"query {typed(query)} (here {result.query})"] if query not in (None, result.query) else []
    size = _table()["networks"].get(entry.backbone, {}).get("size", _table()["sizes"].get(result.data))
    known += [f"size {size} (here {result.image.size})"] if size not in (None, result.image.size) else []
    for name, value in entry.settings.items():
        here_set = settings.get(f"test.{name}", settings.get(name))  # a test's are as they were typed
        known += [setting(name, value)] if typed(here_set) != typed(value) else []
    return ", ".join([*known, *([f"{' and '.join(unknown)} not known"] if unknown else [])])


def backbone_name(settings: Dotted, result: Result | None = None) -> str:
    """A backbone's name as papers write it: Conv4-64, ResNet-12, WRN-28-10; `result` has the size of its images."""
    size = result.image.size if result else settings.size
    for name, needs in _table()["networks"].items():
        if all({**UNLESS_SAID, **settings, "size": size}.get(key) == value for key, value in needs.items()):
            return str(name)
    choice = settings.network or settings.backbone
    filters = settings.filters
    widths = filters if isinstance(filters, list) else [] if filters is None else [filters]
    alike = [needs for needs in _table()["networks"].values() if needs["backbone"] == settings.backbone]
    usual: dict[str, Any] = alike[0] if alike else {}
    told = [
        setting(key.removeprefix("backbone."), settings[key])
        for key, value in usual.items()
        if key not in ("backbone", "backbone.filters") and settings.get(key, value) != value
    ]
    return " ".join(["-".join([choice.replace("conv4", "Conv4"), *map(str, dict.fromkeys(widths))]), *told])


# what a run does not say, because it is of a time when there was no such setting
UNLESS_SAID = {
    "backbone.halve": "pool",
    "backbone.halvings": 4,
    "backbone.maximum": False,
    "backbone.slope": 0.0,
    "backbone.unpadded": 0,
}


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
