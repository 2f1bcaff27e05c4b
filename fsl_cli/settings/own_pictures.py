"""Settings for a folder of one's own, chosen by what its pictures are, as nnU-Net does for medical images.

Isensee et al., Nature Methods 2021, https://arxiv.org/abs/1904.08128. Where papers have set an algorithm up for
photographs (miniImageNet) or drawings (Omniglot), a folder of such pictures starts from there, and what depends on
the number of classes and pictures is brought to what there is. What was typed, or stands in files of the user's, stays.
"""

from __future__ import annotations

import re
from statistics import median
from typing import Any, NamedTuple

from fsl_cli.data.listed import Chosen
from fsl_cli.data.look import Look, look
from fsl_cli.errors import UserError
from fsl_cli.settings.compose import Config, compose, provenance
from fsl_cli.settings.parts import OfData, Part, asked, maybe_unsorted
from fsl_cli.settings.schema import part

PHOTOGRAPHS, DRAWINGS = "miniimagenet", "omniglot"  # whose recipes to start from
PICTURES = {PHOTOGRAPHS: 64 * 600, DRAWINGS: 1028 * 4 * 20}  # of their training splits
FEW = 100  # pictures a class: with fewer, photographs are augmented, with what is usual for CUB, which has 60
# but for the crops: of a twelfth, as there, support and query seldom show the same thing, and 500 steps learn nothing
AUGMENT = {"crop": 0.5, "flip": True, "jitter": 0.4}
LEAST_STEPS = 500


class Fitted(NamedTuple):
    """A configuration, and why it is so: dotted key -> reason."""

    config: Config
    reasons: dict[str, str]


def fit_to_pictures(config: Config) -> Fitted:
    """The configuration with settings for the folder that it names; as it is for every other data set.

    A folder that cannot be read is left to what reads all of it.
    """
    data = config.values.get("data")
    if not isinstance(data, dict) or not str(data.get("_target_")).endswith(".folder.folder"):
        return Fitted(config, {})
    try:
        return _Choice(
            config, looked_at(maybe_unsorted(part(data)) if config.values.get("pseudo") else part(data))
        ).fitted()
    except (UserError, KeyError, TypeError, ValueError, OSError):
        return Fitted(config, {})


def looked_at(data: Part) -> Look:
    """What there is in the folder that data=folder names. Raises UserError as `look`."""
    own = asked(data, OfData)
    if own.root is None or own.val_fraction is None or own.test_fraction is None:
        raise UserError("data.root: which folder? Type data.root=FOLDER.")
    chosen = Chosen(own.file_column, own.label_column, own.on_error == "skip")
    fractions = {"val": float(own.val_fraction), "test": float(own.test_fraction)}
    return look(own.root, chosen, own.on_small or "", fractions, own.split_seed, own.unsorted)


