"""One verb a file: its words, its help, one call, and what is shown. Work belongs into the rooms below."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fsl_cli.data.progress import show_with
from fsl_cli.errors import UserError


def call(verb: str, words: list[str]) -> None:
    """Run `fsl VERB WORDS`: its file is imported only now. Raises UserError for bad input."""
    command = importlib.import_module(f"fsl_cli.commands.{verb}")
    if {"-h", "--help"} & set(words):
        print(f"fsl {verb}: {command.HELP}")
    else:
        show_with(_download_bar)
        with _impossible_paths():
            command.main(words)


@contextmanager
def _impossible_paths() -> Iterator[None]:
    """While inside, a path that no file can have becomes a UserError, wherever it was typed or listed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise UserError(f"{str(error.filename)[:60]}…: {error.strerror}. Type another path.") from error
    except RuntimeError as error:
        if "home directory" not in str(error):  # as pathlib says of ~nobody/x
            raise
        raise UserError(
            "a path begins with ~NAME, and there is no such user here. Type the whole path, from / on."
        ) from error


def _download_bar(name: str, have: int, length: int | None) -> AbstractContextManager[Callable[[int], Any]]:
    from fsl_cli.pictures.progress import download_bar  # imports rich, which is rarely needed

    return download_bar(name, have, length)
