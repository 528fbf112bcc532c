"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lowshot_kedro.resources import format_bytes


def partial_path(path: Path) -> Path:
    """Where a file is written before it gets its name; libraries that look see its suffix."""
    return path.with_name(f".partial-{path.name}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write to the path this yields; it is renamed to `path` at the end of the block.

    If the block fails the unfinished file is removed; if the process is killed, the next writer
    overwrites it. In neither case does `path` change.

    Raises:
        OSError: If the disk is full, naming the file and what is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = partial_path(path)
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = format_bytes(shutil.disk_usage(path.parent).free)
            raise OSError(
                error.errno, f"{path}: the disk is full ({free} left), the file was not written"
            ) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def require_space(path: Path, n_bytes: int) -> None:
    """Refuse to begin a file that the disk has no room for.

    Raises:
        OSError: Naming the file, what it needs and what is free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise OSError(
            errno.ENOSPC,
            f"{path}: the disk is too full, {format_bytes(n_bytes)} needed but only "
            f"{format_bytes(free)} free",
        )


def require_file(path: Path) -> int:
    """Size of a file in bytes.

    Raises:
        FileNotFoundError: If it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path.stat().st_size
