"""The settings at the root of a configuration, typed: what each means and what it may be.

From these annotations come the checks and their messages (binding.py), what `fsl show` explains, and the settings page
of the documentation. The parts, such as `algo`, stay what their `_target_` makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, get_args, get_type_hints

from fsl_cli.backbones.mode import Mode
from fsl_cli.data.names import all_different, own_name
from fsl_cli.ranges import Count, Natural, Range
from fsl_cli.settings import other_tools
from fsl_cli.settings.parts import OfData, OfTrainer, Part, asked, sets_of
from fsl_cli.settings.values import problem, words

Counts = Annotated[int | list[int], Range(least=1)]  # a number, or the range [least, most] that it is drawn from
Shots = Annotated[int | list[int] | Literal["metadataset"], Range(least=0)]  # likewise; 0 where a method needs none


@dataclass(frozen=True)
class Image:
    """What a run's backbone sees of an image; of a text, code points; of a point of a curve, where it is."""

    channels: Count  # of an embedding, its numbers
    size: Count  # pixels; of a text, characters
    mean: Annotated[list[float], Range()]  # that pixels of 0..1 are scaled by
    std: Annotated[list[float], Range()]
    ink: bool = False  # whether 1 - pixel is seen, as for dark ink on white paper
    items: Literal["images", "texts", "points", "embeddings", "characters"] = "images"
    class_rows: Natural = 0  # numbers of a class row, where the method reads these


