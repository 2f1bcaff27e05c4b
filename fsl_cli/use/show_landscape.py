"""fsl show landscape: a task's losses over the plane through the learned start and two adapted weights."""

from __future__ import annotations

from collections.abc import Sequence

from fsl_cli.errors import UserError
from fsl_cli.use.opened import demand_index, number, open_run, protocol, save, words_of_a_run


def show(words: Sequence[str], user_dir: str | None) -> None:
    """The picture that the words after `fsl show landscape` ask for. Raises UserError."""
    import torch

    from fsl_cli.data.tasks import Batch
    from fsl_cli.experiment.datamodule import EVALUATION_SEED
    from fsl_cli.experiment.method import trained
    from fsl_cli.files import write_table
    from fsl_cli.pictures import lettering
    from fsl_cli.pictures.landscape import draw
    from fsl_cli.runs.run import Run
    from fsl_cli.use.landscape import LONGER, demand_same_weights, landscape, losses_at, walk

    given = words_of_a_run("fsl show landscape", words)
    index, folder = number(given, "index", 0, 0), given.pop("other", None)
    run = open_run(given, f"landscape-{index}", user_dir)
    demand_index(run, index)
    algorithm, name = run.experiment.learner.algorithm, run.settings.algo_name
    batch = Batch(run.part, EVALUATION_SEED, [index])
    [episode] = run.experiment.episodes.tasks.gather(batch, torch.device("cpu"))
    own = walk(algorithm, episode, name)
    if folder:
        theirs = Run(folder)
        if theirs.settings.image != run.settings.image:
            raise UserError(f"other={folder}: it sees other images than this run. Choose a run on the same data set.")
        other = walk(trained(theirs), episode, theirs.settings.algo_name)
        demand_same_weights(own[0], other[0], folder)
        names = ("this run", "the other")
    else:
        other = walk(algorithm, episode, name, LONGER)
        names = (f"{len(own) - 1} steps", f"{len(other) - 1} steps")
    ends = {"start": own[0], names[0]: own[-1], names[1]: other[-1]}
    for called, weights in ends.items():
        support, query = losses_at(algorithm, episode, weights)
        print(f"{called:<12} support loss {support:.4f}   query loss {query:.4f}", flush=True)
    found = landscape(algorithm, episode, own, other, names)
    figure = draw(found, f"{protocol(run)} episode {index}")
    save(run.out, lambda path: lettering.save(figure, path))
    write_table(run.out.with_suffix(".csv"), ["along", "across", "support_loss", "query_loss"], found.rows())
    print(run.out.with_suffix(".csv"))
