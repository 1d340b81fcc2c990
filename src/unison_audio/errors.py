"""The exceptions for mistakes that the caller can correct."""

MOST_MESSAGE, KEPT_END = 1400, 500
"""Characters of a message, and those of its end, which says what to do, where it is cut."""


def bounded(message: str) -> str:
    """A message without the middle of a very long one, which quotes a long value."""
    if len(message) <= MOST_MESSAGE:
        return message
    return f"{message[: MOST_MESSAGE - KEPT_END - 5]} ... {message[-KEPT_END:]}"


class InputError(ValueError):
    """A value, file or instruction that cannot be used.

    The message is one sentence that names the value, says what was expected and what to do. The
    command line prints it without a traceback and exits with code 2.

    Args:
        message: The sentence, which is `bounded`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(bounded(message))


class StoppedError(KeyboardInterrupt):
    """A run that was asked to stop and has saved; a rerun resumes it.

    Args:
        message: One sentence that says up to where it is saved.
        signal_number: The signal that asked for it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class TextError(InputError):
    """An instruction that the text encoder cannot read.

    It is empty, too long, or contains the encoder's special tokens. Training draws another batch
    instead and counts it; everywhere else it is an ordinary `InputError`.
    """


class UnplacedError(InputError):
    """A part of an instruction that no task has a place for.

    The message quotes the part and says what to write instead. The parser puts the instruction
    before it.

    Args:
        message: The message, without a full stop.
        forms: Whether the parser lists the forms that fit, for a part that hints at none.
    """

    def __init__(self, message: str, *, forms: bool = False) -> None:
        super().__init__(message)
        self.forms = forms
