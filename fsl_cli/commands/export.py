"""fsl export: a run as one file for other programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import UserError, command
from fsl_cli.settings.registry import names
from fsl_cli.settings.words import chosen_words, demand_no_choice, one_of, settings

if TYPE_CHECKING:
    from fsl_cli.use.export_check import Difference

HELP = """Write a run as one file that needs no fsl, compared with the run before it is written.

  fsl export run=outputs/RUN                                     the embedding as ONNX, of methods that have one
  fsl export run=outputs/RUN support=photos/known                the classifier that it learns from a support set
  fsl export run=shop                                            the classifier that fsl predict … save=shop kept
  fsl export support=photos/known                                one on backbone=photos, without a run; algo=…
  fsl export … format=torch                                      for torch.export.load
  fsl export … precision=fp16                                    half the size; int8: a quarter; with what it costs
  fsl export … query=photos/test                                 compared on these pictures too, by their folders
  fsl export … out=FILE on_error=skip

The graph takes pictures as they are, uint8 RGB of any height and width, any number of one size at a time: it cuts out
the middle, resizes and scales as fsl predict does. Its metadata say what is left to do, the classes, the temperature,
the thresholds of unknown, and which run it is of; --json prints them. format=onnx needs: pip install "fsl-cli[export]"

Prints, for example:
  classifier.onnx   0.5 MB   pictures (n, height, width, 3) -> logits (n, 5), probabilities (n, 5)
  logits differ from the run's by 2.3e-06 at most, 4.6e-08 of their range, on 10 random and 25 support pictures"""

DEFAULTS = {
    "run": "",
    "support": "",
    "format": "onnx",
    "precision": "fp32",
    "query": "",
    "out": "",
    "on_error": "stop",
    "trust": "",
}
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
PRECISIONS = ("fp32", "fp16", "int8")


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl export`. Raises UserError."""
    chosen, others = chosen_words([word for word in words if word != "--json"], ("algo", "backbone"))
    typed = settings("export", others, DEFAULTS)
    known = bool(typed["support"]) or (Path(typed["run"]).expanduser() / "support.npz").exists()
    out = _demand_sense(typed, chosen, known)

    from fsl_cli.files import demand_writable, make_folder, replacing, writing
    from fsl_cli.use.export import (
        classifier,
        demand_classifier,
        demand_layers,
        demand_packages,
        embedding,
        exported,
    )
    from fsl_cli.use.export_check import disagreement, pictures, query_pictures
    from fsl_cli.use.frozen import frozen_predictor
    from fsl_cli.use.known import learn, support_of
    from fsl_cli.use.predictor import load_run

    demand_packages(typed["format"])
    demand_writable(out, "Choose another with out=FILE.")
    with redirect_stdout(sys.stderr):  # a script reads standard output
        run = load_run(typed["run"], names(typed["trust"]), device="cpu") if typed["run"] else frozen_predictor(chosen)
        if run.image.items != "images":
            by = "support" if run.algorithm.looks_at_support else "class_rows"
            use = command("fsl", "predict", f"run={run.run}", f"{by}=FILE", "query=FILE")
            raise UserError(f"{run.run} sees {run.image.items}: graphs are made for pictures. Type {use}.")
        demand_layers(run.algorithm)
        if run.changed:
            print("norm=transductive: exported with norm=support, as no prediction may depend on other pictures.")
        if known:
            demand_classifier(run)  # before it learns, which may take minutes
            support = support_of(run, typed, [])
            graph = classifier(learn(run, support, names(typed["trust"])))
            real = pictures(support, run.image.size)
        else:
            graph, real = embedding(run), []
        shown, labels = query_pictures(typed["query"], graph.about.get("classes", []), run.image.size)
        if typed["precision"] == "int8" and not real and not shown:
            raise UserError("precision=int8 must see pictures: type query=FOLDER with some.")
        made = exported(graph, typed["format"], typed["precision"], real, shown)
        seen = disagreement(made.wanted, made.found, labels) if made.wanted else {}
    with writing(out, "Choose another with out=FILE."):
        make_folder(out.parent)
        with replacing(out) as temporary:
            temporary.write_bytes(made.content)
    if "--json" in words:
        told = {"file": str(out), "bytes": len(made.content), "difference": made.difference._asdict()}
        print(json.dumps({**told, "precision": typed["precision"], "pictures": seen, **graph.about}, indent=2))
        return
    results = ", ".join(f"{name} {said.partition('),')[0].rstrip(')')})" for name, said in graph.outputs.items())
    print(f"{out}   {len(made.content) / 1e6:.1f} MB   pictures (n, height, width, 3) -> {results}")
    print(_difference_line(next(iter(graph.outputs)), made.difference))
    if seen:
        print(_lost_line(seen, typed["precision"], "of the query" if shown else "of the support set"))


def _demand_sense(typed: dict[str, str], chosen: Sequence[str], known: bool) -> Path:
    """Where the file goes. Raises UserError for words that do not go together."""
    if not typed["run"] and not typed["support"]:
        raise UserError("Which run? Type fsl export run=FOLDER (every fsl train prints its folder), or support=FOLDER.")
    demand_no_choice(typed["run"], chosen)
    one_of("format", typed["format"], list(ENDINGS))
    one_of("precision", typed["precision"], PRECISIONS)
    one_of("on_error", typed["on_error"], ("stop", "skip"))
    if typed["precision"] != "fp32" and typed["format"] != "onnx":
        raise UserError(f"precision={typed['precision']} is for format=onnx.")
    ending = ENDINGS[typed["format"]]
    out = Path(typed["out"] or ("classifier" if known else "embedding") + ending).expanduser()
    if out.suffix != ending:
        raise UserError(f"out={out}: its name must end in {ending}.")
    return out


def _difference_line(what: str, found: Difference) -> str:
    real = f" and {found.real:,} support" if found.real else ""
    where = f"on {found.random:,} random{real} pictures"
    return f"{what} differ from the run's by {found.absolute:.1e} at most, {found.relative:.1e} of their range, {where}"


def _lost_line(seen: dict[str, Any], precision: str, which: str) -> str:
    """What the file, or its precision, costs on pictures."""
    count = f"{seen['pictures']:,} pictures {which}"
    if "cosine_mean" in seen:
        return (
            f"{precision}: features of {count} are like the run's by a cosine of {seen['cosine_mean']:.4f} on average"
        )
    apart = (
        f"log-probabilities are off by {seen['log_probability_mean']:.1e}, {seen['log_probability_most']:.1e} at most"
    )
    line = f"{precision}: {seen['same_label']:,} of {count} keep their label; {apart}"
    if "accuracy" in seen:
        line += f"\naccuracy {seen['accuracy']:.2%}, the run's {seen['accuracy_of_the_run']:.2%}"
    return line
