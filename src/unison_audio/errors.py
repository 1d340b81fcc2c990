"""The exceptions for mistakes that the caller can mend."""


class InputError(ValueError):
    """A value, file or instruction that cannot be used.

    The message is one sentence that names the value, says what was expected and what to do. The
    command line prints it without a traceback and exits with code 2.
    """


class TextError(InputError):
    """An instruction that the text encoder cannot read: empty, too long, or with its own marks.

    Training draws another batch in its place and counts that; everywhere else it is a mistake
    like any other.
    """
