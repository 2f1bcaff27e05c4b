"""fsl test: test a run again, with any way, shot, query, number of episodes or data set."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsl_cli.config import compose, did_you_mean
from fsl_cli.errors import UserError

HELP = """Test a finished run on its data set's test split, or on another's.

  fsl test run=outputs/RUN                             the run's own protocol
  fsl test run=outputs/RUN way=20 shot=5               any way and shot that the method allows
  fsl test run=outputs/RUN episodes=10000 query=5
  fsl test run=outputs/RUN data=omniglot data.root=DIR another data set
  fsl test run=outputs/RUN algo.test_steps=10          any setting of the run that keeps its weights

Prints, for example:
  20-way 1-shot test accuracy  91.03% ± 0.24%
and writes result.json and episodes.csv to tests/NAME in the run's folder."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl test`. Raises UserError."""
    import pytorch_lightning as lightning

    from fsl_cli.allocator import keep_memory
    from fsl_cli.assemble import assemble
    from fsl_cli.binding import problems
    from fsl_cli.commands.train import names, quiet, trainer_settings
    from fsl_cli.results import read_json
    from fsl_cli.screen import accuracy_line, console, protocol_line

    given = dict(_split(word) for word in words)
    if "run" not in given:
        raise UserError("Which run? Type fsl test run=FOLDER; every fsl train prints its folder.")
    folder = Path(given.pop("run"))
    trust = names(given.pop("trust", ""))
    saved = saved_config(folder)
    values = changed(saved, given)
    found = problems(values, trust)
    if found:
        raise UserError("\n".join(found))
    if not (folder / "training.json").exists():
        raise UserError(f"{folder} is not trained to its end. Type fsl train resume={folder} first.")
    keep_memory()
    name = _test_name(values, given)
    with quiet():
        settings = trainer_settings({**values["trainer"], "strategy": "auto", "devices": 1, "num_nodes": 1})
        trainer = lightning.Trainer(**settings)
        run_test(folder, values, assemble(values, ["test"]), trainer, folder / "tests" / name)
    result = read_json(folder / "tests" / name / "result.json")
    console().print(f"[bold]{accuracy_line(result)}[/]\n{protocol_line(result)}", highlight=False)
    console().print(f"files  {folder / 'tests' / name}", highlight=False, soft_wrap=True)


def run_test(folder: Path, values: dict[str, Any], experiment: Any, trainer: Any, destination: Path) -> None:
    """Read the test split with the best checkpoint of the run in `folder`; writes result.json and episodes.csv."""
    from fsl_cli import __version__
    from fsl_cli.data.datamodule import EVALUATION_SEED
    from fsl_cli.results import Result, read_json, write_result
    from fsl_cli.stats import mean_interval

    path = folder / "checkpoints" / "best.ckpt"
    step = load_weights(path, experiment.learner)
    started = time.monotonic()
    trainer.test(experiment.learner, datamodule=experiment.episodes, verbose=False)
    scores = experiment.learner.scores
    accuracy, interval = mean_interval([score.accuracy for score in scores])
    if not trainer.is_global_zero:
        return
    data = experiment.data
    result = Result(
        algorithm=values["choices"]["algo"],
        data=data.name,
        images=data.store.hash,
        part="test",
        **data.protocol,
        **{key: values[key] for key in ("way", "shot", "query", "episodes", "seed", "norm")},
        episode_seed=EVALUATION_SEED,
        inference="transductive" if values["norm"] == "transductive" else "inductive",
        trained_on=saved_config(folder)["choices"]["data"],
        checkpoint=path.name,
        step=step,
        accuracy=accuracy,
        interval=interval,
        loss=mean_interval([score.loss for score in scores])[0],
        seconds=round(time.monotonic() - started, 2),
        training_seconds=read_json(folder / "training.json")["seconds"],
        version=__version__,
    )
    try:
        write_result(destination, result, scores)
    except OSError as error:
        raise UserError(
            f"{destination} cannot be written: {error.strerror}. Free some space and test again."
        ) from error


def saved_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run was started with. Raises UserError when the folder holds no run."""
    import yaml

    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder. Type run=FOLDER with one that fsl train made.")
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} holds no run: config.yaml cannot be read ({reason}).") from error
    chosen = values.get("choices") if isinstance(values, dict) else None
    if not isinstance(chosen, dict) or not {"algo", "data"} <= chosen.keys():
        raise UserError(f"{folder / 'config.yaml'} is not the configuration of a run.")
    return values


def changed(saved: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """The run's configuration with other values; `data=NAME` puts that data set's settings in place of the run's."""
    import yaml

    values = yaml.safe_load(yaml.safe_dump(saved))
    if "data" in given:
        values["data"] = compose([f"data={given['data']}"]).values["data"]
        values["choices"]["data"] = given["data"]
        if "size" in values["data"]:  # brought to the size that the run's backbone was built for
            values["data"]["size"] = saved["image"]["size"]
    for key, text in given.items():
        if key == "data":
            continue
        node, *path = values, *key.split(".")
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or path[-1] not in node or path[0] == "choices":
            raise UserError(f"'{key}' is not a setting of this run.{did_you_mean(key, list(_leaves(values)))}")
        if isinstance(node[path[-1]], dict):
            raise UserError(f"{key}={text}: a run keeps its {key}. Train another: fsl train {key}={text}")
        node[path[-1]] = _value(key, text)
    backbone = values.get("backbone")
    if isinstance(backbone, dict) and "norm" in backbone:  # what result.json says is what was used
        if "norm" in given:
            backbone["norm"] = values["norm"]
        values["norm"] = backbone["norm"]
    return values


def load_weights(path: Path, learner: Any) -> int:
    """Put a checkpoint's weights into `learner` and return its step.

    Raises UserError when it cannot be read, or is of another algorithm or network.
    """
    checkpoint = read_checkpoint(path)
    try:
        learner.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} does not fit this algorithm and backbone: {reason[:300]}") from error
    return int(checkpoint["global_step"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Raises UserError when it is missing, damaged, or holds more than data."""
    import pickle

    import torch

    if not path.exists():
        raise UserError(f"{path} is missing: the run has not been validated yet. Resume it, or choose another run.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: it is damaged, or holds more than data and could run code.") from error
    except Exception as error:  # damaged files make torch raise nearly anything: KeyError, IndexError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged: {reason}. Copy it again, or train again.") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "global_step"} <= checkpoint.keys():
        raise UserError(f"{path} is not a checkpoint of fsl. Copy it again, or train again.")
    return checkpoint


def _split(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise UserError(f"'{word}' is not of the form key=value, such as way=20.")
    return key, value


def _value(key: str, text: str) -> Any:
    """A typed value, read as `fsl train` does: 1e-3 is a number."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[call-overload,index]
    except YAMLError as error:
        raise UserError(f"{key}={text} cannot be read as a value. Put it into quotes: \"{key}='{text}'\".") from error


def _leaves(node: dict[str, Any], prefix: str = "") -> list[str]:
    here = [prefix + key for key in node]
    return here + [
        leaf for key, sub in node.items() if isinstance(sub, dict) for leaf in _leaves(sub, f"{prefix}{key}.")
    ]


def _test_name(values: dict[str, Any], given: dict[str, str]) -> str:
    """A folder's name for this test: data, way, shot, and whatever else was changed."""
    others = [f"{key}={value}" for key, value in sorted(given.items()) if key not in ("data", "way", "shot")]
    name = "-".join([values["choices"]["data"], f"{values['way']}w{values['shot']}s", *others])
    return re.sub(r"[^\w.=-]+", "_", name)
