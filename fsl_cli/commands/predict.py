"""fsl predict: learn classes from known pictures and classify new ones, with a run or without."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from fsl_cli.errors import UserError, command, shown
from fsl_cli.settings.registry import names
from fsl_cli.settings.words import chosen_words, demand_no_choice, one_of, settings, yes_or_no

if TYPE_CHECKING:
    from fsl_cli.use.predictions import Predictions
    from fsl_cli.use.predictor import Predictor

HELP = """Learn classes from a few known pictures and classify new ones, with a network that ImageNet trained or a run.

  fsl predict support=photos/known query=photos/new                  at once: backbone=photos, nothing is trained
  fsl predict support=photos/known query=photos/new algo=rfs         another head; which one suits: fsl try
  fsl predict support=photos/known save=shop                         keep the classifier in a folder
  fsl predict run=shop query=photos/new                              and use it
  fsl predict run=shop add=photos/more                               more pictures, or classes, of which only these cost
  fsl predict run=shop correct=predictions/predictions.csv           and those that a person has set right in its labels
  fsl predict run=outputs/RUN support=photos/known query=photos/new  with a run of fsl train
  fsl predict run=outputs/RUN support=known.csv query='new/*.jpg'    a table file,label; single files: query=a.jpg,b.png
  fsl predict run=outputs/RUN support=known.zip query=new.tar.gz     zips and tars, read without unpacking
  fsl predict run=outputs/RUN support=known.csv query=new.csv        texts, of a run of data=texts: text,label and text
  fsl predict support=known.npz query=new.npz                        vectors: embeddings as they are; algo=…
  fsl predict run=outputs/RUN support=known.npz query=new.npz        with a run of data=embeddings
  fsl predict run=outputs/RUN class_rows=classes.npz query=new.npz   without known ones: a run of zeroshot, tipadapter
  fsl predict backbone=openclip backbone.tag=… algo=tipadapter classes='red fox,oak' query=photos/new    by names alone
  fsl predict … unlabelled=photos/more                               more pictures of the classes: a run of softkmeans
  fsl predict … unknown=0.01                                         of known pictures called unknown; off: none are
  fsl predict … html=true                                            a page with the pictures, to look through
  fsl predict … out=FOLDER on_error=skip                             another folder; leave out unreadable pictures
  fsl predict … --json                                               for scripts

support: a folder for each class (or a table, or a zip or tar of either), any number of pictures in each, of any size
and kind. What is left out is named.
query: sub-folders, or a column label, that name classes tell how many predictions are right.
Neither a GPU is needed nor the data that a run was trained on. For drawings and scans, train a run of such.

Prints the most doubtful first, for example:
  file                     label      next       doubt
  photos/new/ash/1.jpg     ash 51.1%  oak 46.2%  two classes are close
  …
  accuracy 93.33%, 28 of 30 pictures whose class is known
and writes predictions.csv (file, label, probability of each class and of none, doubt), predictions.html and
confusion.png."""

LISTED = 10  # pictures in the terminal
SHORT = 40  # letters of a text
DEFAULTS = {
    "run": "",
    "support": "",
    "query": "",
    "add": "",
    "correct": "",
    "unlabelled": "",
    "class_rows": "",
    "classes": "",
    "save": "",
    "out": "predictions",
    "html": "false",
    "unknown": "0.05",
    "on_error": "stop",
    "trust": "",
}


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl predict`. Raises UserError."""
    chosen, others = chosen_words([word for word in words if word != "--json"], ("algo", "backbone"))
    typed = settings("predict", others, DEFAULTS)
    _demand_enough(typed, chosen)
    one_of("on_error", typed["on_error"], ("stop", "skip"))
    html = yes_or_no("html", typed["html"])
    _demand_rate(typed["unknown"])

    from fsl_cli.experiment.allocator import keep_memory
    from fsl_cli.files import demand_writable, writing
    from fsl_cli.use.frozen import described
    from fsl_cli.use.known import WHAT, learn, support_of
    from fsl_cli.use.predicting import predicted, write
    from fsl_cli.use.predictions import as_json
    from fsl_cli.use.predictor import load_run
    from fsl_cli.use.saved import UNLABELLED, keep

    keep_memory()
    skipped: list[str] = []
    advice = "Choose another folder with out=FOLDER."
    if typed["query"]:
        demand_writable(Path(typed["out"]).expanduser() / "predictions.csv", advice)
    with redirect_stdout(sys.stderr):  # a script reads standard output
        run = load_run(typed["run"], names(typed["trust"])) if typed["run"] else _frozen(typed, chosen)
        if html and run.image.items == "embeddings":
            raise UserError("html=true: there is nothing to see of vectors. Leave it out.")
        if run.changed:
            print("norm=transductive: used with norm=support, as no prediction may depend on the other new pictures.")
        if not typed["run"]:
            print(f"{described(run)}; head algo={run.run.settings.algo_name}")
        support = support_of(run, typed, skipped)
        classify = learn(run, support, names(typed["trust"])) if typed["query"] else None  # or else nothing is kept
        place = typed["save"] or (typed["run"] if typed["add"] or typed["correct"] else "")
        if place:
            with writing(place, "Choose another folder with save=FOLDER."):
                keep(Path(place).expanduser(), run, support)
            what = f"{WHAT[run.image.items]}s"
            labels = [label for label in support.labels if label != UNLABELLED]
            more = len(support.labels) - len(labels)
            also = f", and {more:,} without labels" if more else ""
            by_row = f"{len(support.class_rows):,} classes by their rows" if support.class_rows else ""
            by_items = f"{len(labels):,} {what} of {len(set(labels)):,} classes{also}" if labels or not by_row else ""
            print(f"{place} knows {' and '.join(filter(None, (by_items, by_row)))}.")
        if not classify:
            return
        found = predicted(run, support, classify, typed, html, skipped)
    with writing(typed["out"], advice):
        files = write(Path(typed["out"]).expanduser(), found, html)
    if "--json" in words:
        print(json.dumps({"run": typed["run"], **as_json(found), "files": list(map(str, files))}, indent=2))
    else:
        _show(found, files, bool(run.run.settings.steps), run.algorithm.reads_class_rows)


