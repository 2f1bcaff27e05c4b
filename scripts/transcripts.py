"""python scripts/transcripts.py [NAME...]: the transcripts and pictures in docs/ and README.md, by the commands below.

Three to ten minutes on two idle cores. Works in the folder outputs/docs, which holds the runs between two calls: with
names, only these are made again; the pages are filled with all, and with docs/examples, in any case.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "outputs" / "docs"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = {"transcript": "docs/transcripts/{}.txt", "example": "docs/examples/{}"}  # comment -> the file that it shows
BLOCK = re.compile(r"<!-- (transcript|example): (\S+) -->\n(```[^\n]*)\n.*?^```$", re.DOTALL | re.MULTILINE)

QUICK = {  # name of docs/transcripts/NAME.txt -> command; tests repeat these
    "help": "fsl --help",
    "ls-algo": "fsl ls algo",
    "ls-data": "fsl ls data",
    "show-settings": "fsl show algo=maml data=omniglot way=20",
    "typo": "fsl check algo=mamel shot=one",
}
COMMANDS = {  # the same; {protonet} and {maml} are the runs, @ is docs/pictures
    **QUICK,
    "train": "fsl train",
    "test": "fsl test run={protonet} way=20 shot=5",
    "train-maml": "fsl train algo=maml steps=300 val_every=100",
    "compare": "fsl compare {protonet} {maml}",
    "report": "fsl report outputs",
    "show-episode": "fsl show episode run={protonet} index=17 out=@episode.png",
    "show-embedding": "fsl show embedding run={protonet} method=tsne way=10 shot=5 out=@embedding.png",
    "show-steps": "fsl show steps run={maml} episodes=200 out=@steps.png",
    "data-show": "fsl data show glyphs split=test way=5 shot=1 out=@glyphs.png",
    "predict": "fsl predict run={protonet} support=photos/known query=photos/new",
    "bench": "fsl bench",
}


def main(names: list[str]) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    photos(WORK / "photos")
    for name in names or COMMANDS:
        line = COMMANDS[name].format(protonet=latest("protonet"), maml=latest("maml"))
        print(f"$ {line}", flush=True)
        (ROOT / "docs" / "transcripts" / f"{name}.txt").write_text(transcript(line, WORK))
    for page in PAGES:
        page.write_text(fill(page.read_text()))


def fill(text: str) -> str:
    """A page with its transcripts and examples, each behind a comment that names it: whole for readers of the clone."""

    def block(match: re.Match[str]) -> str:
        kind, name, fence = match.groups()
        return f"<!-- {kind}: {name} -->\n{fence}\n{(ROOT / SHOWN[kind].format(name)).read_text()}```"

    return BLOCK.sub(block, text)


def transcript(line: str, folder: Path) -> str:
    """A command typed in a folder, and what it says; exits where it breaks."""
    words = [sys.executable, "-m", "fsl_cli", *shlex.split(line.replace("@", "../../docs/pictures/"))[1:]]
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode not in (0, 2):
        sys.exit(done.stdout)
    said = [text.rstrip() for text in done.stdout.replace("../../docs/pictures/", "").splitlines()]
    return "\n".join([f"$ {line.replace('@', '')}", *said, ""])


def latest(algorithm: str) -> str:
    """The last run of an algorithm, as a path from the working folder; a word of its own where there is none yet."""
    runs = sorted(WORK.glob(f"outputs/{algorithm}-glyphs-5w1s/*/result.json"))
    return str(runs[-1].parent.relative_to(WORK)) if runs else f"no-run-of-{algorithm}"


def photos(folder: Path) -> None:
    """Dark characters on white paper, as a scanner would see them: six of each class to learn from, ten to classify."""
    from fsl_cli.data.sources.glyphs import draw

    for number in range(1500, 1505):  # beyond the classes of data=glyphs
        for i, drawing in enumerate(draw(seed=0, number=number, drawings=16, size=56)):
            place = folder / ("known" if i < 6 else "new") / f"sign{number - 1499}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - np.asarray(drawing[0])).save(place / f"{i}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
