"""The error for input that cannot be used, and warnings that point to whoever gave it."""

import inspect
import warnings


class InputError(ValueError):
    """A file, an array or a parameter that cannot be used, worded for whoever gave it.

    `kedro run` shows the message alone. Any other ValueError is a defect and keeps its traceback.
    """


def warn_caller(message: str) -> None:
    """Warn whoever has called this package, however far up that is."""
    frame, level = inspect.currentframe(), 0
    package = __name__.partition(".")[0]
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(f"{package}."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level + 1)
