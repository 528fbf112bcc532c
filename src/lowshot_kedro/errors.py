"""The error for input that cannot be used, and warnings that point to whoever gave it."""

from __future__ import annotations

import inspect
import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from difflib import get_close_matches
from enum import Enum
from itertools import islice
from numbers import Real
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar, cast

from lowshot_kedro.memory import format_gigabytes

MAX_SHOWN = 80
_MAX_DETAILS = 3
# Set to 1, commands show the traceback above the line that says what is wrong.
TRACEBACK_VARIABLE = "LOWSHOT_TRACEBACK"

_Error = TypeVar("_Error", bound="InputError")

# What a few lines of a file hold may be of any size when it is written out.
_short = Repr()
_short.maxlevel, _short.maxdict = 4, 20
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = 20
_short.maxstring = _short.maxlong = _short.maxother = 4 * MAX_SHOWN


class _NotGiven(Enum):
    """What `found` is where nothing was found: it may have been None."""

    NOT_GIVEN = "not given"


class InputError(ValueError):
    """A file, an array or a parameter that cannot be used, worded for whoever gave it.

    `kedro run` shows the message alone. Any other ValueError is a defect and keeps its traceback.

    A package names its own arguments. Whoever lets people type them under other names (a Kedro
    parameter, a parameter of the estimator, an option of a command) says the error in those, with
    :meth:`worded` or :meth:`renamed`.

    Args:
        message: What is wrong, without the parameter and what was found. For a file or an array
            this is the whole text.
        parameter: The argument that cannot be used, as the package that refuses it calls it.
        found: Its value. A number of bytes is said in GB where the parameter ends in `_bytes`.
        expected: What could be used.
        where: The file, or the entry of a catalog, in which the parameter stands.
        made_by: The pipeline that makes what is missing.
        details: The errors that this one sums up, by the name of what failed; the text has the
            first three of them.

    Attributes:
        parameter: The parameter as given; None for an error that is about no parameter.
        found: The value as given; None where none was.
        expected: What could be used, as given.
        made_by: The pipeline as given.
        origin: Name of the module that refused the input.
    """

    def __init__(
        self,
        message: str = "",
        *,
        parameter: str | None = None,
        found: Any = _NotGiven.NOT_GIVEN,
        expected: str | None = None,
        where: str | Path | None = None,
        made_by: str | None = None,
        details: Mapping[str, BaseException] | None = None,
    ) -> None:
        self.parameter = parameter
        self.found = None if found is _NotGiven.NOT_GIVEN else found
        self.expected = expected
        self.made_by = made_by
        self.origin = _raising_module()
        self._where = None if where is None else str(where)
        self._details = dict(details or {})
        # Composed at once: what was found may be changed later.
        said = [] if found is _NotGiven.NOT_GIVEN else [f"got {_amount(parameter, found)}"]
        if message:
            said.append(message)
        self._statement = ", ".join(said)
        if expected is not None:
            joint = "; " if message else ", " if said else ""
            self._statement += f"{joint}expected {expected}"
        super().__init__(self.worded())

    def __str__(self) -> str:
        return self.worded()

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors are sent from process to process, but not all that people give can be.
        kind, arguments, *_ = cast("tuple[Any, ...]", super().__reduce__())
        state = dict(vars(self))
        try:
            pickle.dumps(self.found)
        except Exception:
            state["found"] = shown(self.found)
        return kind, arguments, state

    def worded(
        self,
        name_of: Callable[[InputError], str | None] | None = None,
        command: Callable[[str], str] | None = None,
    ) -> str:
        """The message, in the names of whoever reads it.

        Args:
            name_of: What they call the parameter of an error; None: as the error calls it.
            command: What they type to run a pipeline; None: its name is enough.
        """
        name = self.parameter
        if name is not None and name_of is not None:
            name = name_of(self)
        text = ": ".join(part for part in (self._where, name, self._statement) if part)
        if self._details:
            details = [
                f"{what}: {_detail(error, name_of, command)}"
                for what, error in islice(self._details.items(), _MAX_DETAILS)
            ]
            if len(self._details) > len(details):
                details.append("…")
            text += f": {'; '.join(details)}"
        if self.made_by is None:
            return text
        if command is None:
            return f"{text}; the pipeline {self.made_by} makes it"
        return f"{text}; make it with: {command(self.made_by)}"

    def renamed(self: _Error, parameter: str) -> _Error:
        """The same error about a parameter that others know under another name."""
        other = copy(self)
        other.parameter, other.found = parameter, self.found
        return other


class MissingFileError(InputError, FileNotFoundError):
    """A parameter names a file that is not there."""


class NotEnoughMemoryError(InputError):
    """The work does not fit into the memory that it may take."""


# Modules that refuse for others.
_CHECKS = (__name__, f"{__package__}.parameters")


def _raising_module() -> str:
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in _CHECKS:
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__"))


def _amount(parameter: str | None, found: Any) -> str:
    is_number = isinstance(found, Real) and not isinstance(found, bool)
    if is_number and parameter is not None and parameter.endswith("_bytes"):
        return format_gigabytes(found)
    return shown(found)


def _detail(
    error: BaseException,
    name_of: Callable[[InputError], str | None] | None,
    command: Callable[[str], str] | None,
) -> str:
    text = error.worded(name_of, command) if isinstance(error, InputError) else error
    return in_one_line(text) or type(error).__name__


def did_you_mean(
    found: object, known: Iterable[str], n: int = 1, shown_as: Callable[[str], str] = str
) -> str:
    """The hint ` (did you mean X?)` for words near one that was typed; nothing where none is near.

    Args:
        found: What was typed; only a text has a hint.
        known: Words; upper and lower case count as the same.
        n: How many are named at most.
        shown_as: What to type for a word.
    """
    if not isinstance(found, str):
        return ""
    words = {word.lower(): word for word in known}
    near = get_close_matches(found.lower(), words, n=n)
    hint = " or ".join(shown_as(words[word]) for word in near)
    return f" (did you mean {hint}?)" if near else ""


def traceback_is_wanted() -> bool:
    """Whether whoever started the process wants to see where errors come from."""
    return os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0")


def shown(value: Any) -> str:
    """What has been given, in one line of a message, shortened where it is long."""
    try:
        text = " ".join(line.strip() for line in _short.repr(value).splitlines())
    except ValueError:  # Python writes no integer of more than 4300 digits.
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 2]} …"


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
