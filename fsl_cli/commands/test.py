"""fsl test: test a run again, with any way, shot, query, number of episodes or data set."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_cli.commands.words import split_word, yes_or_no
from fsl_cli.config import compose, did_you_mean, names, take_user_dir
from fsl_cli.errors import UserError
from fsl_cli.results import task_name

if TYPE_CHECKING:
    from fsl_cli.assemble import Experiment

HELP = """Test a run's best checkpoint on its data set's test split, or on another's.

  fsl test run=outputs/RUN                             the run's own protocol
  fsl test run=outputs/RUN way=20 shot=5               any way and shot that the method allows
  fsl test run=outputs/RUN episodes=10000 query=5
  fsl test run=outputs/RUN data=omniglot data.root=DIR another data set
  fsl test run=outputs/RUN algo.test_steps=10          any setting of the run that keeps its weights
  fsl test run=outputs/RUN similarity=true             and how far each layer changes while it adapts (CKA)
  fsl test algo=protonet data=omniglot init=RUN        no training: with a backbone as it is, in a run of its own

Prints, for example:
  20-way 1-shot test accuracy  95.45% ± 0.16%
and writes result.json and episodes.csv (and similarity.json) to tests/NAME in the run's folder."""


OF_A_TEST = ("way", "shot", "query", "episodes", "norm")  # the settings at the root that a test depends on
COMPARED = 100  # episodes at most for similarity=true


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl test`. Raises UserError."""
    user_dir, words = take_user_dir(words)
    given = dict(split_word(word) for word in words)
    if "run" not in given and "algo" not in given:
        near = did_you_mean(next(iter(given), ""), ["run"])
        raise UserError(f"Which run? Type fsl test run=FOLDER; every fsl train prints its folder.{near}")

    from fsl_cli.allocator import keep_memory
    from fsl_cli.assemble import assemble
    from fsl_cli.commands.train import start
    from fsl_cli.results import UNFINISHED, read_json
    from fsl_cli.screen import console, protocol_line, reached_line
    from fsl_cli.similarity import demand_inner_loop
    from fsl_cli.testing import run_test
    from fsl_cli.training import new_trainer, tamed

    if "run" not in given:
        start(compose([*words, "steps=0"], user_dir))
        return
    folder = Path(given.pop("run"))
    compare = yes_or_no("similarity", given.pop("similarity", "false"))
    values = settings_of_a_test(folder, given, user_dir)
    keep_memory()
    name = test_name(values, given)
    with tamed():
        trainer = new_trainer({**values["trainer"], "strategy": "auto", "devices": 1, "num_nodes": 1})
        changes = [f"{key}={value}" for key, value in given.items()]
        experiment = assemble(values, ["test"])
        if compare:
            demand_inner_loop(experiment.learner.algorithm, values["choices"]["algo"])
        run_test(folder, values, experiment, trainer, folder / "tests" / name, changes)
    result = read_json(folder / "tests" / name / "result.json")
    console().print(f"[bold]{reached_line(result)}[/]\n{protocol_line(result)}", highlight=False)
    if UNFINISHED in result["changes"]:
        far = f"step {result['step']} of {values['steps']}"
        console().print(
            f"not trained to its end: {far}; to go on: fsl train resume={folder}", highlight=False, soft_wrap=True
        )
    if compare:
        console().print(_compare(experiment, folder / "tests" / name), highlight=False)
    console().print(f"files  {folder / 'tests' / name}", highlight=False, soft_wrap=True)


def settings_of_a_test(folder: Path, given: dict[str, str], user_dir: str | None) -> dict[str, Any]:
    """The configuration of a run with what is `given` in place of its own; takes `trust` out of that.

    Raises UserError when the two do not go together.
    """
    from fsl_cli.binding import demand_fit, demand_root
    from fsl_cli.results import saved_config

    trust = names(given.pop("trust", ""))
    values = changed(saved_config(folder), given, user_dir)
    demand_fit(values, trust)
    if "data.root" in given:  # the run's own may be on another machine
        demand_root(values)
    return values


def changed(saved: dict[str, Any], given: dict[str, str], user_dir: str | None = None) -> dict[str, Any]:
    """The run's configuration with other values; `data=NAME` puts that data set's settings in place of the run's."""
    values = copy.deepcopy(saved)
    for group in given.keys() & {"data", "trainer"}:
        values[group] = compose([f"{group}={given[group]}"], user_dir).values[group]
        values["choices"][group] = given[group]
        if "size" in values[group]:  # brought to the size that the run's backbone was built for
            values[group]["size"] = saved["image"]["size"]
    for key, text in given.items():
        if key in ("data", "trainer"):
            continue
        if key in values and key not in OF_A_TEST and not isinstance(values[key], dict):
            raise UserError(
                f"{key}={text} has no effect on a test. A test takes {', '.join(OF_A_TEST)}, data and algo."
            )
        node: Any = values
        path = key.split(".")
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


def _compare(experiment: Experiment, destination: Path) -> str:
    """similarity.json in the test's folder, and the same as a short table."""
    import torch

    from fsl_cli.data.datamodule import EVALUATION_SEED
    from fsl_cli.data.tasks import Batch
    from fsl_cli.results import write_json
    from fsl_cli.similarity import similarity

    count = min(COMPARED, experiment.episodes.episodes["test"])
    tasks, cpu = experiment.episodes.tasks, torch.device("cpu")
    episodes = (tasks.gather(Batch("test", EVALUATION_SEED, [index]), cpu)[0] for index in range(count))
    layers = similarity(experiment.learner.cpu().algorithm, episodes)
    write_json(
        destination / "similarity.json",
        {"measure": "linear CKA", "episodes": count, "layers": [layer._asdict() for layer in layers]},
    )
    rows = [f"  {row.layer:<10} {row.mean:.4f} ± {row.interval:.4f}" for row in layers]
    return "\n".join([f"similarity before and after adaptation (linear CKA, {count} episodes)", *rows])


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


def test_name(values: dict[str, Any], given: dict[str, str]) -> str:
    """A folder's name for this test: data, way, shot, and whatever else was changed."""
    others = [f"{key}={value}" for key, value in sorted(given.items()) if key not in ("data", "way", "shot")]
    name = "-".join([values["choices"]["data"], task_name(values), *others])
    name = re.sub(r"[^\w.=-]+", "_", name)
    return name if len(name) < 120 else f"{name[:100]}-{hashlib.blake2b(name.encode(), digest_size=5).hexdigest()}"
