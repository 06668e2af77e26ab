"""The one exception that stands for a user's mistake."""


class InputError(ValueError):
    """What was got, what was expected and where, in one sentence.

    The command line prints it without a traceback and exits with status 2.
    """