class _Choice:
    """Settings one after another, each with its reason, unless it is the user's own."""

    def __init__(self, config: Config, seen: Look) -> None:
        self.config, self.seen = config, seen
        self.recipe = PHOTOGRAPHS if seen.photographs else DRAWINGS
        words = [word for word in config.overrides if not re.match(r"[+~]*data[.=@]", word)]
        self.sources = provenance(config.overrides, config.user_dir)
        like = compose([f"data={self.recipe}", *words], config.user_dir)
        self.values: dict[str, Any] = {**like.values, "data": dict(config.values["data"])}
        self.reasons: dict[str, str] = {}
        before, after = (dict(_dotted(values)) for values in (config.values, self.values))
        start = f"as for {self.recipe}: {seen.words()}"
        self.reasons |= {key: start for key, value in after.items() if before.get(key) != value}

    def fitted(self) -> Fitted:
        self._images()
        self._episodes()
        self._length()
        return Fitted(self.config._replace(values=self.values), self.reasons)

    def set(self, key: str, value: Any, reason: str) -> None:
        """Give a setting its value, unless it has it or the user has set it."""
        node: Any = self.values
        *path, name = key.split(".")
        for step in path:
            node = node.get(step) if isinstance(node, dict) else None
        if not isinstance(node, dict) or name not in node or node[name] == value or self._of_the_user(key):
            return
        node[name] = value
        self.reasons[key] = reason

    def _of_the_user(self, key: str) -> bool:
        source = self.sources.get(key, "")
        return source != "" and not source.startswith("conf/") or source.startswith("conf/experiment")

    def _images(self) -> None:
        seen = self.seen
        if not self._comes_trained():
            self.set("data.channels", 3 if seen.coloured else 1, "the pictures have no colours")
            size = min(84 if seen.photographs else 28, max(seen.side, 28))
            small = f"the pictures have {seen.side} pixels" if seen.photographs else "they are drawings"
            self.set("data.size", size, small)
        elif asked := (self.values.get("backbone") or {}).get("resize"):
            self.set("data.size", asked, "the network brings pictures to it")
        each = seen.pictures / max(seen.classes["train"], 1)
        augmented = any((self.values.get("augment") or {}).get(key) for key in (*AUGMENT, "padding"))
        if (
            seen.photographs
            and each < FEW
            and not augmented
            and not self.values.get("pseudo")
            and not self._of_the_user("augment")
        ):
            for key, value in AUGMENT.items():
                self.set(f"augment.{key}", value, f"{each:.0f} photographs a class are few")
        if self.values.get("norm") == "transductive":
            self.set("norm", "support", "a prediction must not depend on the other new pictures")
            self.set("backbone.norm", self.values["norm"], "as norm")

    def _comes_trained(self) -> bool:
        """Whether the network has learned elsewhere, from pictures as large as it was given."""
        backbone = self.values.get("backbone") or {}
        given = backbone.get("pretrained") or backbone.get("weights") or self.values.get("init")
        return bool(given) or str(backbone.get("_target_")).endswith((".photos", ".onnx"))

    def _episodes(self) -> None:
        seen, values = self.seen, self.values
        if self.values.get("pseudo"):
            self._at_most("train_way", seen.pictures, f"there are {seen.pictures} pictures to train on")
        if seen.unsorted:
            return
        way = min(seen.classes["val"], seen.classes["test"])
        self._at_most("way", way, f"validation and test have {way} classes or more")
        if not self.values.get("pseudo"):
            self._at_most("train_way", seen.classes["train"], f"there are {seen.classes['train']} classes to train on")
        for prefix, parts in (("train_", ("train",)), ("", ("val", "test"))):
            least = min(seen.least[split] for split in parts)
            shot = values.get(f"{prefix}shot")
            if prefix and self.values.get("pseudo"):
                continue
            if prefix and isinstance(shot, int):
                self._at_most("train_shot", max(1, least // 2), f"the smallest class has {least} pictures")
            top = max(values[f"{prefix}shot"]) if isinstance(shot, list) else values[f"{prefix}shot"]
            if not isinstance(top, int):
                continue
            if values["data"].get("on_small") != "skip":
                self._at_most(f"{prefix}query", max(1, least - top), f"the smallest class has {least} pictures")
                continue
            usual = int(min(median(seen.sizes[split]) for split in parts))  # so that half of the classes stay, or more
            self._at_most(f"{prefix}query", max(1, usual - top), f"half of the classes have {usual} pictures or fewer")
            need = top + (values[f"{prefix}query"] if isinstance(values[f"{prefix}query"], int) else 1)
            stay = min(sum(size >= need for size in seen.sizes[split]) for split in parts)
            self._at_most(f"{prefix}way", stay, f"{stay} classes have {need} pictures or more")

    def _at_most(self, key: str, most: int, reason: str) -> None:
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > most > 0:
            self.set(key, most, reason)

    def _length(self) -> None:
        """Set steps to as many passes over the pictures as the recipe makes, and the schedule in proportion."""
        values, before = self.values, self.values.get("steps")
        if not isinstance(before, int) or self._of_the_user("steps") or before <= LEAST_STEPS:
            return
        share = self.seen.pictures * (4 if values["data"].get("rotations") == "all" else 1) / PICTURES[self.recipe]
        steps = max(LEAST_STEPS, min(before, round(before * share, -2)))
        why = f"as many passes over {self.seen.pictures:,} pictures as the {before:,} steps are over {self.recipe}"
        self.set("steps", int(steps), why if steps > LEAST_STEPS else f"{self.seen.pictures:,} pictures are few")
        times = values["steps"] / before
        self.set("val_every", max(25, min(values["val_every"], values["steps"] // 10)), "ten validations or more")
        schedule = values.get("schedule", {})
        if schedule.get("kind") == "step" and not self._of_the_user("schedule.every"):
            every = max(1, round(schedule["every"] * times))
            if every < LEAST_STEPS:  # 500 steps that halve it every 50 learn in the first hundred
                self.set("schedule.kind", "cosine", f"in proportion to steps, the rate would be halved every {every}")
            else:
                self.set("schedule.every", every, "in proportion to steps")
        if schedule.get("table"):
            table = {max(1, round(step * times)): rate for step, rate in schedule["table"].items()}
            self.set("schedule.table", table, "in proportion to steps")
        if "steps" in schedule:
            self.set("schedule.steps", values["steps"], "as steps")


def _dotted(node: Any, prefix: str = "") -> Any:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
