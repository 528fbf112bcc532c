"""The error for input that cannot be used, and warnings that point to whoever gave it."""

import inspect
import warnings
from numbers import Integral
from reprlib import Repr
from typing import Any

MAX_SHOWN = 80

# What a few lines of a file hold may be of any size when it is written out.
_short = Repr()
_short.maxlevel, _short.maxdict = 4, 20
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = 20
_short.maxstring = _short.maxlong = _short.maxother = 4 * MAX_SHOWN


class InputError(ValueError):
    """A file, an array or a parameter that cannot be used, worded for whoever gave it.

    `kedro run` shows the message alone. Any other ValueError is a defect and keeps its traceback.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        parameter: str | None = None,
        found: Any = None,
        expected: str | None = None,
    ) -> None:
        if message is None:
            message = f"{parameter}: got {shown(found)}, expected {expected}"
        super().__init__(message)
        self.parameter, self.found, self.expected = parameter, found, expected


def shown(value: Any) -> str:
    """What has been given, in one line of a message, shortened where it is long."""
    try:
        text = " ".join(line.strip() for line in _short.repr(value).splitlines())
    except ValueError:  # Python writes no integer of more than 4300 digits.
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 2]} …"


def require_integer(name: str, value: Any, minimum: int, maximum: int = 2**31 - 1) -> None:
    """Refuse what is no integer in a range.

    Raises:
        InputError: Naming it.
    """
    valid = isinstance(value, Integral) and not isinstance(value, bool)
    if not valid or not minimum <= value <= maximum:
        raise InputError(
            f"{name}: got {shown(value)}, expected an integer from {minimum} to {maximum}"
        )


def in_one_line(text: object) -> str:
    """A text of others, for instance an error's, for a message of one line."""
    return " ".join(str(text).split())


def shown_line(text: str) -> str:
    """A text of others in one line of a message, shortened where it is long."""
    line = in_one_line(text)
    return line if len(line) <= 2 * MAX_SHOWN else f"{line[: 2 * MAX_SHOWN - 2]} …"


def warn_caller(message: str) -> None:
    """Warn whoever has called this package, however far up that is."""
    frame, level = inspect.currentframe(), 0
    package = __name__.partition(".")[0]
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(f"{package}."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level + 1)
