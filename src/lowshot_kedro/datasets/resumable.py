"""Results that are computed while they are saved, and that a later run can continue or keep.

Beside the files of a result lies a note, NAME.made_from.json: all that the result follows from.
Work in progress lies beside them as well, in a folder .partial-NAME.work with a note of its own,
and in the partial files.
"""

from __future__ import annotations

import abc
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from lowshot_kedro.blocks import Resumable, RowBlocks
from lowshot_kedro.datasets.files import partial_path, written_whole
from lowshot_kedro.disk import full_disk_named, require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import read_json
from lowshot_kedro.locks import ResultInUseError, read_by_many, written_by_one

logger = logging.getLogger(__name__)

Block = TypeVar("Block")
Content = TypeVar("Content")
Facts = dict[str, Any]

# Another process may just be tidying up.
_SECONDS_TO_END = 1.0
_LONGEST_FACT = 20
_MAX_FACTS = 6
_MISSING = object()


class ResumableFiles:
    """The files of one result, the note of what it was made from, and the work in progress.

    Args:
        filepath: What the note and the folder of the work are named after.
        paths: The files. The first is the one without which the others count for nothing.
        obsolete: Files of an older result that must not stand beside new ones.
    """

    def __init__(self, filepath: Path, *paths: Path, obsolete: Sequence[Path] = ()) -> None:
        self.paths = paths
        self._obsolete = obsolete
        self.note = filepath.with_name(f"{filepath.name}.made_from.json")
        self.work_folder = partial_path(filepath.with_name(f"{filepath.name}.work"))
        self._work_note = self.work_folder / "made_from.json"

    def exist(self) -> bool:
        """Whether all files are there."""
        return all(path.is_file() for path in self.paths)

    def provenance(self) -> Facts | None:
        """What the note says; None without a note, and nothing in one that cannot be read."""
        return _read_note(self.note)

    def differ_only_in(self, provenance: Mapping[str, Any], names: Collection[str]) -> bool:
        """Whether files are there whose note says the same but for facts of these names."""
        older, wanted = self.provenance(), _as_json(provenance)
        if not older or not self.paths[0].is_file():
            return False
        facts = (older.keys() | wanted.keys()) - set(names)
        return all(older.get(name, _MISSING) == wanted.get(name, _MISSING) for name in facts)

    def unfinished_provenance(self) -> Facts | None:
        """What the note in the folder of the work in progress says; None without a note."""
        return _read_note(self._work_note)

    def facts(self) -> dict[str, str]:
        """The short facts of what the files were made from, as one line for a preview."""
        provenance = self.provenance() or {}
        short = [
            f"{key} {value}"
            for key, value in provenance.items()
            if isinstance(value, str | int | float) and len(str(value)) <= _LONGEST_FACT
        ]
        return {"made from": ", ".join(short[:_MAX_FACTS])} if short else {}

    def require_space(self, n_bytes: int) -> None:
        """Refuse to begin files that the disk has no room for, unless they are there already.

        Raises:
            DiskFullError: Naming the first path, what it still needs and what is free.
        """
        if not self.exist():
            begun = sum(path.stat().st_size for path in self._partials() if path.is_file())
            require_space(self.paths[0], max(0, n_bytes - begun))

    def are_of_others(self) -> bool:
        """Whether all files are there without a note: such files are used as they are."""
        return self.exist() and self.provenance() is None

    @contextmanager
    def written_anew(self) -> Iterator[list[Path]]:
        """Write a result without a note, as :func:`~.files.written_whole` does.

        An older note would be wrong, and work in progress would be continued in other files.
        """
        with written_by_one(*self.paths):
            self._remove_work_folder()
            obsolete = [path for path in (self.note, *self._obsolete) if path.exists()]
            with written_whole(*self.paths, obsolete=obsolete) as unfinished:
                yield unfinished

    def save(
        self,
        data: Resumable[Content],
        check: Callable[[], None],
        write: Callable[[Content, Sequence[Path]], None],
    ) -> None:
        """Compute and write a result, as far as that is not done already.

        Files that are there stay as they are if their note says the same, or if there is no note:
        then somebody else has made them. Files made from something else are replaced when the new
        ones are complete. Whatever stops this, what has been done lasts for the next attempt.

        Args:
            data: What to compute.
            check: Refuses files that are there but damaged, by raising.
            write: Gets the content and a path for each file; it continues what it finds there.

        Raises:
            DiskFullError: Naming the first path.
            ResultInUseError: If another process writes or reads the files, naming one.
            ValueError: If `provenance` cannot be written as JSON. And whatever `check`, `write` and
                the computation raise.
        """
        wanted = _as_json(data.provenance)
        self.paths[0].parent.mkdir(parents=True, exist_ok=True)
        with full_disk_named(self.paths[0]):
            # What is kept is read, which others may do too; nothing is tidied up then.
            if self.are_kept(wanted):
                with read_by_many(*self.paths, seconds_to_wait=_SECONDS_TO_END):
                    if self.are_kept(wanted):
                        self._keep(wanted, check)
                        return
            with self.written_by_one():
                if self._is_to_be_kept(wanted):
                    self._keep(wanted, check)
                    # A process that was killed after it had named the files has left its work.
                    if self.provenance() == wanted and _read_note(self._work_note) in (
                        None,
                        wanted,
                    ):
                        with suppress(OSError):
                            self._remove_work()
                else:
                    self._compute(data, wanted, write)

    def are_kept(self, provenance: Mapping[str, Any]) -> bool:
        """Whether there is nothing to compute of a result, and nothing to tidy up."""
        return self._is_to_be_kept(_as_json(provenance)) and not self.work_folder.exists()

    @contextmanager
    def written_by_one(self) -> Iterator[None]:
        """Keep other processes away from the files and what is unfinished of them.

        Raises:
            ResultInUseError: If another process writes or reads the files, naming one.
        """
        with written_by_one(*self.paths, seconds_to_wait=_SECONDS_TO_END):
            yield

    def _compute(
        self,
        data: Resumable[Content],
        wanted: Facts,
        write: Callable[[Content, Sequence[Path]], None],
    ) -> None:
        older = self.provenance()
        if self.exist() and older is not None:
            logger.info(
                "%s was made from something else (%s): computed anew, the old one stays until then",
                self.paths[0],
                _difference(older, wanted),
            )
        if not self._has_only_to_be_named(wanted):
            self._prepare(wanted)
            try:
                write(data.begin(self.work_folder), self._partials())
            except ResultInUseError:
                raise
            except InputError:
                # Whoever mends the input gets another result: there is nothing to continue.
                self._remove_work()
                raise
            for partial in self._partials():
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
        self._name(wanted)
        # Complete is complete, even where a network file system does not let go of an open file.
        with suppress(OSError):
            self._remove_work_folder()

    def _partials(self) -> list[Path]:
        return [partial_path(path) for path in self.paths]

    def _is_to_be_kept(self, wanted: Facts) -> bool:
        return self.exist() and self.provenance() in (None, wanted)

    def _keep(self, wanted: Facts, check: Callable[[], None]) -> None:
        check()
        if self.provenance() == wanted:
            logger.info("%s is there already, made from the same: kept", self.paths[0])
        else:
            logger.info(
                "%s is there already, without a note of what it was made from: used as it is. "
                "Delete it to have it computed anew",
                self.paths[0],
            )

    def _has_only_to_be_named(self, wanted: Facts) -> bool:
        """Whether an earlier process was killed while it named its complete files.

        Only then is the note beside files of which the first is missing: _prepare takes it away.
        """
        return (
            self.provenance() == _read_note(self._work_note) == wanted
            and not self.paths[0].exists()
            and partial_path(self.paths[0]).is_file()
            and all(partial_path(path).is_file() or path.is_file() for path in self.paths)
        )

    def _prepare(self, wanted: Facts) -> None:
        """Make the folder of the work; remove what was begun from something else."""
        if not self.exist() and self.provenance() == wanted:
            # Beside unfinished files it would make them look complete.
            self.note.unlink()
        found = self.unfinished_provenance()
        if found == wanted:
            return
        if self.work_folder.exists() or any(path.exists() for path in self._partials()):
            reason = "no note of what from" if found is None else _difference(found, wanted)
            logger.info(
                "%s: unfinished work was made from something else (%s) and is removed",
                self.paths[0],
                reason,
            )
        self._remove_work()
        self.work_folder.mkdir()
        _write_note(self._work_note, wanted)

    def _remove_work_folder(self) -> None:
        if self.work_folder.exists():
            # Without its note, what a killed process leaves of the folder counts for nothing.
            self._work_note.unlink(missing_ok=True)
            shutil.rmtree(self.work_folder)

    def _remove_work(self) -> None:
        self._remove_work_folder()
        for partial in self._partials():
            partial.unlink(missing_ok=True)

    def _name(self, wanted: Facts) -> None:
        """Give the files their names, the first one last, as :func:`~.files.written_whole` does."""
        for path in (self.paths[0], *self._obsolete):
            path.unlink(missing_ok=True)
        _write_note(self.note, wanted)
        for path in reversed(self.paths):
            partial = partial_path(path)
            if partial.exists():
                partial.replace(path)


