"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lowshot_kedro.disk import full_disk_named
from lowshot_kedro.locks import SECONDS_TO_WAIT, written_by_one

# The beginning of the name under which a file is written.
UNFINISHED = ".partial-"


def partial_path(path: Path) -> Path:
    """The path that a file is written to before it gets its name, with its suffix for libraries."""
    return path.with_name(f"{UNFINISHED}{path.name}")


@contextmanager
def written_whole(*paths: Path, obsolete: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Write to the paths this yields; they are renamed to `paths` at the end of the block.

    If the block fails the unfinished files are removed; if the process is killed in it, the next
    writer overwrites them. In neither case do the files that were there before change.

    Several files appear together: the first path is the one without which the others count for
    nothing, so it is the first to go and the last to come back. A process that is killed between
    these renames leaves nothing that looks complete.

    Args:
        paths: The files. Another process that writes one of them is waited for, for some seconds.
        obsolete: Files of an older result that must not stand beside the new ones.

    Raises:
        DiskFullError: Naming the first path and what is left.
        ResultInUseError: Naming the path, and what else writes or reads it.
    """
    with written_by_one(*paths, seconds_to_wait=SECONDS_TO_WAIT):
        yield from _written_whole(paths, obsolete)


def _written_whole(paths: Sequence[Path], obsolete: Sequence[Path]) -> Iterator[list[Path]]:
    unfinished = [partial_path(path) for path in paths]
    try:
        with full_disk_named(paths[0]):
            yield unfinished
            for partial in unfinished:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
        if len(paths) > 1 or obsolete:
            for path in (*paths, *obsolete):
                path.unlink(missing_ok=True)
        for partial, path in reversed([*zip(unfinished, paths, strict=True)]):
            partial.replace(path)
    finally:
        for partial in unfinished:
            partial.unlink(missing_ok=True)
