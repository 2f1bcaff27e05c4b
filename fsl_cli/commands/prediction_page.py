"""What fsl predict found, to look at: a page that needs no network and no other file, and a confusion matrix."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from pathlib import Path

from fsl_cli.commands.predictions import Prediction, Predictions, accuracy_line
from fsl_cli.data.decode import File

SIDE = 128  # pixels of a thumbnail
WRITTEN = 25  # classes of a matrix in which counts are written
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(21em, 1fr)); gap: 1em }
.card { border: 1px solid #ccc; border-left: 6px solid #bbb; border-radius: 6px; padding: .6em }
.card { display: flex; gap: .8em }
.right { border-left-color: #2a9d4a } .wrong { border-left-color: #d33 }
.card img { width: 8em; height: 8em; object-fit: cover; border-radius: 4px; image-rendering: auto }
.card .near img { width: 3em; height: 3em; vertical-align: middle; margin-right: .4em }
.say { flex: 1; min-width: 0 } .file { color: #666; font-size: 12px; overflow-wrap: anywhere }
.bar { position: relative; background: #f1f1f1; margin: 2px 0; border-radius: 3px; overflow: hidden }
.bar i { position: absolute; inset: 0 auto 0 0; background: #bcd7f5 }
.bar span { position: relative; display: flex; justify-content: space-between; gap: 1em; padding: 0 .4em }
.near, .truth { font-size: 12px; margin-top: .4em }
"""


def thumbnail(file: File) -> str:
    """A small picture as a data URI, cut as the run sees it, in colour."""
    from PIL import Image

    from fsl_cli.data.photos import photo

    buffer = BytesIO()
    Image.fromarray(photo(file, SIDE, 3).transpose(1, 2, 0)).save(buffer, "JPEG", quality=80)
    return _uri("jpeg", buffer.getvalue())


def page(found: Predictions, matrix: Path | None) -> str:
    """The page: what is wrong comes first, then what is least sure. `matrix` is the confusion matrix's picture."""
    cards = [row for row in found.rows if row.file in found.thumbnails]
    cards.sort(key=lambda row: (row.true in (None, found.label(row)), max(row.probabilities)))
    more = f", of which the first {len(cards):,} are shown" if len(cards) < len(found.rows) else ""
    known = f"<p><b>{escape(accuracy_line(found))}</b></p>" if accuracy_line(found) else ""
    if matrix:
        known += f'<details><summary>Confusion matrix</summary><img src="{_uri("png", matrix.read_bytes())}"></details>'
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Predictions</title><style>{STYLE}</style>
<h1>{len(found.rows):,} pictures{more}</h1>
<p>{escape(found.algorithm)}, {escape(found.run)}: {len(found.support):,} support pictures of
{len(found.classes):,} classes. What is wrong comes first, then what is least sure.</p>
{known}
<div class="grid">
{"".join(_card(found, row) for row in cards)}</div></html>
"""


def _card(found: Predictions, row: Prediction) -> str:
    state = "" if row.true is None else "right" if row.true == found.label(row) else "wrong"
    bars = "".join(
        f'<div class="bar"><i style="width:{share:.1%}"></i><span><b>{escape(name)}</b>{share:.1%}</span></div>'
        for name, share in found.best(row, 3)
    )
    truth = f'<div class="truth">is <b>{escape(row.true)}</b></div>' if row.true and state == "wrong" else ""
    near = escape(found.classes[found.support[row.nearest]])
    return (
        f'<div class="card {state}"><img loading="lazy" src="{found.thumbnails[row.file]}">'
        f'<div class="say"><div class="file">{escape(row.file)}</div>{bars}{truth}'
        f'<div class="near" title="{escape(row.nearest)}"><img loading="lazy" src="{found.thumbnails[row.nearest]}">'
        f"nearest support: {near}</div></div></div>\n"
    )


def confusion_picture(found: Predictions, out: Path) -> None:
    """A PNG: each row a known class, each column what its pictures were taken for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    counts, classes = found.confusion(), found.classes
    side = min(3 + 0.35 * len(classes), 40)
    figure, axis = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    image = axis.imshow(counts, cmap="Blues")
    axis.set(xlabel="predicted", ylabel="true")
    names = [name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}" for name in classes]
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    for (i, j), count in ((place, int(counts[place])) for place in zip(*counts.nonzero(), strict=True)):
        if len(classes) <= WRITTEN:
            color = "white" if count > counts.max() / 2 else "black"
            axis.text(j, i, str(count), ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, label="pictures", shrink=0.8, ticks=MaxNLocator(integer=True))
    figure.savefig(out, dpi=120, format="png")
    pyplot.close(figure)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
