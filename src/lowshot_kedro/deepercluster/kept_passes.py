"""Passes of a k-means that a later run need not repeat."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.disk import whole_file
from lowshot_kedro.errors import InputError
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.training.processes import Processes

PATTERN = "passes-*.npz"
_SECONDS_BETWEEN_SAVES = 60


class Passes(NamedTuple):
    """What the next pass of a k-means follows from.

    Attributes:
        centroids: float32 (k, d).
        objectives: The mean squared distance in each pass that is done.
        n_empty: Clusters without a row in each of them.
    """

    centroids: NDArray[np.float32]
    objectives: list[float]
    n_empty: list[int]


class KeptPasses:
    """Keeps the passes of one k-means in a file, at most once a minute.

    Args:
        folder: Where, on a file system that all processes see; None: nowhere.
        name: The name of the k-means.
        processes: Those that work together; the first one writes.
    """

    def __init__(self, folder: Path | None, name: str, processes: Processes) -> None:
        file = PATTERN.replace("*", name.replace(" ", "-"))
        self._path = None if folder is None else folder / file
        self._processes, self._since_save = processes, Stopwatch()

    def load(self) -> Passes | None:
        """What an earlier run has kept; all processes call this.

        Raises:
            InputError: If the file is damaged.
        """
        path = self._path
        if path is None or not self._processes.broadcast(path.is_file()):
            return None
        try:
            with np.load(path, allow_pickle=False) as saved:
                return Passes(
                    saved["centroids"], saved["objectives"].tolist(), saved["n_empty"].tolist()
                )
        except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
            raise InputError(f"{path}: not readable; remove it to begin anew") from error

    def save(self, passes: Passes, *, at_once: bool = False) -> None:
        """Keep the passes that are done, if the last ones were kept a minute ago.

        Args:
            passes: These.
            at_once: Keep them in any case.
        """
        path = self._path
        if path is None or not self._processes.is_first:
            return
        if not at_once and self._since_save.seconds < _SECONDS_BETWEEN_SAVES:
            return
        with whole_file(path) as file:
            np.savez(file, **passes._asdict())
        self._since_save = Stopwatch()
