"""k-means over any number of rows and processes, in blocks: exact Lloyd iterations.

S. Lloyd, "Least squares quantization in PCM" (IEEE Transactions on Information Theory 28, 1982).
Labels, centroids and objectives have the same bits for any number of threads and of processes, and
however rows are shared out between these: what is added up over rows are integers
(:mod:`~lowshot_kedro.deepercluster.fixed_point`), and the distance of a row follows from that row
and a centroid alone (:mod:`~lowshot_kedro.deepercluster.assigners`).
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowshot_kedro.blocks import row_ranges, spread_rows
from lowshot_kedro.deepercluster.assigners import UNKNOWN, Assigner
from lowshot_kedro.deepercluster.fixed_point import exponent_for
from lowshot_kedro.deepercluster.kept_passes import KeptPasses, Passes
from lowshot_kedro.deepercluster.rows import TAKING_BYTES, Share, as_matrix, read_blocks, share_of
from lowshot_kedro.errors import InputError, NotEnoughMemoryError, shown
from lowshot_kedro.memory import format_gigabytes
from lowshot_kedro.native import code_width, get_num_threads
from lowshot_kedro.parameters import bytes_of, refuse, require_gigabytes, require_integer
from lowshot_kedro.progress import Progress, Stopwatch
from lowshot_kedro.training import stopping
from lowshot_kedro.training.processes import Processes

logger = logging.getLogger(__name__)

# By how much of itself a centroid and its copy move apart, as in faiss: float32 shows it.
_PERTURBATION = 1 / 1024
_MIN_PERTURBATION = 2.0**-21
_BLOCK_BYTES = 2**23
_MIN_BLOCK_ROWS = 256
_MAX_BLOCK_ROWS = 2**16
_CENTROIDS_AT_ONCE_BYTES = 2**20
_WORK_BYTES = 2**28
# Squares and products of such numbers fit float32.
_LARGEST = 1e18
# Rows of which processes look whether all of them were given the same.
_COMPARED_ROWS = 256


class KMeans(NamedTuple):
    """A clustering by k-means.

    Attributes:
        labels: int64 (N,): the number of the nearest centroid, of equally near ones the lowest.
        centroids: float32 (k, d).
        objective: The mean squared distance of a row from its centroid.
    """

    labels: NDArray[np.int64]
    centroids: NDArray[np.float32]
    objective: float


@dataclass(frozen=True)
class KMeansSettings:
    """How centroids are found.

    Attributes:
        n_iterations: Updates of the centroids; after them one more pass assigns rows.
        seed: What random choices follow from.
        memory_budget_bytes: Memory for centroids, sums and blocks, beside 12 bytes for each row;
            None: what is fast.
        device: `cpu`, or where else blocks go: `cuda`.
        folder: Where passes that are done are kept, for a run that is stopped; it belongs to the
            same rows and settings. None: nowhere.
    """

    n_iterations: int = 10
    seed: int = 0
    memory_budget_bytes: int | None = None
    device: str = "cpu"
    folder: Path | None = None


@dataclass(frozen=True)
class KMeansReport:
    """How the passes went; the same in every process.

    Attributes:
        objectives: The mean squared distance in each pass, the last of which only assigns.
        n_empty: Clusters without a row in each pass.
        sizes: int64 (k,), rows of each cluster in the end.
    """

    objectives: list[float] = field(default_factory=list)
    n_empty: list[int] = field(default_factory=list)
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


class ShareKMeans(NamedTuple):
    """What a process knows of a clustering that several have made.

    Attributes:
        labels: int32 (n,), of its own rows or members.
        distances: float32 (n,), squared, to the nearest centroid.
        centroids: float32 (k, d), the same in every process.
        report: The same in every process.
    """

    labels: NDArray[np.int32]
    distances: NDArray[np.float32]
    centroids: NDArray[np.float32]
    report: KMeansReport


def kmeans(
    features: ArrayLike,
    k: int,
    *,
    init: ArrayLike | None = None,
    n_iterations: int = 10,
    seed: int = 0,
    memory_budget_gb: float | None = None,
    processes: Processes | None = None,
) -> KMeans:
    """Cluster rows by k-means.

    Centroids are updated `n_iterations` times; labels are those of the nearest returned centroid.
    A centroid without rows becomes, before the next pass, a copy of that with the largest number of
    rows, half of which then count as the copy's; both move apart a little.

    Results have the same bits for any number of threads and processes.

    Args:
        features: (N, d) finite numbers, taken as float32. A numpy.memmap of float32 is read from
            its file in blocks, and does not count as memory.
        k: Clusters, at most N.
        init: (k, d), the first centroids; None: k different rows, chosen at random.
        n_iterations: Updates of the centroids.
        seed: Of that choice.
        memory_budget_gb: Memory beside the features and 20 bytes for each of them; in GB.
        processes: Those that work together: each passes all rows and gets all labels; None: the
            default group of torch.distributed, or this one.

    Returns:
        labels int64 (N,), centroids float32 (k, d) and the mean squared distance of a row from its
        centroid.

    Raises:
        InputError: If an argument cannot be used.
        NotEnoughMemoryError: If the budget is too small for k and d.
    """
    processes = processes_or_default(processes)
    settings = checked_settings(n_iterations, seed, memory_budget_gb, processes.device.type)
    share = share_of(features, processes)
    require_integer("k", k, 1)
    first_centroids = None if init is None else checked_centroids(init, k, share.rows.n_columns)
    start = None if first_centroids is None else first_centroids.tobytes()
    require_same(features, (k, settings, start), processes)
    try:
        found = kmeans_of(share, k, settings, init=first_centroids)
    except NotEnoughMemoryError as error:
        raise error.renamed("memory_budget_gb") from error
    labels = gathered(found.labels, processes).astype(np.int64)
    return KMeans(labels, found.centroids, found.report.objectives[-1])


def kmeans_of(
    share: Share,
    k: int,
    settings: KMeansSettings,
    *,
    init: NDArray[np.float32] | None = None,
    members: NDArray[np.int64] | None = None,
    name: str = "k-means",
) -> ShareKMeans:
    """Cluster rows that are shared out between processes, all of which call together.

    In memory: 12 bytes for each own row or member, and what `settings` allows.

    Args:
        share: The rows of this process.
        k: Clusters.
        settings: How.
        init: float32 (k, d), the first centroids; None: k different rows, chosen at random.
        members: int64, numbers of own rows that take part, increasing; None: all.
        name: What progress and errors call it.

    Raises:
        InputError: If there are fewer rows than clusters, or NaN or infinite ones.
        NotEnoughMemoryError: If the budget is too small.
    """
    return _Lloyd(share, k, settings, members, name).run(init)


class _Units(NamedTuple):
    """In what distances are counted: in units of 2 to the power of minus `coarse`.

    What that leaves of each is counted in finer ones: one row far away, or columns far from zero,
    make the first unit larger than the distances of all other rows.
    """

    coarse: int
    fine: int

    @classmethod
    def of(cls, largest: float, count: int) -> _Units:
        """Those for so many distances, none of them larger."""
        coarse = exponent_for(largest, count)
        return cls(coarse, exponent_for(2.0**-coarse, count))

    def total(self, n_coarse: int, n_fine: int) -> float:
        """The sum of distances."""
        return math.ldexp(n_coarse, -self.coarse) + math.ldexp(n_fine, -self.fine)


class _Lloyd:
    """The passes over the rows of a process, and what processes tell each other between them."""

    def __init__(
        self,
        share: Share,
        k: int,
        settings: KMeansSettings,
        members: NDArray[np.int64] | None,
        name: str,
    ) -> None:
        self._rows, self._processes, self._members = share.rows, share.processes, members
        self._k, self._settings, self._name = k, settings, name
        self._n_columns, self._first_of_share = share.rows.n_columns, share.first
        self._n_here = share.rows.n_rows if members is None else len(members)
        counts = [int(count) for count in of_all(self._n_here, self._processes)]
        self._first, self._n_rows = sum(counts[: self._processes.rank]), sum(counts)
        if self._n_rows < k:
            raise InputError(
                f"{name}: found {self._n_rows} rows, expected at least as many as clusters, {k}"
            )
        plan = plan_memory(k, self._n_columns, settings)
        self._work_bytes = plan.work_bytes
        block_rows = max(1, min(plan.block_rows, self._n_here))
        self._buffer = np.empty((block_rows, self._n_columns), np.float32)
        self._away = np.empty(block_rows)
        self._labels = np.full(self._n_here, UNKNOWN, np.int32)
        self._distances = np.empty(self._n_here, np.float32)
        self._report = KMeansReport()

    def run(self, init: NDArray[np.float32] | None) -> ShareKMeans:
        """From the first centroids to the last labels."""
        largest = self._look_at_rows()
        assigner = make_assigner(self._settings.device, largest, self._work_bytes)
        kept = KeptPasses(self._settings.folder, self._name, self._processes)
        before = kept.load()
        if before is not None:
            centroids = before.centroids
            self._report.objectives.extend(before.objectives)
            self._report.n_empty.extend(before.n_empty)
        else:
            centroids = self._draw() if init is None else np.array(init, np.float32)
        n_done = len(self._report.objectives)
        # Integers that all processes add up: rows of each cluster, how many have another label than
        # before, distances in two units; and the sums of each cluster.
        few = np.zeros(self._k + 3, np.int64)
        sums = np.zeros(centroids.shape, np.int64)
        n_passes = self._settings.n_iterations + 1
        whole = Stopwatch()
        with Progress(n_passes * self._n_here, self._name, n_done * self._n_here) as progress:
            # Labels of earlier passes are not known then, which changes no result: as long as no
            # row would get another one, centroids stay as they are.
            for number in range(n_done, n_passes):
                watch, is_last = Stopwatch(), number + 1 == n_passes
                # A mean is no larger than the largest row, but what is given may be.
                longest = max(largest, float(centroids.max()), -float(centroids.min()))
                units = _Units.of(self._n_columns * (largest + longest) ** 2, self._n_rows)
                exponent = exponent_for(largest, self._n_rows)
                assigner.begin(centroids, None if is_last else sums, exponent)
                few[:] = 0
                for first, rows in self._blocks():
                    self._assign(assigner, first, rows, units, few)
                    progress.update(len(rows))
                assigner.finish()
                self._add_up(few)
                counts, n_changed = few[:-3], int(few[-3])
                total = units.total(int(few[-2]), int(few[-1]))
                self._note(total / self._n_rows, counts, watch)
                if is_last:
                    break
                if not n_changed:
                    # The same labels have the same means: nothing would happen any more.
                    n_left = n_passes - number - 1
                    self._report.objectives.extend(self._report.objectives[-1:] * n_left)
                    self._report.n_empty.extend(self._report.n_empty[-1:] * n_left)
                    progress.update(n_left * self._n_here)
                    break
                self._add_up(sums)
                update_centroids(centroids, sums, counts, exponent, largest)
                sums[:] = 0
                # Of many rows a k-means takes longer than whoever sends a signal waits.
                after = f"pass {number + 1} of {n_passes} over {self._name}"
                passes = Passes(centroids, self._report.objectives, self._report.n_empty)
                try:
                    stopping.stop_if_wanted(self._processes, after)
                except stopping.StoppedBySignal:
                    kept.save(passes, at_once=True)
                    raise
                kept.save(passes)
        report = replace(self._report, sizes=few[:-3].copy())
        if self._processes.is_first:
            logger.info(
                "%s: %d rows, %d clusters, mean squared distance %.6g, %d empty, %.1f s",
                self._name,
                self._n_rows,
                self._k,
                report.objectives[-1],
                report.n_empty[-1],
                whole.seconds,
            )
        return ShareKMeans(self._labels, self._distances, centroids, report)

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        return read_blocks(self._rows, self._buffer, self._members)

    def _assign(
        self,
        assigner: Assigner,
        first: int,
        rows: NDArray[np.float32],
        units: _Units,
        few: NDArray[np.int64],
    ) -> None:
        last = first + len(rows)
        labels, away = self._labels[first:last], self._away[: len(rows)]
        before = labels.copy()
        assigner.assign(rows, labels, away)
        self._distances[first:last] = away
        few[: self._k] += np.bincount(labels, minlength=self._k)
        few[-3] += np.count_nonzero(labels != before)
        for place, exponent in ((-2, units.coarse), (-1, units.fine)):
            integers = np.rint(away * 2.0**exponent)
            few[place] += integers.astype(np.int64).sum()
            away -= integers * 2.0**-exponent

    def _note(self, objective: float, counts: NDArray[np.int64], watch: Stopwatch) -> None:
        n_empty = int(np.count_nonzero(counts == 0))
        self._report.objectives.append(objective)
        self._report.n_empty.append(n_empty)
        if self._processes.is_first:
            logger.debug(
                "%s: pass %d: mean squared distance %.6g, %d of %d clusters empty, %.1f s",
                self._name,
                len(self._report.objectives),
                objective,
                n_empty,
                self._k,
                watch.seconds,
            )

    def _look_at_rows(self) -> float:
        """The largest number of all rows in size.

        Raises:
            InputError: For NaN or infinity in any process.
        """
        largest, bad = 0.0, math.inf
        for first, rows in self._blocks():
            # NaN is the largest and the smallest.
            of_block = max(float(rows.max()), -float(rows.min()))
            if not of_block <= _LARGEST:
                wrong = ~(np.abs(rows) <= _LARGEST).all(axis=1)
                number = first + int(np.argmax(wrong))
                if self._members is not None:
                    number = int(self._members[number])
                bad = float(self._first_of_share + number)
                break
            largest = max(largest, of_block)
        bad = min(of_all(bad, self._processes))
        if bad < math.inf:
            raise InputError(
                f"{self._name}: found NaN, infinity or a number above {_LARGEST:g} in row "
                f"{int(bad)}, expected finite ones"
            )
        return max(of_all(largest, self._processes))

    def _draw(self) -> NDArray[np.float32]:
        """Different rows, from the processes that have them."""
        generator = np.random.default_rng(self._settings.seed)
        numbers = generator.choice(self._n_rows, self._k, replace=False) - self._first
        here = np.flatnonzero((numbers >= 0) & (numbers < self._n_here))
        here = here[np.argsort(numbers[here])]
        wanted = numbers[here]
        centroids = np.zeros((self._k, self._n_columns), np.float32)
        for first, last in row_ranges(len(here), len(self._buffer)):
            some = (
                wanted[first:last] if self._members is None else self._members[wanted[first:last]]
            )
            centroids[here[first:last]] = self._rows.take(some, self._buffer[: last - first])
        # All others have zeros, whose bits add nothing.
        self._add_up(centroids.view(np.int32))
        return centroids

    def _add_up(self, integers: NDArray[np.int32] | NDArray[np.int64]) -> None:
        if self._processes.n_processes > 1:
            import torch

            self._processes.add_up(torch.from_numpy(integers))


def update_centroids(
    centroids: NDArray[np.float32],
    sums: NDArray[np.int64],
    counts: NDArray[np.int64],
    exponent: int,
    largest: float,
) -> None:
    """Move centroids to the means of their rows, and those without rows beside others.

    Args:
        centroids: (k, d), changed in place.
        sums: (k, d), of the rows of each cluster, in units of 2⁻ᵉ.
        counts: (k,), how many these are.
        exponent: The e of that unit.
        largest: The largest number of a row in size.
    """
    at_once = max(1, _CENTROIDS_AT_ONCE_BYTES // (8 * centroids.shape[1]))
    for first, last in row_ranges(len(centroids), at_once):
        divisors = np.maximum(counts[first:last], 1)[:, None]
        centroids[first:last] = sums[first:last] / divisors * 2.0**-exponent
    empty = np.flatnonzero(counts == 0).tolist()
    if not empty:
        return
    # The largest first, of equal ones the lowest number.
    donors = [(-int(count), number) for number, count in enumerate(counts.tolist()) if count]
    heapq.heapify(donors)
    times_halved = dict.fromkeys(empty, 0)
    for number in empty:
        size, donor = donors[0]
        times = times_halved.get(donor, 0)
        times_halved[donor] = times_halved[number] = times + 1
        signs = _directions(centroids.shape[1], times)
        moves = signs * np.abs(centroids[donor])
        if not moves.any():
            moves = signs * largest
        centroids[number] = centroids[donor] + moves
        centroids[donor] = centroids[donor] - moves
        heapq.heapreplace(donors, (-((1 - size) // 2), donor))
        heapq.heappush(donors, (-(-size // 2), number))


def _directions(n_columns: int, times: int) -> NDArray[np.float64]:
    """Where a centroid moves that has been halved some times: another way each time.

    Copies of one centroid would stand in a line else, or two of them at one place.
    """
    n_bits = max((n_columns - 1).bit_length(), 1)
    signs = np.where(np.arange(n_columns) >> times % n_bits & 1, -1.0, 1.0)
    scale = max(_PERTURBATION / 2 ** (times // n_bits), _MIN_PERTURBATION)
    return np.asarray(signs * scale, np.float64)


class MemoryPlan(NamedTuple):
    """What memory goes to.

    Attributes:
        block_rows: Rows of a block.
        work_bytes: Memory of a GPU for what is made of a block beside it; in bytes.
    """

    block_rows: int
    work_bytes: int


def plan_memory(k: int, n_columns: int, settings: KMeansSettings) -> MemoryPlan:
    """Share out the memory that may be taken.

    Raises:
        NotEnoughMemoryError: If it is too little for k and the columns.
    """
    budget, needed = settings.memory_budget_bytes, min_bytes(k, n_columns)
    row_bytes = _row_bytes(n_columns)
    block_rows = min(max(_MIN_BLOCK_ROWS, _BLOCK_BYTES // row_bytes), _MAX_BLOCK_ROWS)
    if budget is None:
        return MemoryPlan(block_rows, _WORK_BYTES)
    if budget < needed:
        raise NotEnoughMemoryError(
            parameter="memory_budget_bytes",
            found=budget,
            expected=f"at least {format_gigabytes(needed)} for {k} centroids of {n_columns} "
            "numbers",
        )
    block_rows = min(block_rows, _MIN_BLOCK_ROWS + (budget - needed) // row_bytes)
    return MemoryPlan(block_rows, min(_WORK_BYTES, budget))


def min_bytes(k: int, n_columns: int) -> int:
    """The least memory that k-means takes beside rows, labels and distances, in bytes."""
    width = code_width(n_columns)
    # Centroids, their sums and codes, and what is counted for each; then what a thread has.
    of_centroids = k * (12 * n_columns + width + 64)
    of_threads = get_num_threads() * (512 * width + 2**17)
    of_steps = 2 * _CENTROIDS_AT_ONCE_BYTES + TAKING_BYTES
    return of_centroids + of_threads + of_steps + _MIN_BLOCK_ROWS * _row_bytes(n_columns)


def _row_bytes(n_columns: int) -> int:
    """What a row of a block takes, with labels and distances as they are counted."""
    return 4 * n_columns + 64


def make_assigner(device: str, largest: float, work_bytes: int) -> Assigner:
    """What finds the nearest centroids on a device.

    Args:
        device: `cpu`, or what PyTorch calls another one.
        largest: What no number of a row exceeds in size.
        work_bytes: Memory of that device for what is made of a block beside it; in bytes.
    """
    if device == "cpu":
        from lowshot_kedro.deepercluster.native_assigner import NativeAssigner

        return NativeAssigner(largest)
    import torch

    from lowshot_kedro.deepercluster.torch_assigner import TorchAssigner

    return TorchAssigner(torch.device(device), work_bytes)


def checked_settings(
    n_iterations: int, seed: int, memory_budget_gb: float | None, device: str = "cpu"
) -> KMeansSettings:
    """Settings of what people give.

    Raises:
        InputError: If they cannot be used.
    """
    require_integer("n_iterations", n_iterations, 0)
    require_integer("seed", seed, 0)
    require_gigabytes("memory_budget_gb", memory_budget_gb)
    return KMeansSettings(n_iterations, seed, bytes_of(memory_budget_gb), device)


def checked_centroids(init: ArrayLike, k: int, n_columns: int) -> NDArray[np.float32]:
    """First centroids as float32 (k, n_columns).

    Raises:
        InputError: If they are something else, or not finite.
    """
    expected = f"finite numbers of shape ({k}, {n_columns})"
    try:
        with np.errstate(over="ignore"):
            centroids = np.array(init, np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise refuse("init", shown(init), expected) from error
    if centroids.shape != (k, n_columns):
        raise refuse("init", f"shape {centroids.shape}", expected)
    if not (np.abs(centroids) <= _LARGEST).all():
        raise refuse("init", f"NaN, infinity or a number above {_LARGEST:g}", expected)
    return centroids


def processes_or_default(processes: Processes | None) -> Processes:
    """Those given; else the default group of torch.distributed, or this process alone."""
    if processes is not None:
        return processes
    import torch

    return Processes.of_default_group(torch.device("cpu"))


def require_same(features: ArrayLike, arguments: object, processes: Processes) -> None:
    """Refuse that processes which work together were given different things.

    Of features some rows are compared.

    Raises:
        InputError: In every process.
    """
    if processes.n_processes == 1:
        return
    matrix = as_matrix(features)
    rows = np.ascontiguousarray(matrix[spread_rows(len(matrix), _COMPARED_ROWS)])
    said = repr((matrix.shape, matrix.dtype, arguments)).encode() + rows.tobytes()
    digest = int.from_bytes(hashlib.sha256(said).digest()[:6], "big")
    if len(set(of_all(float(digest), processes))) > 1:
        raise InputError(
            "features and settings: found different ones in the processes, expected that each "
            "passes all rows and the same settings"
        )


def of_all(number: float, processes: Processes) -> list[float]:
    """A number of each process, in the order of their ranks, as float64 holds it."""
    if processes.n_processes == 1:
        return [number]
    import torch

    return [float(each) for each in processes.stack(torch.tensor(number, dtype=torch.float64))]


def gathered(labels: NDArray[np.int32], processes: Processes) -> NDArray[np.int32]:
    """The labels of all rows, from the processes that have found them."""
    if processes.n_processes == 1:
        return labels
    import torch

    return processes.gather(torch.from_numpy(labels)).numpy()
