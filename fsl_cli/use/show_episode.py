"""fsl show episode: one test episode as a run sees it, its queries marked right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import UserError
from fsl_cli.use.opened import Finished, demand_index, number, open_run, protocol, save, words_of_a_run
from fsl_cli.use.show_fit import draw_fits

if TYPE_CHECKING:
    from torch import Tensor

    from fsl_cli.data.store import DataSet
    from fsl_cli.episodes import Examples


def show(words: Sequence[str], user_dir: str | None) -> None:
    """The picture that the words after `fsl show episode` ask for. Raises UserError."""
    from fsl_cli.pictures import lettering

    given = words_of_a_run("fsl show episode", words)
    index = number(given, "index", 0, 0)
    run = open_run(given, f"episode-{index}", user_dir)
    demand_index(run, index)
    if run.experiment.learner.metric == "bits":
        raise UserError(f"The tasks of {run.experiment.data.name} have no classes to show. Type fsl show steps.")
    if run.experiment.learner.metric == "mse":  # no images: as fsl show fit
        draw_fits(run.out, run, [index])
        return
    figure, title = _predictions(run, index)
    print(title)
    save(run.out, lambda path: lettering.save(figure, path))


def _predictions(run: Finished, index: int) -> tuple[Any, str]:  # a figure of Matplotlib, and its title
    import torch

    from fsl_cli.data.tasks import Batch
    from fsl_cli.experiment.datamodule import EVALUATION_SEED
    from fsl_cli.pictures.episodes import class_names
    from fsl_cli.pictures.marked_episode import draw
    from fsl_cli.pictures.text_lines import marked_lines, text_lines

    tasks: Any = run.experiment.episodes.tasks
    [episode] = tasks.gather(Batch(run.part, EVALUATION_SEED, [index]), torch.device("cpu"))
    with torch.no_grad():
        logits = run.experiment.learner.classifier(episode)(episode.query.x)[0]  # (m, way)
    right = int((logits.argmax(-1) == episode.query.y[0]).sum())
    title = f"{protocol(run)} episode {index}: {right} of {len(logits)} right ({right / len(logits):.2%})"
    names = class_names(tasks.data, run.part, episode.classes[0].tolist())
    if tasks.data.items == "embeddings":
        raise UserError(
            f"{tasks.data.name} has embeddings, of which there is no picture. Type fsl show embedding run=RUN."
        )
    if tasks.data.items == "texts":
        return text_lines(marked_lines(episode, logits.softmax(-1), names, title)), title
    support, query = (_images(part, tasks.data) for part in (episode.support.labelled(), episode.query))
    return draw(support, query, logits.softmax(-1), names, title), title


def _images(examples: Examples, data: DataSet) -> list[tuple[Tensor, int]]:
    """The images of one task as the backbone sees them, their pixels 0..1 again, and their labels."""
    import torch

    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    return [*zip((examples.x[0] * std + mean).clamp(0, 1), examples.y[0].tolist(), strict=True)]
