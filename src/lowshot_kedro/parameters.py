"""What parameters may be: checks that name what is wrong, and sections made from what people typed.

A section of parameters is a frozen dataclass beside the code that it configures. Its checks call a
parameter by its own name; :func:`read_section` puts the name of the section in front.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from lowshot_kedro.errors import InputError, did_you_mean

# The word for a value that is chosen by the data.
AUTO = "auto"

_MAX_INT32 = 2**31 - 1
# The square of this number fits single precision.
MAX_NUMBER = 1e18
# As bytes this amount fits an integer of 64 bits.
_MAX_GIGABYTES = 1e9

Section = TypeVar("Section")


def refuse(parameter: str, found: object, expected: str) -> InputError:
    """Make the error for a value that a parameter cannot have."""
    return InputError(parameter=parameter, found=found, expected=expected)


def require_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse what is no word of a list, and name the one that is probably meant."""
    if value not in allowed:
        hint = did_you_mean(value, allowed)
        raise refuse(name, value, f"one of: {', '.join(allowed)}{hint}")


def require_boolean(name: str, value: object) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise refuse(name, value, "true or false")


def truth_of(name: str, value: object) -> bool:
    """A truth value that a program gives: also NumPy's, which arrays hold, and 1 and 0.

    Raises:
        InputError: For anything else.
    """
    if isinstance(value, bool | np.bool_ | int | np.integer) and value in (0, 1):
        return bool(value)
    raise refuse(name, value, "true or false")


def require_integer(
    name: str,
    value: object,
    minimum: int,
    maximum: int = _MAX_INT32,
    where: str | Path | None = None,
    *,
    null: str | None = None,
    alternative: str | None = None,
) -> None:
    """Refuse what is no integer in a range.

    Args:
        name: Name of the parameter.
        value: Its value.
        minimum: The smallest that is allowed.
        maximum: The largest.
        where: The file or the entry of a catalog in which it stands.
        null: What None means, if it is allowed.
        alternative: What else the message says is allowed; whoever calls has seen that it is not.
    """
    if value is None and null is not None:
        return
    if not is_integer(value, minimum, maximum):
        other = f", or null = {null}" if null else f", or {alternative}" if alternative else ""
        expected = f"an integer from {minimum} to {maximum}{other}"
        raise InputError(parameter=name, found=value, expected=expected, where=where)


def require_num_workers(name: str, value: object) -> None:
    """Refuse what is no number of processes that decode images, nor `auto`."""
    if value != AUTO:
        require_integer(name, value, 0, 1024, alternative=AUTO)


def require_number(
    name: str,
    value: object,
    minimum: float,
    maximum: float = MAX_NUMBER,
    *,
    below: float | None = None,
) -> None:
    """Refuse what is no number of at least the minimum, and at most or below another."""
    if not is_number(value, minimum, maximum) or (below is not None and not value < below):  # type: ignore[operator]
        limit = f" and at most {maximum:g}" if below is None else f" and below {below:g}"
        raise refuse(name, value, f"a number of at least {minimum:g}{limit}")


def require_part(name: str, value: object, minimum: float = 0) -> None:
    """Refuse what is no number up to 1."""
    if not is_number(value, minimum, 1):
        raise refuse(name, value, f"a number from {minimum:g} to 1")


def require_gigabytes(name: str, value: object) -> None:
    """Refuse what is neither None nor an amount of memory in GB (10⁹ bytes)."""
    if value is not None:
        require_number(name, value, 0, _MAX_GIGABYTES)


def bytes_of(gigabytes: float | None) -> int | None:
    """An amount that people give in GB, 1 GB being 10⁹ bytes; None stays None."""
    return None if gigabytes is None else int(gigabytes * 10**9)


def is_integer(value: object, minimum: int, maximum: int = _MAX_INT32) -> bool:
    """Whether a value is an integer in a range, and no truth value."""
    valid = isinstance(value, Integral) and not isinstance(value, bool)
    return valid and minimum <= value <= maximum  # type: ignore[operator]


def is_number(value: object, minimum: float, maximum: float = MAX_NUMBER) -> bool:
    """Whether a value is a number in a range, and no truth value."""
    # Compared as it is: there are integers that no float can hold.
    valid = isinstance(value, Real) and not isinstance(value, bool)
    return valid and bool(minimum <= value <= maximum)  # type: ignore[operator]


def is_list(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether a value is a list or the like, and no text or section."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def distinct_values(name: str, found: object, check: Callable[[str, Any], None]) -> tuple[Any, ...]:
    """The values of a list that are searched or repeated, each of them once.

    Args:
        name: Name of the parameter.
        found: The list.
        check: Called with the name and each value; raises for one that cannot be used.
    """
    if not is_list(found):
        raise refuse(name, found, "a list, such as [1, 2]")
    values = list(found)
    if not values:
        raise refuse(name, values, "a list with at least one entry")
    for value in values:
        check(name, value)
    return tuple(dict.fromkeys(values))


def require_names(prefix: str, found: Mapping[str, Any], allowed: Mapping[str, bool]) -> None:
    """Refuse names of parameters or sections that are unknown, and miss those that are needed.

    Args:
        prefix: The section with a dot behind it, or "".
        found: What people typed.
        allowed: Whether each name is needed.
    """
    for name in found:
        if name not in allowed:
            hint = did_you_mean(name, allowed, shown_as=f"{prefix}{{}}".format)
            names = ", ".join(prefix + allowed_name for allowed_name in allowed)
            raise InputError(f"{prefix}{name}: unknown parameter{hint}; allowed: {names}")
    for name, is_needed in allowed.items():
        if is_needed and name not in found:
            raise InputError(f"{prefix}{name}: missing; expected it in conf/base or conf/<env>")


def field_names(section_class: type) -> dict[str, bool]:
    """The parameters of a section, and whether each is needed: those with a default are not."""
    return {
        field.name: field.default is MISSING and field.default_factory is MISSING
        for field in fields(section_class)
        if field.init
    }


def read_section(name: str, section_class: type[Section], values: object) -> Section:
    """A section made from what people typed.

    Args:
        name: Name of the section, for messages, for instance `graph` or `sweep.diffusion`.
        section_class: A dataclass whose `__post_init__` checks its fields.
        values: Parameter name → value; a section that is made already is taken as it is.

    Raises:
        InputError: For the first thing that is wrong: no mapping, an unknown or missing name, or a
            value out of range.
    """
    if isinstance(values, section_class):
        return values
    if not isinstance(values, Mapping):
        raise refuse(name, values, "a section of parameters")
    require_names(f"{name}.", values, field_names(section_class))
    return in_section(name, lambda: section_class(**values))


def in_section(
    name: str, make: Callable[[], Section], names: Container[str] | None = None
) -> Section:
    """Call a function, and let its errors about a parameter be about one of a section.

    Args:
        name: Name of the section.
        make: The function.
        names: Names of its parameters; None: all that errors can be about.
    """
    try:
        return make()
    except InputError as error:
        if error.parameter is None or (names is not None and error.parameter not in names):
            raise
        raise error.renamed(f"{name}.{error.parameter}") from error
