"""hydra/sweeper=optuna: each trial is a run of fsl train. Hydra accepts sweepers from `hydra_plugins` alone.

hydra-optuna-sweeper holds Optuna to version 2 and has no pruning, and its searches cannot go on where they were killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    import optuna
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Asks an Optuna study for settings, launches their runs, and tells it what they reached in validation."""

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        prune: bool,
        prune_after: int,
        seed: int,
        storage: str,
        study_name: str | None,
        trial: int | None = None,
        params: dict[str, str] | None = None,
    ) -> None:
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.prune_after = prune_after if prune else None
        self.seed = seed
        self.storage = storage
        self.study_name = study_name
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the study has `n_trials`. Raises UserError when this is not the search that it was."""
        from filelock import FileLock, Timeout

        from fsl_cli.errors import UserError
        from fsl_cli.runs.wording import task_name
        from fsl_cli.sweeps.study import demand_same, open_study

        fixed, tried = self._parsed(arguments)
        choices = self.config.hydra.runtime.choices
        name = self.study_name or f"{choices.algo}-{choices.data}-{task_name(self.config.way, self.config.shot)}"
        if self.storage.startswith("sqlite:///"):
            Path(self.storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        space = {key: distribution(override) for key, override in tried.items()}
        self._demand_fit([*fixed, *(f"{key}={_first(drawn)}" for key, drawn in space.items())])
        try:
            with FileLock(_lock_path(self.storage, name), blocking=False):  # begun trials are nobody else's
                study = open_study(self.storage, name, self.prune_after, self.seed, self.n_jobs)
                texts = {key: override.input_line for key, override in tried.items()}
                demand_same(study, {"fixed": sorted(fixed), "tried": texts})
                self._search(study, fixed, space)
        except Timeout:
            raise UserError(f"The study {name} in {self.storage} is being searched by another process.") from None

    def _demand_fit(self, words: list[str]) -> None:
        """Refuse what no trial could run with before there is a study of it."""
        from fsl_cli.settings.binding import demand_fit
        from fsl_cli.settings.compose import from_hydra

        composed = self.hydra_context.config_loader.load_sweep_config(self.config, words)
        demand_fit(from_hydra(composed, composed.hydra.runtime.choices, words).values)

    def _parsed(self, arguments: list[str]) -> tuple[list[str], dict[str, Override]]:
        """The words of every trial, and what is tried; the user's word wins over the search space that is shipped."""
        from fsl_cli.errors import UserError

        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(words)
        last = {override.get_key_element(): override for override in parsed}
        tried = {key: override for key, override in last.items() if override.is_sweep_override()}
        fixed = [override.input_line for key, override in last.items() if key not in tried and key != "test"]
        if "test" in last and last["test"].input_line != "test=false":
            raise UserError("A search is for validation: no trial reads the test split. Leave out test.")
        if not tried:
            raise UserError(
                "There is nothing to search: this algorithm has no search space (fsl ls search). "
                "Type one, such as optim.lr='tag(log,interval(1e-4,1e-2))'."
            )
        return fixed, tried

    def _search(self, study: optuna.Study, fixed: list[str], space: dict[str, Any]) -> None:
        from optuna.trial import Trial, TrialState

        from fsl_cli.files import write_json

        waiting = study.get_trials(states=[TrialState.RUNNING])  # begun when the search was killed
        for begun in waiting:
            demand_drawn(begun, space, self.storage)
        jobs = 0
        while True:
            ended = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
            room = max(min(self.n_jobs, self.n_trials - ended), 0)
            trials, waiting = [Trial(study, each._trial_id) for each in waiting[:room]], waiting[room:]
            trials += [study.ask(space) for _ in range(room - len(trials))]
            if not trials:
                break
            self._launch(study, trials, fixed, jobs)
            jobs += len(trials)
        if not jobs:
            print(f"{study.study_name} has its {self.n_trials} trials. For more, raise hydra.sweeper.n_trials.")
        found: dict[str, Any] = {"study": study.study_name, "storage": self.storage, "trials": ended, "best": None}
        if study.get_trials(states=[TrialState.COMPLETE]):
            best: optuna.trial.FrozenTrial = study.best_trial
            found["best"] = {
                "number": best.number,
                "params": best.params,
                "folder": str(best.user_attrs.get("folder", "")),
            }
        write_json(Path(self.config.hydra.sweep.dir) / "search.json", found)

    def _launch(self, study: optuna.Study, trials: Sequence[optuna.Trial], fixed: list[str], first: int) -> None:
        from optuna.trial import TrialState

        own = [*fixed, "test=false", f"hydra.sweeper.study_name={study.study_name}"]
        batch = [
            [*own, f"hydra.sweeper.trial={trial.number}", *(f"{key}={value}" for key, value in trial.params.items())]
            for trial in trials
        ]
        self.validate_batch_is_legal(batch)
        for trial, returned in zip(trials, self.launcher.launch(batch, initial_job_idx=first), strict=True):
            job = returned.return_value
            trial.set_user_attr("folder", job.folder)
            state = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}.get(job.state, TrialState.COMPLETE)
            study.tell(trial, job.score if state is TrialState.COMPLETE else None, state)


def distribution(override: Override) -> Any:
    """What Optuna draws from for Hydra's `a,b`, `range(1,6)`, `interval(0,1)` and `tag(log,interval(1e-4,1))`."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from fsl_cli.errors import UserError

    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        if value.start > value.end:
            raise UserError(f"{override.input_line}: its low end is above its high end.")
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        texts = list(override.sweep_string_iterator())
        if all(isinstance(number, int) for number in (value.start, value.stop, value.step)):
            low, high = sorted((int(texts[0]), int(texts[-1])))
            return IntDistribution(low, high, step=abs(value.step))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def demand_drawn(trial: optuna.trial.FrozenTrial, space: dict[str, Any], storage: str) -> None:
    """Raises UserError for a trial whose settings this search does not draw: what a database says is typed to fsl.

    A database may be a stranger's, so a setting that is not searched for, or a value outside its range, is no setting.
    """
    from fsl_cli.errors import UserError

    odd = sorted(trial.params.keys() ^ space.keys())
    odd += [f"{key}={value}" for key, value in trial.params.items() if key in space and not _within(space[key], value)]
    if odd:
        raise UserError(
            f"hydra.sweeper.storage={storage}: its trial {trial.number} is not of this search "
            f"({', '.join(odd)[:200]}). Type hydra.sweeper.study_name=NAME for a study of its own."
        )


def _within(drawn: Any, value: Any) -> bool:
    """Whether a value is one that a distribution draws."""
    if hasattr(drawn, "choices"):
        return any(value == choice and type(value) is type(choice) for choice in drawn.choices)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and drawn.low <= value <= drawn.high


def _first(drawn: Any) -> Any:
    """Some value of a distribution."""
    return drawn.choices[0] if hasattr(drawn, "choices") else drawn.low


def _lock_path(storage: str, name: str) -> Path:
    """Beside a file of SQLite, else in the folder for temporary files."""
    import tempfile

    beside = storage.removeprefix("sqlite:///")
    return Path(f"{beside}.{name}.lock") if beside != storage else Path(tempfile.gettempdir()) / f"fsl-{name}.lock"
