"""Files that others have put there, looked at before they are opened."""

from __future__ import annotations

import errno
import json
import pickle
import stat
import struct
from pathlib import Path
from typing import Any

from lowshot_kedro.errors import InputError

# What unpickling raises, PyTorch's too, for a file that is not its own or that is damaged. Neither
# documents it; these came of thousands of files with some bytes changed.
UNPICKLING_ERRORS = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def what_instead_of_file(path: Path) -> str | None:
    """What is there if it is no file, in words; None for a file.

    Raises:
        FileNotFoundError: If nothing is there.
        OSError: If it cannot be looked at.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return "a link that leads in a circle"
    return None if kind == stat.S_IFREG else _KINDS.get(kind, "something else")


def require_file(path: Path) -> int:
    """Size of a file in bytes. It is not opened: to open a named pipe may take for ever.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is a folder, a named pipe or another thing that is no file.
        OSError: If it cannot be looked at.
    """
    try:
        found = what_instead_of_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: no such file") from None
    if found is not None:
        raise InputError(f"{path}: is {found}, expected a file")
    return path.stat().st_size


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no file, no JSON, or lists within lists a thousand deep.
    """
    require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise InputError(f"{path}: brackets within brackets, too deep to be read") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); is it cut off?") from error
