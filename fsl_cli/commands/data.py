"""fsl data: which data sets there are, preparing them, what is in them, and whether they are still whole."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from fsl_cli.errors import UserError, command, shown
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.settings.parts import Part
from fsl_cli.settings.registry import choices, take_user_dir

HELP = """What data sets there are and what is in them; NAME is one that fsl data ls shows.

  fsl data ls                            what exists, and what is prepared in the cache
  fsl data prepare NAME                  download, verify, decode: once; Ctrl-C is fine, it goes on where it stopped
  fsl data prepare NAME root=DIR size=84 any setting of conf/data/NAME.yaml, also for info and show
  fsl data info NAME                     classes, images, splits, duplicates, skipped files
  fsl data info NAME --json              the same for a script
  fsl data show NAME                     a picture of a few episodes, NAME-train.png
  fsl data show NAME split=test way=5 shot=1 query=5 episodes=3 seed=0 out=FILE.png
  fsl data verify NAME                   are the bytes in the cache still those that were written?

fsl data prepare prints, for example:
  omniglot is prepared: 1,623 classes, 32,460 images of 28 x 28 x 1
  took 9.6 s, 834 MB of memory at the peak (790 MB before it began), 25 MB on disk
  /root/.cache/fsl/omniglot-e2b2029cb346
and fsl data verify:
  whole  /root/.cache/fsl/omniglot-e2b2029cb346"""

EPISODES: dict[str, Any] = {
    "episodes": 3,
    "split": "train",
    "way": 5,
    "shot": 1,
    "query": 5,
    "seed": 0,
    "out": None,
}  # fsl data show


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl data`. Raises UserError."""
    user_dir, words = take_user_dir(words)
    verbs = {"ls": _ls, "prepare": _prepare, "info": _info, "show": _show, "verify": _verify}
    if not words:
        raise UserError(f"fsl data does what? Type fsl data followed by {', '.join(verbs)}. See fsl data --help.")
    verb, *rest = words
    if verb not in verbs:
        raise UserError(
            f"there is no 'fsl data {verb}'.{did_you_mean(verb, list(verbs))} There are {', '.join(verbs)}."
        )
    if verb != "ls":
        known = choices("data", user_dir)
        if not rest or "=" in rest[0] or rest[0].startswith("-"):
            raise UserError(f"Which data set? Type fsl data {verb} NAME, one of {', '.join(known)}.")
        if rest[0] not in known:
            near = did_you_mean(rest[0], list(known))
            raise UserError(f"there is no data set '{rest[0]}'.{near} There are {', '.join(known)}.")
    verbs[verb](rest, user_dir)


def _ls(words: Sequence[str], user_dir: str | None) -> None:
    from fsl_cli.data.inspection import SHARED, prepared, store_line, store_name

    cache = _cache(words, "ls")
    entries, folders = choices("data", user_dir), prepared(cache)
    width = max(map(len, entries))
    for name, text in entries.items():
        print(f"{name:<{width}}  {text}")
        for folder in folders:
            if store_name(folder) == SHARED.get(name, name):
                print(f"{'':<{width}}  prepared: {store_line(folder)}")
    known = {SHARED.get(name, name) for name in entries}
    for folder in folders:
        if store_name(folder) not in known:
            print(f"{store_name(folder)} (a store of no data set here)\n{'':<{width}}  prepared: {store_line(folder)}")
    if not folders:
        print(f"Nothing is prepared in {cache}. fsl data prepare NAME does it; so does the first fsl train data=NAME.")


def _prepare(words: Sequence[str], user_dir: str | None) -> None:
    from fsl_cli.data.inspection import bytes_text, shape_words

    part = _part(words, user_dir)
    before = _memory("VmRSS")
    started = time.time()
    data = _build(part)
    seconds = time.time() - started
    store, folder = data.store, _folder(data)
    shape = shape_words(data.items, *store.images.shape[1:])
    if (folder / "store.json").stat().st_mtime < started:
        print(f"{words[0]} is prepared already: {len(store.names):,} classes, {len(store.images):,} {shape}")
    else:
        print(f"{words[0]} is prepared: {len(store.names):,} classes, {len(store.images):,} {shape}")
        peak = _memory("VmHWM")
        memory = f"{bytes_text(peak)} of memory at the peak ({bytes_text(before)} before it began), " if peak else ""
        print(f"took {seconds:.1f} s, {memory}{bytes_text(store.images.nbytes)} on disk")
    print(folder)