@dataclass(frozen=True)
class Settings:
    """Everything that a run is made of."""

    way: Annotated[Counts, "classes of a validation or test episode; [5,20] draws anew for each episode"]
    shot: Annotated[
        Shots,
        "support images of each class; [1,10] draws anew for each class of an episode; 0: where a method needs none; "
        "metadataset: by its law, with way=[5,50] query=10",
    ]
    query: Annotated[Count | Literal["all"], "query images of each class; all: those that are left"]
    train_way: Annotated[Counts, "classes of a training episode"]
    train_shot: Annotated[Shots, "support images of each class of a training episode; 0 as above"]
    train_query: Annotated[Count | Literal["all"], "query images of each class of a training episode"]
    seed: Annotated[
        Natural, "random seed of weights and training episodes; validation and test episodes are always the same"
    ]
    steps: Annotated[Natural, "meta-iterations; 0: no training"]
    meta_batch: Annotated[Count, "episodes a meta-iteration, over all processes"]
    norm: Annotated[Mode, "whose statistics normalise"]
    classes: Annotated[
        Literal["drawn", "all"],
        "drawn for each test episode; all: one task of all test classes (a whole folder, if undivided and untrained)",
    ]
    val_every: Annotated[Count, "meta-iterations between two validations"]
    val_episodes: Annotated[int, Range(least=2), "episodes of a validation"]
    patience: Annotated[Count | None, "validations without improvement before training stops; null: never"]
    episodes: Annotated[int, Range(least=2), "episodes of the test"]
    test: Annotated[bool, "read the test split once, after training"]
    init: Annotated[str | None, "folder of a run whose backbone to begin with"]
    calibrate: Annotated[bool, "fit the temperature of the logits on validation episodes"]
    out: Annotated[str, "folder that receives the run's folder"]
    trust: Annotated[list[str], "Python packages besides fsl_cli whose classes a configuration may name"]
    data: Annotated[Part, "the data set"]
    algo: Annotated[Part, "the algorithm"]
    backbone: Annotated[Part, "the network from images to features"]
    optim: Annotated[Part, "the outer optimizer"]
    schedule: Annotated[Part, "how the outer learning rate falls"]
    augment: Annotated[Part | None, "changes of training images"]
    trainer: Annotated[Part, "the machine: devices, processes, precision, clipping"]
    logger: Annotated[dict[str, Part], "trackers that the run reports to"]
    time: Annotated[
        str | None, "time budget such as 2h: takes only as many steps as fit in, with validation and test"
    ] = None
    train_on: Annotated[
        Literal["train", "trainval"],
        "classes that are trained on; trainval: those of validation too, so the last step is kept in place of the best",
    ] = "train"
    query_balance: Annotated[
        Literal["even", "dirichlet"],
        "queries of a validation or test episode: as many of each class, or shares by Dirichlet(2), as many in all",
    ] = "even"
    labels: Annotated[
        Literal["drawn", "fixed", "groups"],
        "of training classes, drawn for each episode; fixed: each class keeps one, which can be learned by heart; "
        "groups: and it only ever meets the same other classes",
    ] = "drawn"
    unlabelled: Annotated[
        Natural,
        "images of each class without labels in the support set of a validation or test episode, for methods that "
        "learn from them",
    ] = 0
    train_unlabelled: Annotated[
        Natural, "images of each class without labels in the support set of a training episode"
    ] = 0
    distractors: Annotated[
        Natural, "classes of none of an episode's labels that have as many images without labels among them"
    ] = 0
    labelled_share: Annotated[
        float,
        Range(above=0, most=1),
        "of each training class's images have labels; the others can be images without labels alone",
    ] = 1.0
    pseudo: Annotated[
        Part | None, "classes of training episodes in place of labels, which stay hidden; null: labels"
    ] = None
    attack: Annotated[Part | None, "changes of pixels against the method, in training and test; null: none"] = None
    teacher: Annotated[str | None, "folder of a run to learn from, for methods that do"] = None
    choices: Annotated[dict[str, str], "which file of each group was chosen"] = field(default_factory=dict)
    image: Annotated[Image | None, "what the backbone sees; found out at the start"] = None
    train_classes: Annotated[Count | None, "classes of the training split; found out at the start"] = None
    pretrained: Annotated[str, "what the backbone's first weights had seen; found out at the start"] = ""

    def plain(self) -> dict[str, Any]:
        """The settings as a YAML writes them, without those that a run finds out and has not found out yet."""
        found = {name: _plain(getattr(self, name)) for name in NAMES}
        return {name: value for name, value in found.items() if value is not None or name not in FOUND_AT_START}

    @property
    def algo_name(self) -> str:
        """Which file of conf/algo was chosen, or else the Python that makes it."""
        return self.choices.get("algo", self.algo.target)

    @property
    def data_choice(self) -> str:
        """Which file of conf/data was chosen, or else the Python that makes it."""
        return self.choices.get("data", self.data.target)

    @property
    def backbone_name(self) -> str:
        """Which file of conf/backbone was chosen, or else the Python that makes it."""
        return self.choices.get("backbone", self.backbone.target)

    @property
    def pseudo_name(self) -> str:
        """Which file of conf/pseudo was chosen, or else the Python that makes it; "" where labels are taken."""
        return self.choices.get("pseudo", self.pseudo.target) if self.pseudo else ""

    @property
    def attack_name(self) -> str:
        """Which file of conf/attack was chosen, or else the Python that makes it; "" where nothing is attacked."""
        return self.choices.get("attack", self.attack.target) if self.attack else ""

    @property
    def trainer_name(self) -> str:
        """Which file of conf/trainer was chosen; "" where that is not known."""
        return self.choices.get("trainer", "")

    @property
    def data_root(self) -> str | None:
        """Where the user's copy of the data set lies, for those that take one."""
        return asked(self.data, OfData).root

    @property
    def data_cache(self) -> str | None:
        """The cache folder of the user's choice; None: fsl's own."""
        first = next(iter(sets_of(self.data).values()), self.data)
        return asked(first, OfData).cache

    @property
    def finetune(self) -> int:
        """Steps on each support set in a test, of a copy of the backbone; 0: none."""
        steps = self.backbone.get("finetune")
        return steps if isinstance(steps, int) else 0

    @property
    def processes(self) -> int:
        """How many processes train."""
        trainer = asked(self.trainer, OfTrainer)
        return trainer.devices * trainer.num_nodes

    @property
    def data_name(self) -> str:
        """What the data set is called: a collection of one's own has a name of its own."""
        sets = sets_of(self.data)
        if sets:
            return "+".join(all_different({name: called(name, own) for name, own in sets.items()}))
        return called(self.data_choice, self.data)

    def targets(self) -> list[str]:
        """The Python that all parts name, and what their values name in turn."""
        return list(targets(self.plain()))

    def having(self, **values: Any) -> Settings:
        """The same settings with others in place of some."""
        return replace(self, **values)


def called(choice: str, data: Part) -> str:
    """What a data set that is chosen so is called: a collection of one's own has a name of its own."""
    own = asked(data, OfData)
    return own_name(own.root, own.name) if data.target.endswith(OWN) else choice


OWN = (".folder.folder", ".texts.texts", ".embeddings.embeddings")  # data sets of the user's own files
FOUND_AT_START = {"image", "train_classes", "pretrained"}  # by a run itself
NAMES = tuple(each.name for each in fields(Settings))
KINDS: dict[str, Any] = get_type_hints(Settings, include_extras=True)
OPTIONAL = {
    each.name for each in fields(Settings) if each.default is not MISSING or each.default_factory is not MISSING
}
# of which there is one each, or none
PARTS = ("data", "algo", "backbone", "optim", "schedule", "augment", "pseudo", "attack", "trainer")
OR_NONE = ("augment", "pseudo", "attack")


