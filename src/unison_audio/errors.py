"""The one exception for mistakes that the caller can mend."""


class InputError(ValueError):
    """A value, file or instruction that cannot be used.

    The message is one sentence that names the value, says what was expected and what to do. The
    command line prints it without a traceback and exits with code 2.
    """
