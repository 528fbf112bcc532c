"""Room on the disk, looked for and said in plain words where it ends; files that appear whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lowshot_kedro.memory import format_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """The disk has no room, said with the name of the file and what is free."""


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Name the file in the error of a full disk, however deep libraries have wrapped it.

    Raises:
        DiskFullError: In place of any error whose cause is a full disk.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and getattr(cause, "errno", None) not in _FULL:
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        free = format_bytes(shutil.disk_usage(path.parent).free)
        message = f"{path}: the disk is full ({free} left), the file was not written"
        raise DiskFullError(errno.ENOSPC, message) from error


def require_space(path: Path, n_bytes: int) -> None:
    """Refuse to begin a file that the disk has no room for.

    Raises:
        DiskFullError: Naming the file, what it needs and what is free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise DiskFullError(
            errno.ENOSPC,
            f"{path}: the disk is too full, {format_bytes(n_bytes)} needed but only "
            f"{format_bytes(free)} free",
        )


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file of work in progress that is whole or not there, whatever stops the process.

    It gets its name when the block ends and the disk has it. One that nobody else writes at the
    same time: results of a run are written by the datasets.
    """
    unfinished = path.with_name(f".partial-{path.name}")
    with unfinished.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
