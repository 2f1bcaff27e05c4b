"""What papers report for a task, from the table that ships with fsl."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

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
    backbone: str | None
    inference: str | None  # inductive | transductive; None: not known
    note: str | None

    def remarks(self) -> str:
        """Source, how we know, and the protocol as far as it is known, in one line."""
        facts = [f"{self.method}: {self.source} ({MARKS[self.mark]})", self.inference, self.backbone, self.note]
        return ", ".join(fact for fact in facts if fact)


def published(result: dict[str, Any]) -> list[Published]:
    """What papers report for a result's data set, way and shot; nothing where it was trained on other data."""
    if result["metric"] != "accuracy" or result["trained_on"] != result["data"]:
        return []
    task = f"{result['way']}w{result['shot']}s"
    return [
        Published(
            method=entry["method"],
            accuracy=str(entry["accuracy"][task]),
            source=entry["source"],
            mark=entry["mark"],
            algo=entry.get("algo"),
            when=entry.get("when", {}),
            backbone=entry.get("backbone"),
            inference=entry.get("inference"),
            note=entry.get("note"),
        )
        for entry in _table()
        if entry["data"] == result["data"] and task in entry["accuracy"]
    ]


def beside(result: dict[str, Any], settings: dict[str, Any]) -> Published | None:
    """The published number of a run's own method on its kind of backbone, the one nearest to its protocol."""
    own = backbone_name(settings)

    def fits(entry: Published) -> bool:
        alike = entry.backbone is None or entry.backbone == own or _conv4(entry.backbone) and _conv4(own)
        return entry.algo == settings["algo"] and alike and all(settings.get(k) == v for k, v in entry.when.items())

    def nearness(entry: Published) -> tuple[bool, bool, int]:
        return entry.inference == result["inference"], entry.backbone == own, len(entry.when)

    return max(filter(fits, published(result)), key=nearness, default=None)


def backbone_name(settings: dict[str, Any]) -> str:
    """As papers write it: Conv4-64, ResNet-12, WRN-28-10."""
    name = settings.get("backbone.name") or settings["backbone"]
    filters = settings.get("backbone.filters")
    if filters is not None:
        widths = filters if isinstance(filters, list) else [filters]
        return "-".join([name.replace("conv4", "Conv4"), *map(str, dict.fromkeys(widths))])
    return {"resnet12": "ResNet-12", "resnet18": "ResNet-18", "wrn28_10": "WRN-28-10"}.get(name, name)


def _conv4(backbone: str) -> bool:
    return backbone.startswith("Conv4")


@cache
def _table() -> list[dict[str, Any]]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())
