"""Checkpoints of a training: whole or not at all, whatever stops the processes that write them.

The folder of a training has a note of all that it follows from, the last checkpoint, and those
before it that are to be kept:

    training-4f1d09b2c3aa/
        training.json
        step-000000000060/
            kept                     it stays when another one is written
            …
        step-000000000120/
            state.pt                 network, optimiser, position, table; a file of torch.save
            rows-0-of-2.safetensors  tensors of which each process holds some rows, such as a bank
            rows-1-of-2.safetensors

Every process writes its own rows; the first one writes the rest, and names the folder when all are
done. Reading a checkpoint never executes code from it. A training may go on with another number of
processes: rows are read from whichever files have them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lowshot_kedro.errors import InputError, shown_line
from lowshot_kedro.input_files import UNPICKLING_ERRORS
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.training.processes import Processes

logger = logging.getLogger(__name__)

_NOTE, _STATE, _KEPT = "training.json", "state.pt", "kept"
_TRAINING, _STEP, _UNFINISHED = "training-", "step-", ".partial-"


class Checkpoint:
    """One checkpoint on disk. The state is in memory, rows are read when they are asked for.

    Args:
        folder: Its folder.

    Attributes:
        state: What the first process has saved.

    Raises:
        ValueError: If a file of it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self.state: dict[str, Any] = torch.load(
                folder / _STATE, map_location="cpu", weights_only=True
            )
            if not isinstance(self.state, dict):
                raise ValueError(f"{_STATE} holds something else")
            self._parts = sorted(
                folder.glob("rows-*.safetensors"), key=lambda path: int(path.name.split("-")[1])
            )
        except (OSError, *UNPICKLING_ERRORS) as error:
            reason = shown_line(str(error)) or type(error).__name__
            raise InputError(
                f"{folder}: not a readable checkpoint ({reason}); "
                f"remove the folder {folder.parent} to begin anew"
            ) from error

    def read_rows(self, name: str, first: int, last: int) -> torch.Tensor:
        """Rows first..last-1 of a tensor of which each process has saved some. Only these are read.

        Raises:
            ValueError: If they are not all there.
        """
        start, found = 0, []
        for path, shape in zip(self._parts, self._shapes(name), strict=True):
            begin, end = max(first, start), min(last, start + shape[0])
            if begin < end:
                with safe_open(path, "pt") as file:
                    found.append(file.get_slice(name)[begin - start : end - start])
            start += shape[0]
        if last > start or not found:
            raise InputError(f"{self._folder}: {start} rows of {name}, expected {last}")
        return torch.cat(found)

    def _shapes(self, name: str) -> Iterator[list[int]]:
        for path in self._parts:
            try:
                with safe_open(path, "pt") as file:
                    yield file.get_slice(name).get_shape()
            except (OSError, SafetensorError) as error:
                raise InputError(
                    f"{path}: not readable ({error}); remove the folder {self._folder.parent} to "
                    "begin anew"
                ) from error


class Checkpoints:
    """The checkpoints of one training.

    Args:
        root: Where checkpoints lie, each training in a folder of its own.
        provenance: All that the training follows from, as JSON holds it. Another one is another
            training, which leaves this one's folder alone.
        processes: Those that train.

    Attributes:
        folder: The folder of this training.
    """

    def __init__(self, root: Path, provenance: Mapping[str, Any], processes: Processes) -> None:
        self._note = json.dumps(dict(provenance), indent=2, sort_keys=True)
        digest = blake2b(self._note.encode(), digest_size=6).hexdigest()
        self.folder, self._processes = root / f"{_TRAINING}{digest}", processes

    def begin(self) -> None:
        """Make the folder, with its note, when nothing else can be refused any more."""
        if self._processes.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _NOTE).write_text(self._note)
        self._processes.barrier()

    def name_others(self) -> None:
        """Log which other trainings have left checkpoints, and how much they take."""
        root = self.folder.parent
        found = {path.parent for path in root.glob(f"{_TRAINING}*/{_STEP}*")}
        others = sorted(found - {self.folder})
        if not others:
            return
        files = [file for path in others for file in path.rglob("*") if file.is_file()]
        logger.info(
            "%s: checkpoints of %d other %s take %s; remove those that you do not need",
            root,
            len(others),
            "training" if len(others) == 1 else "trainings",
            format_bytes(sum(file.stat().st_size for file in files)),
        )

    def latest(self) -> Checkpoint | None:
        """The last checkpoint that was finished; None where there is none."""
        number = self.last_number() if self._processes.is_first else -1
        # All continue from the same one, whatever a network file system shows them.
        number = self._processes.broadcast(number)
        return None if number < 0 else Checkpoint(self._path(number))

    def last_number(self) -> int:
        """The number of the last checkpoint that was finished; -1 where there is none."""
        return max((int(path.name.removeprefix(_STEP)) for path in self._steps()), default=-1)

    def save(
        self,
        number: int,
        state: Mapping[str, Any],
        rows: Mapping[str, torch.Tensor],
        is_kept: bool = False,
    ) -> None:
        """Write a checkpoint, and remove those before it that are not kept.

        Args:
            number: Steps that led to it; larger than that of any other one.
            state: What one process knows for all: tensors, numbers, texts, lists, dictionaries.
            rows: By name the rows that this process holds of tensors. All on the CPU.
            is_kept: Whether it stays for good.

        Raises:
            OSError: If it cannot be written. The one before is left.
        """
        final = self._path(number)
        partial = final.with_name(f"{_UNFINISHED}{final.name}")
        if self._processes.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        self._processes.barrier()
        with _removed_if_unfinished(partial):
            if rows:
                rank, n_processes = self._processes.rank, self._processes.n_processes
                path = partial / f"rows-{rank}-of-{n_processes}.safetensors"
                save_file({name: part.contiguous() for name, part in rows.items()}, path)
                # safetensors keeps others of a group from reading it.
                path.chmod(path.parent.stat().st_mode & 0o666)
                _sync(path)
            if self._processes.is_first:
                if is_kept:
                    (partial / _KEPT).touch()
                with (partial / _STATE).open("wb") as file:
                    torch.save(dict(state), file)
                    file.flush()
                    os.fsync(file.fileno())
        self._processes.barrier()
        if self._processes.is_first:
            older = [
                path
                for path in self.folder.glob(f"{_STEP}*")
                if path != final and not (path / _KEPT).exists()
            ]
            # What is left of one that has lost its state.
            shutil.rmtree(final, ignore_errors=True)
            partial.replace(final)
            _sync(self.folder)
            for path in older:
                shutil.rmtree(path, ignore_errors=True)
        self._processes.barrier()

    def _path(self, number: int) -> Path:
        return self.folder / f"{_STEP}{number:012d}"

    def _steps(self) -> list[Path]:
        return [
            path
            for path in self.folder.glob(f"{_STEP}*")
            if path.name.removeprefix(_STEP).isdecimal() and (path / _STATE).is_file()
        ]


@contextmanager
def _removed_if_unfinished(partial: Path) -> Iterator[None]:
    """Give the disk back that an unfinished checkpoint takes, and say in plain words why."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        # torch and safetensors raise errors of their own: that of the disk is in the context.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise OSError(
            f"{partial.parent}: a checkpoint cannot be written ({shown_line(str(reason))}); "
            "the one before it is left"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