def _info(words: Sequence[str], user_dir: str | None) -> None:
    from fsl_cli.data.inspection import summary
    from fsl_cli.pictures.data_lines import info_lines

    as_json = "--json" in words
    part = _part([word for word in words if word != "--json"], user_dir)
    with redirect_stdout(sys.stderr):  # a script reads standard output
        data = _build(part)
    found = {**summary(data), "name": words[0]}
    print(json.dumps(found, indent=2) if as_json else "\n".join(map(shown, info_lines(found))))


def _show(words: Sequence[str], user_dir: str | None) -> None:
    from fsl_cli.data.feasible import without_small
    from fsl_cli.data.sampler import Shape
    from fsl_cli.pictures.episodes import draw
    from fsl_cli.pictures.terminal import inline

    typed, settings = dict(EPISODES), [words[0]]
    for word in words[1:]:
        key, _, text = word.partition("=")
        if key not in EPISODES:  # also data.split=..., where a data set has a setting of that name
            settings.append(word)
        elif isinstance(EPISODES[key], int):
            least = 0 if key == "seed" else 1
            if not text.isdecimal() or int(text) < least:
                raise UserError(f"{word}: must be a whole number of at least {least}.")
            typed[key] = int(text)
        else:
            typed[key] = text
    out = Path(typed.pop("out") or f"{words[0]}-{typed['split']}.png")
    if out.suffix.lower() != ".png":
        png = command(f"out={out.with_suffix('.png')}")
        raise UserError(f"out={out}: the picture is a PNG. Type {png}.")
    data = _build(_part(settings, user_dir))
    if typed["split"] in data.splits:
        data = without_small(data, {typed["split"]: Shape(typed["way"], typed["shot"], typed["query"])})
    draw(data, out, **typed)
    inline(out)
    print(out)


def _verify(words: Sequence[str], user_dir: str | None) -> None:
    from fsl_cli.data.inspection import damage, prepared

    cache = _cache(words[1:], f"verify {words[0]}")
    folders = prepared(cache, words[0])
    if not folders:
        raise UserError(f"{words[0]} is not prepared in {cache}. Type fsl data prepare {words[0]}.")
    damaged = []
    for folder in folders:
        reason = damage(folder)
        print(f"{'damaged' if reason else 'whole'}  {folder}", flush=True)
        if reason:
            damaged.append(f"{folder}: {reason}.")
    if damaged:
        count = f"{words[0]}: {len(damaged)} damaged of {len(folders)} prepared. What opens one next builds it again:"
        raise UserError("\n  ".join([count, *damaged]))


def _cache(words: Sequence[str], verb: str) -> Path:
    """The cache that is meant: cache=FOLDER is all that these verbs take."""
    from fsl_cli.data.store import cache_folder

    for word in words:
        if word.partition("=")[0] not in ("cache", "data.cache") or "=" not in word:
            raise UserError(f"fsl data {verb} takes cache=FOLDER and nothing else, not '{word}'.")
    return cache_folder(words[-1].partition("=")[2] if words else None)


def _part(words: Sequence[str], user_dir: str | None) -> Part:
    """The data set with these settings; they may also be typed as for fsl train, data.root=..."""
    from fsl_cli.settings.binding import demand_fit, demand_root
    from fsl_cli.settings.compose import compose

    plain = ("data.", "trust=", "+", "~")
    settings = [word if word.startswith(plain) else f"data.{word}" for word in words[1:]]
    data = demand_fit(compose([f"data={words[0]}", *settings], user_dir).values).data
    demand_root(data)
    return data


def _build(part: Part) -> Any:
    from fsl_cli.data.store import DataSet
    from fsl_cli.settings.binding import build
    from fsl_cli.settings.parts import OfData, asked

    told = asked(part, OfData)
    if told.of:
        look = command("fsl", "data", "info", told.of, *([f"root={told.root}"] if told.root else []))
        raise UserError(f"These tasks are made of the items of data.of={told.of}. Type {look} to look at them.")
    data = build(part)
    if not isinstance(data, DataSet):
        raise UserError(f"{data.name} is drawn as it is needed: there are no images to prepare or to look at.")
    return data


def _folder(data: Any) -> Path:
    return Path(data.store.images.filename).parent


def _memory(field: str) -> int:
    """A field of Linux's /proc/self/status, in bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)
