"""The verbs of fsl: one table, each a module that is imported when it is called."""

from __future__ import annotations

import io
import os
import sys
import traceback

from fsl_cli import __version__
from fsl_cli.commands import call
from fsl_cli.errors import Interrupted, UserError, lines

VERBS = {
    "train": "meta-train an algorithm, validate, and test it once; -m sweeps, resume=DIR goes on",
    "test": "test a run again: any way, shot, query, episodes or data set",
    "predict": "classify your own pictures: a few known ones of each class, any number of new ones; needs no run",
    "try": "which head on a frozen network suits your pictures, and how far to believe it, in seconds",
    "export": "a run as ONNX or torch.export: its embedding, or the classifier of a support set",
    "embed": "the features that a network makes of a data set, in a file for data=embeddings",
    "distill": "a few images that teach a kernel regression what a whole data set does",
    "data": "data sets: ls, prepare (download, verify, decode), info, show (a picture), verify",
    "compare": "two runs on the same test episodes: the paired difference, and whether it counts",
    "report": "a table, or a page, of any runs: by protocol, over seeds, beside the published numbers",
    "reproduce": "published rows: how far each is; train and test them, beside the papers' numbers",
    "ls": "list algorithms, data sets, backbones and other choices",
    "show": "the composed settings and where each comes from; or episode, embedding, steps: what a run has learned",
    "config": "the composed settings as a YAML of your own: edit it, fsl train experiment=my.yaml",
    "check": "find everything that train would refuse, train nothing; -m: every run of a sweep",
    "doctor": "versions, devices, what does not fit together: text for a bug report",
    "bench": "measure speed and memory here, beside a plain loop",
}

HELP = f"""fsl {__version__}: a command-line laboratory for few-shot learning and meta-learning.

  fsl train                                          the built-in default, two to four minutes
  fsl train algo=maml data=omniglot way=5 shot=1     the paper's settings
  fsl test run=outputs/RUN way=20                    any N and k, with its interval

{chr(10).join(f"  fsl {verb:<7} {text}" for verb, text in VERBS.items())}

fsl VERB --help shows examples and what they print."""


def main() -> None:
    """The console script.

    Exit code 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM, 1 with a traceback for a bug of ours.
    """
    words = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where the terminal's encoding has no ± or …
    try:
        run(words)
    except UserError as error:
        print(f"fsl: {lines(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # such as fsl ls | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:
        traceback.print_exc()
        print(
            "fsl: this is a bug in fsl, unless fsl doctor finds something that does not fit. Please report it with "
            "the lines above and the doctor's.",
            file=sys.stderr,
        )
        sys.exit(1)


def run(words: list[str]) -> None:
    """Run one command line. Raises UserError for bad input."""
    if words[:1] == ["help"] and len(words) > 1:  # fsl help train
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP)
    elif words[0] in ("-V", "--version"):
        print(f"fsl {__version__}")
    elif words[0] in ("-sc", "--shell-completion"):
        from fsl_cli.settings.completion import complete

        complete(words, list(VERBS))
    elif words[0] not in VERBS:
        from fsl_cli.settings.hints import did_you_mean

        raise UserError(f"there is no verb '{words[0]}'.{did_you_mean(words[0], list(VERBS))} See fsl --help.")
    else:
        call(words[0], words[1:])