def meaning(name: str) -> str:
    """What a setting at the root, or a part, means; "" for a name that is neither."""
    return next((note for note in get_args(KINDS.get(name)) if isinstance(note, str)), "")


def allowed(name: str) -> str:
    """What a setting at the root may be, such as `a whole number, at least 1`."""
    return words(KINDS[name])


def root_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong at the root of a configuration, a line each; the parts are looked at by binding.py."""
    for name in values.keys() - set(NAMES):
        yield f"{name}: nothing reads it. See fsl show for the settings there are."
    inner = values["backbone"].get("norm") if isinstance(values.get("backbone"), dict) else None
    if inner is not None and inner != values.get("norm"):
        yield f"backbone.norm={inner}: differs from norm={values.get('norm')}, which results report. Type norm={inner}."
    for name in (name for name in NAMES if name not in (*PARTS, "logger", "choices", "image")):
        if name not in values and name in OPTIONAL:
            continue
        value = values.get(name)
        if wrong := problem(value, KINDS[name]):
            yield f"{name}={value}: {wrong}"
        elif isinstance(value, list) and KINDS[name] != KINDS["trust"] and not _is_range(value):
            yield f"{name}={value}: must be two whole numbers from 1 up, such as [2,10]."
    yield from _image_problems(values.get("image"))
    choices = values.get("choices", {})
    if not isinstance(choices, dict) or not all(isinstance(name, str) for name in choices.values()):
        yield f"choices={choices}: must be the name of a file for each group."


def shape_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Which parts name no Python to build them with, a line each."""
    loggers = values.get("logger") or {}
    if not isinstance(loggers, dict):
        several = "logger=[tensorboard,mlflow]"
        yield f"logger={loggers}: choose one of those that fsl ls logger shows, or several: {several}."
        loggers = {}
    nodes = {name: (name, values.get(name)) for name in PARTS}
    nodes |= {f"logger.{name}": ("logger", node) for name, node in loggers.items()}
    for called, (part, node) in nodes.items():
        if not (part in OR_NONE and node is None) and not is_part(node):
            yield f"{called}: names no Python to build it with (_target_). {_choose(part, node)}"


def _choose(part: str, node: Any) -> str:
    """What to type in place of what is no part: `fsl ls` has a choice of most, and the settings of the others."""
    if part == "schedule":
        return f"Type {other_tools.choice('schedule.kind', str(node)) or 'schedule.kind=cosine'}."
    if part == "augment":
        return "Type augment.flip=true, augment.crop=0.5, augment.padding=8 or augment.jitter=0.4."
    return f"Choose one of those that fsl ls {part} shows."


def is_of_a_run(values: Any) -> bool:
    """Whether values, as YAML has them, can be the configuration of a run: they say what was chosen."""
    chosen = values.get("choices") if isinstance(values, dict) else None
    return isinstance(chosen, dict) and {"algo", "data"} <= chosen.keys()


def is_part(node: Any) -> bool:
    """Whether a node can be a part: it names Python, and its values have names."""
    return (
        isinstance(node, dict) and isinstance(node.get("_target_"), str) and all(isinstance(key, str) for key in node)
    )


def typed(values: Mapping[str, Any]) -> Settings:
    """The settings of a configuration in which neither `root_problems` nor `shape_problems` finds anything."""
    made: dict[str, Any] = {name: value for name, value in values.items() if name in NAMES}
    made |= {name: part(values[name]) for name in PARTS if values.get(name) is not None}
    made["logger"] = {name: part(node) for name, node in (values.get("logger") or {}).items()}
    if values.get("image"):
        made["image"] = Image(**values["image"])
    return Settings(**made)


def part(node: Mapping[str, Any]) -> Part:
    """A node of YAML as a part."""
    return Part(node["_target_"], {key: value for key, value in node.items() if key != "_target_"})


def _is_range(value: list[Any]) -> bool:
    return len(value) == 2 and value[0] <= value[1]


def _image_problems(image: Any) -> Iterator[str]:
    if image is None:
        return
    kinds = get_type_hints(Image, include_extras=True)
    later = {"ink", "items", "class_rows"}  # which runs of earlier versions lack
    if not isinstance(image, dict) or image.keys() - kinds.keys() or kinds.keys() - later - image.keys():
        yield f"image={image}: must say {', '.join(kinds)}, and nothing else."
        return
    for name, value in image.items():
        if wrong := problem(value, kinds[name]):
            yield f"image.{name}={value}: {wrong}"


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a configuration, as YAML has it."""
    if isinstance(node, dict):
        if isinstance(target := node.get("_target_"), str):
            yield target
        for inner in node.values():
            yield from targets(inner)


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.plain()
    if isinstance(value, Image):
        return asdict(value)
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value
