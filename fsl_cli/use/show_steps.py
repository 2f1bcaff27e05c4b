"""fsl show steps: accuracy and loss by inner step over a run's test episodes, beyond the trained number of steps."""

from __future__ import annotations

from collections.abc import Sequence

from fsl_cli.use.opened import number, open_run, protocol, save, words_of_a_run


def show(words: Sequence[str], user_dir: str | None) -> None:
    """The picture that the words after `fsl show steps` ask for. Raises UserError."""
    from fsl_cli.experiment.allocator import keep_memory
    from fsl_cli.files import write_table
    from fsl_cli.pictures import lettering
    from fsl_cli.pictures.steps import draw
    from fsl_cli.runs.wording import score_text
    from fsl_cli.use.steps import LEAST, after_each, ladder, steps_of

    given = words_of_a_run("fsl show steps", words)
    upto = number(given, "upto", 0, 0)
    run = open_run(given, "steps", user_dir)
    learner = run.experiment.learner
    trained = steps_of(learner, run.settings.algo_name)
    keep_memory()
    rows = []
    for row in after_each(run, ladder(upto or max(LEAST, 2 * max(trained.values())))):
        rows.append(row)
        reached = score_text(learner.metric, row.value, row.value_interval)
        print(f"{row.steps:>5} steps   {reached}   loss {row.loss:.4f} ± {row.loss_interval:.4f}", flush=True)
    header = ["steps", learner.metric, f"{learner.metric}_interval", "loss", "loss_interval"]
    figure = draw(rows, trained, learner.metric, protocol(run))
    save(run.out, lambda path: lettering.save(figure, path))
    write_table(run.out.with_suffix(".csv"), header, rows)
    print(run.out.with_suffix(".csv"))
