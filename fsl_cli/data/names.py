"""What names say of a user's data set: what it is called, which split a part is, which files are no pictures."""

from __future__ import annotations

import re
from pathlib import Path

WORDS = {  # what a split is called, strong words first
    "train": ("train", "training", "trn", "trainval", "base", "seen", "background"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "novel", "unseen"),
}
WEAK = {"base", "seen", "background", "novel", "unseen"}  # a word beside them says more: novel_val is for validation
AFFIX = r"(?:set|split|data|dataset|images?|imgs?|pictures?|photos?|classes|files?|list|part|fold|cls)?"
MEANING = {word: part for part, words in WORDS.items() for word in words}
GLUED = re.compile(rf"(?:meta|my|the|mini)?({'|'.join(sorted(MEANING, key=len, reverse=True))}){AFFIX}")
TOKENS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
JUNK = {  # folders and files that systems and programs leave, in lower case; so are all that begin with a dot
    "__macosx", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "$recycle.bin", "__pycache__", "lost+found",
    "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini",
}  # fmt: skip
TABLES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet"}
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"}
EMBEDDINGS = {".npz", ".npy", ".safetensors"}


def own_name(root: str | None, name: str | None = None) -> str:
    """What a collection at `root` is called, in letters that a path may have: `name`, or as its folder or archive.

    A table is called as the folder that it lies in.
    """
    path = Path(root or "folder").expanduser().resolve()
    if path.suffix.lower() in TABLES:
        path = path.parent
    while path.suffix.lower() in ARCHIVES | EMBEDDINGS:
        path = path.with_suffix("")
    return re.sub(r"[^\w.-]+", "_", name or path.name).strip("._") or "folder"


def all_different(names: dict[str, str]) -> list[str]:
    """The names of what is called so, or what it is called where a name is there already."""
    found: list[str] = []
    for called, name in names.items():
        found.append(called if name in found else name)
    return found


def part_of(name: str) -> str | None:
    """The split that a name means: train, val or test, in any case, with prefixes and suffixes; None if not one."""
    found = [GLUED.fullmatch(token.casefold()) for token in TOKENS.findall(name)]
    if joined := GLUED.fullmatch(re.sub(r"[^a-z]", "", name.casefold())):  # TRAINing, trn-set
        found.append(joined)
    words = [match[1] for match in found if match]
    strong = {MEANING[word] for word in words if word not in WEAK}
    parts = strong or {MEANING[word] for word in words}
    if parts == {"train", "val"} and re.search(r"train.?val", name.casefold()):
        return "train"
    return parts.pop() if len(parts) == 1 else None


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is no part of anybody's data."""
    return name.startswith(".") or name.casefold() in JUNK
