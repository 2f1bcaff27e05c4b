"""Guesses which accepted word was meant by a mistyped one."""

from __future__ import annotations

from collections.abc import Sequence


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` Did you mean maml?`, or nothing when nothing is near."""
    near = nearest(word, known)
    return f" Did you mean {near}?" if near else ""


def nearest(word: str, known: Sequence[str]) -> str:
    """The one of `known` that was probably meant: a few slips of the keyboard away, the more the longer it is.

    Of dotted settings only the last part may be misspelt; it may also stand alone, as inner_lr for algo.inner_lr.
    """
    before, dot, last = word.rpartition(".")
    inside = [each for each in known if each.rpartition(".")[0] == before] if dot else list(known)
    tails = [each.rpartition(".")[2] if dot else each for each in inside]
    found = [(edit_distance(_plain(last), _plain(tail)), each) for tail, each in zip(tails, inside, strict=True)]
    if not dot:
        tails = [each.rpartition(".")[2] for each in known]
        found += [(edit_distance(_plain(word), _plain(tail)), each) for tail, each in zip(tails, known, strict=True)]
    good = [(count, each) for count, each in found if count <= max(1, min(len(last), 12) // 4) and count < len(last)]
    if good:
        return min(good, key=lambda pair: pair[0])[1]
    begun = [each for each in known if len(word) > 3 and each.startswith(word)]
    return begun[0] if len(begun) == 1 else ""


def edit_distance(word: str, other: str) -> int:
    """How many letters must be left out, put in, exchanged or swapped to make one word of the other; 1 to reorder."""
    if word != other and sorted(word) == sorted(other):
        return 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word):
        further, before, row = before, row, [i + 1]
        for j, theirs in enumerate(other):
            row.append(min(before[j] + (letter != theirs), before[j + 1] + 1, row[j] + 1))
            if i and j and letter == other[j - 1] and word[i - 1] == theirs:
                row[-1] = min(row[-1], further[j - 1] + 1)
    return row[-1]


def _plain(word: str) -> str:
    return word.lower().lstrip("-").replace("-", "").replace("_", "")