class ResumableDataset(abc.ABC):
    """What datasets of such results have in common, after what they inherit from Kedro.

    Attributes:
        _files: The files of the result.
    """

    _files: ResumableFiles

    @abc.abstractmethod
    def check(self) -> None:
        """Refuse files that are damaged or are not what the catalog says."""

    def provenance(self) -> Facts | None:
        """What the note beside the files says; None without one."""
        return self._files.provenance()

    def files_in_use(self) -> list[Path]:
        """The files that nobody else may write while a run uses this dataset."""
        return list(self._files.paths)

    def are_of_others(self) -> bool:
        """Whether all files are there without a note: such files are used as they are."""
        return self._files.are_of_others()

    def check_kept(self) -> None:
        """Refuse files of others that are damaged before anything is done: they will be kept.

        Raises:
            ValueError: For what :meth:`check` refuses.
        """
        if self.are_of_others():
            self.check()


def rows_done(
    paths: Sequence[Path], bytes_per_row: Sequence[int], n_rows: int, block_rows: int
) -> int:
    """Rows that an interrupted process has written to all of some files, in whole blocks.

    Args:
        paths: Files that grow together, row by row; they need not exist.
        bytes_per_row: Bytes of a row of each file.
        n_rows: Rows of the complete files. A longer file belongs to something else: 0.
        block_rows: Rows of a block; only the last one may have fewer.
    """
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    if any(size > n_rows * width for size, width in zip(sizes, bytes_per_row, strict=True)):
        return 0
    done = min(size // width for size, width in zip(sizes, bytes_per_row, strict=True))
    return done if done == n_rows else done - done % block_rows


def append_blocks(
    blocks: RowBlocks[Block],
    path: Path,
    partials: Sequence[Path],
    bytes_per_row: Sequence[int],
    write: Callable[[Sequence[BinaryIO], Block], None],
) -> None:
    """Write the blocks that are not yet in unfinished files, which grow together.

    Args:
        blocks: The rows. Only those that are missing are computed.
        path: What messages call the result.
        partials: The files; they need not exist.
        bytes_per_row: Bytes of a row of each file.
        write: Appends a block to the open files.

    Raises:
        DiskFullError: If there is no room for the rows that are missing.
        ValueError: If the blocks are not what they announce.
    """
    done = rows_done(partials, bytes_per_row, blocks.n_rows, blocks.block_rows)
    with ExitStack() as stack:
        files = [
            stack.enter_context(opened_at(partial, done * width))
            for partial, width in zip(partials, bytes_per_row, strict=True)
        ]
        require_space(path, (blocks.n_rows - done) * sum(bytes_per_row))
        name = str(path)
        if done:
            logger.info("%s: continuing after row %d of %d", name, done, blocks.n_rows)
            name += f" after row {done}"
        if done == blocks.n_rows:
            return
        for block in blocks.starting_at(done).checked(name):
            write(files, block)
            # A process that is killed now has these rows behind it.
            for file in files:
                file.flush()


@contextmanager
def opened_at(path: Path, n_bytes: int) -> Iterator[BinaryIO]:
    """Open a file to continue it after its first n_bytes; what follows them is dropped."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(n_bytes)
        file.seek(n_bytes)
        yield file


def _as_json(facts: Mapping[str, Any]) -> Facts:
    """The facts as they are after they have been written to a note and read again."""
    read: Facts = json.loads(json.dumps(dict(facts), allow_nan=False))
    return read


def _read_note(path: Path) -> Facts | None:
    try:
        found = read_json(path)
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write_note(path: Path, facts: Facts) -> None:
    partial = partial_path(path)
    with partial.open("w", encoding="utf-8") as file:
        json.dump(facts, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _difference(found: Facts, wanted: Facts) -> str:
    """The names of the facts that differ, for a message."""
    names = [
        name
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name, _MISSING) != wanted.get(name, _MISSING)
    ]
    return f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"
