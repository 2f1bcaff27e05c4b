"""The records that a run leaves as JSON, typed: one schema for who writes them and who reads them back."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

from fsl_cli import __version__
from fsl_cli.errors import UserError
from fsl_cli.files import read_json, write_json
from fsl_cli.settings.schema import Image
from fsl_cli.settings.values import fits

UNFINISHED = "unfinished=true"  # stands among the changes of a test whose run was not trained to its end


@dataclass(frozen=True)
class Training:
    """training.json: written when training is over."""

    FILE: ClassVar = "training.json"

    steps: int  # meta-iterations
    best_step: int
    metric: str  # accuracy | mse | bits
    best_value: float | None  # of validation, None where nothing was trained; an accuracy is 0..1
    seconds: float
    pruned: bool = False  # stopped by a search

    @property
    def score(self) -> float | None:
        """The score by which a search compares runs; higher is better. It is of validation, never of the test."""
        return self.best_value if self.best_value is None or self.metric == "accuracy" else -self.best_value


def seen(pretrained: str, part_of: str) -> str:
    """`Result.seen`, of weights that have seen `pretrained` and a data set whose classes are `part_of` something."""
    return "" if not (pretrained and part_of) else "yes" if pretrained == part_of else "maybe"


@dataclass(frozen=True)
class Result:
    """result.json: a test, with everything that tells whether two numbers may stand in one column."""

    FILE: ClassVar = "result.json"

    algorithm: str
    data: str
    images: str  # hash of the store
    split: str
    split_hash: str
    rotations: str
    part: str  # which split was tested
    way: int | list[int]  # a number, or the range that it was drawn from
    shot: int | list[int] | Literal["metadataset"]
    query: int | Literal["all"]  # images a class, or all that are left of it
    episodes: int
    seed: int  # of the run: weights and training episodes
    episode_seed: int  # of the test episodes
    norm: str  # whose statistics normalised
    inference: str  # inductive | transductive
    trained_on: str  # data set
    image: Image  # what the run's backbone sees
    checkpoint: str
    step: int  # meta-iterations behind the checkpoint
    metric: str  # accuracy | mse | bits
    mean: float  # of the metric over the episodes; an accuracy is 0..1
    interval: float  # half the width of its 95% interval
    loss: float
    seconds: float  # of the test
    training_seconds: float
    changes: list[str]  # settings of the run that were changed for this test
    version: str
    query_balance: Literal["even", "dirichlet"] = "even"  # queries of each class, or shares of as many in all
    unlabelled: int = 0  # images of each class without labels in a support set
    distractors: int = 0  # other classes that have as many
    labelled_share: float = 1.0  # of each training class's images
    sampling: str = "uniform"  # of an episode's classes: uniform in the split | within_alphabet
    pretrained: str = ""  # what the backbone's first weights had seen: ImageNet, or a file's name; "": nothing
    class_rows: str = ""  # hash of those that the method read; "": none
    hidden_labels: str = ""  # what was done without labels: training (umtra) | training and test (umtra); "": nothing
    seen: str = ""  # whether the test classes were among that: "" no, as far as fsl knows | maybe | yes
    calibration: str = "none"  # how the temperature was found: fitted on validation, 5w1s | the run's own, 5w1s | none
    logit_temperature: float | None = None  # what logits were divided by
    ece: float | None = None  # expected calibration error, 0..1, of the logits as they are
    ece_calibrated: float | None = None
    loss_calibrated: float | None = None  # `loss` with the temperature: the mean negative log-likelihood
    by_class: dict[str, Any] | None = None  # means over classes, where these recur; classes.csv has each
    best_loss: float | None = None  # of distributions over curves: that of what draws them, where it is known
    best_mean: float | None = None  # of a regression whose targets are linear in features: the best linear estimator's
    best_by_instance: list[float] | None = None  # its error at each place, beside `by_instance`
    by_instance: dict[str, list[float]] | None = None  # of sequence learners: mean and interval of each
    memorisation: dict[str, float] | None = None  # of labels=fixed or groups: see experiment/memorisation.py
    inner_problem: dict[str, Any] | None = None  # of algo=imaml: see experiment/inner_problem.py
    optimizers: dict[str, Any] | None = None  # of a learned optimizer: see experiment/optimizers.py
    attacked: dict[str, Any] | None = None  # of attack=: its settings, mean and interval of the accuracy under it
    finetuned: dict[str, Any] | None = None  # of backbone.finetune: steps, rate, and how it was chosen on validation
    open: dict[str, Any] | None = None  # of open=true: see experiment/open_test.py
    data_sets: dict[str, Any] | None = (
        None  # of several: mean, interval and folder of the test of each; `mean` is theirs
    )


@dataclass(frozen=True)
class Calibration:
    """calibration.json: what logits are divided by, so that probabilities mean what they say."""

    FILE: ClassVar = "calibration.json"

    step: int  # meta-iterations behind the checkpoint
    way: int | list[int]  # of the validation episodes that it was fitted to
    shot: int | list[int] | Literal["metadataset"]
    norm: str
    episodes: int
    temperature: float
    nll: float  # negative log-likelihood of these episodes' labels
    nll_calibrated: float
    ece: float  # expected calibration error, 0..1
    ece_calibrated: float
    score: str | None = None  # which tells what is of no class: energy | logit | probability; None: not found out
    auroc: float | None = None  # of this score on the validation episodes
    levels: list[float] = field(default_factory=list)  # quantiles of the scores of known queries, 0 to 1
    slope: float = 0.0  # the probability of no class, where half the pictures are of none, is
    intercept: float = 0.0  # sigmoid(slope * score + intercept)
    known: int = 0  # known pictures that the levels are of; 0: thousands of queries


Record = TypeVar("Record", Training, Result, Calibration)


def write(folder: Path, record: Training | Result | Calibration) -> None:
    """Put a record into a folder, whole or not at all."""
    write_json(folder / record.FILE, asdict(record))


def read(folder: Path, kind: type[Record], advice: str = "") -> Record:
    """A record that lies in a folder.

    Raises UserError, which ends in `advice`, when it is missing, damaged, or of another version of fsl.
    """
    path = folder / kind.FILE
    content = read_json(path)
    kinds = get_type_hints(kind)
    known = {each.name: each for each in fields(kind)}
    needed = [name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    odd = [f"lacks {name}" for name in needed if name not in content]
    odd += [f"has {name}, which is unknown here" for name in content if name not in known]
    if odd:
        raise UserError(
            f"{path} was not written by this version of fsl, {__version__}, but by "
            f"{content.get('version', 'an unknown one')}: it {', '.join(odd[:3])}. {advice}".rstrip()
        )
    values = {name: _image(value) if kinds[name] is Image else value for name, value in content.items()}
    wrong = [name for name, value in values.items() if not fits(value, kinds[name])]
    if wrong:
        found = repr(content[wrong[0]])
        raise UserError(f"{path} is damaged: {wrong[0]} is {found[:60]}. {advice}".rstrip())
    return kind(**values)


def _image(value: Any) -> Any:
    try:
        return Image(**value)
    except TypeError:
        return None