def _frozen(typed: dict[str, str], chosen: Sequence[str]) -> Predictor:
    """A head on a network that came trained; on vectors as they are, where files of these are typed."""
    from fsl_cli.data.feature_files import FORMS
    from fsl_cli.data.vector_files import width_of
    from fsl_cli.use.frozen import frozen_predictor

    for key in ("support", "query"):
        word = next(iter(names(typed[key])), "")
        if word and ("backbone=identity" in chosen or Path(word).suffix.lower() in FORMS):
            return frozen_predictor(chosen, width_of(word, key))
    return frozen_predictor(chosen)


def _demand_rate(text: str) -> None:
    """Raises UserError where `unknown` is neither off nor a share."""
    if text != "off":
        try:
            good = 0 < float(text) < 1
        except ValueError:
            good = False
        if not good:
            raise UserError(
                f"unknown={text}: type the share of known pictures that may be called unknown by mistake, such as "
                "unknown=0.05, or unknown=off."
            )


def _calibration_line(found: Predictions, trained: bool, by_rows: bool) -> str:
    """How far the probabilities can be believed."""
    if found.calibration == "none":
        if not trained and not by_rows:
            wanted = "two classes with two pictures or more would show how"
            return f"probabilities are not calibrated, and strangers not told: {wanted}"
        how = (
            f": {command('fsl', 'test', f'run={found.run}')} fits a temperature"
            if (Path(found.run) / ("config.yaml" if trained else "result.json")).exists()
            else ""
        )
        return f"probabilities are not calibrated{how}"
    return f"probabilities at temperature {found.temperature:.3g}, {found.calibration}"


def _demand_enough(typed: dict[str, str], chosen: Sequence[str]) -> None:
    """Raises UserError where it is not said what to learn from, or what to do."""
    demand_no_choice(typed["run"], chosen)
    if not typed["run"] and not any(typed[key] for key in ("support", "class_rows", "classes")):
        raise UserError("fsl predict needs known pictures: type support=FOLDER, with a folder for each class.")
    if not any(typed[key] for key in ("query", "save", "add", "correct")):
        raise UserError("fsl predict needs query=: type query=FOLDER. See fsl predict --help.")


def _show(found: Predictions, files: Sequence[Path], trained: bool, by_rows: bool) -> None:
    """A short table, the accuracy where labels are known, and which files were written."""
    from rich.table import Table
    from rich.text import Text

    from fsl_cli.pictures.console import console
    from fsl_cli.pictures.lettering import cut
    from fsl_cli.use.predictions import accuracy_line, per_class, unknown_line

    first = found.doubtful_first()[:LISTED]
    why = ["doubt"] if any(map(found.why, first)) else []
    table = Table(*(["file", "text"] if found.texts else ["file"]), "label", "next", *why, box=None, pad_edge=False)
    for row in first:
        best, *others = (f"{shown(name)} {share:.1%}" for name, share in found.best(row, 2))
        style = "" if row.true in (None, found.label(row)) else "red"
        if row.is_unknown:
            best, others = f"{found.no_class} {row.unknown:.1%}", [best]
        reason = [found.why(row)] if why else []
        said = [Text(shown(cut(text, SHORT))) for text in found.named(row)[1:]]
        table.add_row(Text(shown(row.file), overflow="fold"), *said, Text(best, style), Text("".join(others)), *reason)
    screen = console()
    screen.print(table)
    if len(found.rows) > LISTED:
        screen.print(f"and {len(found.rows) - LISTED:,} more, less doubtful", highlight=False)
    screen.print(_calibration_line(found, trained, by_rows), highlight=False)
    if line := unknown_line(found):
        screen.print(line, highlight=False)
    if line := accuracy_line(found):
        screen.print(f"[bold]{line}[/]", highlight=False)
    scores = sorted(
        ((shown(name), counts) for name, counts in per_class(found).items()), key=lambda s: s[1][0] / s[1][1]
    )
    width = max((len(name) for name, _ in scores[:LISTED]), default=0)
    for name, (right, total) in scores[:LISTED]:
        screen.print(Text(f"  {name:<{width}}  {right / total:7.2%}  {right:,} of {total:,}"))
    if len(scores) > LISTED:
        screen.print(f"  and {len(scores) - LISTED:,} classes more, none of them worse", highlight=False)
    screen.print("files  " + "\n       ".join(map(str, files)), highlight=False, soft_wrap=True, markup=False)
