"""fsl show optimizers: loss by step of a learned optimizer and of tuned hand-made ones, beyond the trained steps."""

from __future__ import annotations

from collections.abc import Sequence

from fsl_cli.errors import UserError
from fsl_cli.use.opened import number, open_run, protocol, save, words_of_a_run


def show(words: Sequence[str], user_dir: str | None) -> None:
    """The picture that the words after `fsl show optimizers` ask for. Raises UserError."""
    from fsl_cli.algorithms.l2l import L2L
    from fsl_cli.experiment.optimizers import compare, summary
    from fsl_cli.files import write_table
    from fsl_cli.pictures import lettering
    from fsl_cli.pictures.optimizers import draw
    from fsl_cli.runs.result_lines import optimizers_lines

    given = words_of_a_run("fsl show optimizers", words)
    upto = number(given, "upto", 0, 0)
    run = open_run(given, "optimizers", user_dir)
    algorithm = run.experiment.learner.algorithm
    if not isinstance(algorithm, L2L):
        raise UserError(
            f"algo={run.settings.algo_name} learns no optimizer. fsl show optimizers is for algo=l2l; "
            "for other methods that take steps there is fsl show steps."
        )
    descents = compare(run.experiment, run.part, upto or 2 * algorithm.test_steps)
    print("\n".join(optimizers_lines(summary(descents, algorithm.test_steps))), flush=True)
    figure = draw(descents, algorithm.inner_steps, protocol(run))
    save(run.out, lambda path: lettering.save(figure, path))
    rows = [[step, *each] for step, each in enumerate(zip(*(each.means for each in descents), strict=True))]
    write_table(run.out.with_suffix(".csv"), ["steps", *(each.name for each in descents)], rows)
    print(run.out.with_suffix(".csv"))
