"""fsl export: a run as one file for other programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from fsl_cli.errors import UserError
from fsl_cli.settings.registry import names
from fsl_cli.settings.words import one_of, settings

HELP = """Write a run as one file that needs no fsl, checked against the run before it is written.

  fsl export run=outputs/RUN format=onnx                         the embedding, of methods that have one
  fsl export run=outputs/RUN format=onnx support=photos/known    the classifier that it learns from a support set
  fsl export run=outputs/RUN format=torch support=known.csv      for torch.export.load
  fsl export … out=FILE on_error=skip

The graph takes any number of images of 0 to 1, as they are in the file: the run's scaling is part of it. Its metadata
say size, channels and classes; --json prints them. format=onnx needs: pip install "fsl-cli[export]"

Prints, for example:
  classifier.onnx   0.5 MB   images (n, 3, 84, 84) of 0 to 1 -> probabilities (n, 5)
  differs from the run by 3.0e-07 at most, on random images"""

DEFAULTS = {"run": "", "format": "onnx", "support": "", "out": "", "on_error": "stop", "trust": ""}
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl export`. Raises UserError."""
    typed = settings("export", [word for word in words if word != "--json"], DEFAULTS)
    if not typed["run"]:
        raise UserError("Which run? Type fsl export run=FOLDER; every fsl train prints its folder.")
    one_of("format", typed["format"], list(ENDINGS))
    one_of("on_error", typed["on_error"], ("stop", "skip"))
    known = typed["support"] or (Path(typed["run"]).expanduser() / "support.npz").exists()
    name = ("classifier" if known else "embedding") + ENDINGS[typed["format"]]
    out = Path(typed["out"] or name).expanduser()
    if out.suffix != ENDINGS[typed["format"]]:
        raise UserError(f"out={out}: its name must end in {ENDINGS[typed['format']]}.")

    from fsl_cli.files import make_folder, replacing, writing
    from fsl_cli.use.export import classifier, demand_packages, embedding, exported
    from fsl_cli.use.known import learn, support_of
    from fsl_cli.use.predictor import load_run

    demand_packages(typed["format"])
    with redirect_stdout(sys.stderr):  # a script reads standard output
        run = load_run(typed["run"], names(typed["trust"]), device="cpu")
        graph = classifier(learn(run, support_of(run, typed, []), names(typed["trust"]))) if known else embedding(run)
        if run.changed:
            print("norm=transductive: exported with norm=support, as no prediction may depend on other pictures.")
        content, off = exported(graph, typed["format"])
    with writing(out, "Choose another with out=FILE."):
        make_folder(out.parent)
        with replacing(out) as temporary:
            temporary.write_bytes(content)
    if "--json" in words:
        print(json.dumps({"file": str(out), "bytes": len(content), "difference": off, **graph.about}, indent=2))
        return
    shape = ", ".join(map(str, graph.shape))
    print(f"{out}   {len(content) / 1e6:.1f} MB   images (n, {shape}) of 0 to 1 -> {graph.output} (n, {graph.width})")
    print(f"differs from the run by {off:.1e} at most, on random images")
