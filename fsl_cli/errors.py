"""What the user did wrong, as opposed to what we did wrong."""


class UserError(Exception):
    """Bad input: shown as its message alone, no traceback, exit code 2.

    The message says what is wrong, what was found, and what to type instead.
    """


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after everything worth keeping was saved; the message says how to go on.

    `code` is the exit code, as shells have it: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


class Diverged(UserError):
    """Training met a loss or a meta-gradient that is no finite number; the run's folder is kept."""
