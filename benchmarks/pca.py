"""Training a PCA and applying it, from files to files, beside faiss and a bare matrix product.

Features with a falling spectrum and means far from zero are written to an HDF5 file, as published
ones are. Training: this project reads them from the file, and writes the transform; faiss trains on
the same rows in memory, and neither reading nor writing counts for it. Applying: this project reads
the features from the file and writes the vectors; the bare product multiplies the same rows in
memory, with all threads of numpy, and does nothing else. Everybody has a process of its own. What
both trainings give is compared with the eigenvectors in float64, and our vectors with faiss' own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import faiss
import h5py
import numpy as np
from numpy.typing import NDArray

from common import machine
from common.memory import in_new_process
from common.options import positive
from common.output import note, print_json, print_ratios, print_table, ratio
from common.timing import Seconds, Statistic
from lowshot_kedro import native
from lowshot_kedro.blocks import FeatureMatrix, row_ranges
from lowshot_kedro.datasets import FaissTransformDataset, HDF5FeaturesDataset, RawMatrixDataset
from lowshot_kedro.memory import peak_rss_bytes
from lowshot_kedro.pca import apply_pca, spectrum_of, train_pca
from lowshot_kedro.progress import Stopwatch

BLOCK_ROWS = 8192
LIBRARIES = "libraries"
PEERS = ("faiss-training", "product")
# How many times as fast as the peer, at the default sizes.
WANTED = {"training_vs_faiss": 1.0, "applying_vs_product": 0.7}
WANTED_MEMORY = 2e9
# Of what the best directions keep, and of the largest number of the vectors.
MAX_VARIANCE_LOST = 1e-5
LARGEST_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Task:
    """What everybody gets.

    Attributes:
        folder: Where the features are, and everything else goes.
        n_components: Dimension of the result.
        n_threads: Of every library.
    """

    folder: Path
    n_components: int
    n_threads: int

    @property
    def features_path(self) -> Path:
        """The features."""
        return self.folder / "features.hdf5"

    def features(self) -> FeatureMatrix:
        """The features, to be read."""
        return HDF5FeaturesDataset(filepath=str(self.features_path)).load()

    def transform(self, name: str) -> FaissTransformDataset:
        """The transform of somebody."""
        return FaissTransformDataset(filepath=str(self.folder / f"{name}.vt"))

    def vectors(self) -> RawMatrixDataset:
        """Our vectors."""
        path = self.folder / "vectors.raw"
        return RawMatrixDataset(filepath=str(path), n_columns=self.n_components)

    def forget(self, *names: str) -> None:
        """Let nothing be kept or continued."""
        for name in names:
            for path in self.folder.glob(f"*{name}*"):
                path.unlink()


class Outcome(NamedTuple):
    """What was measured in one process.

    Attributes:
        seconds: Those that count.
        peak: Of the process, in bytes.
        libraries: Of these what it had taken before it began.
    """

    seconds: float
    peak: int
    libraries: int = 0


class Quality(NamedTuple):
    """How exact a training is.

    Attributes:
        variance_lost: Part of the variance of the best directions that those found do not keep.
        eigenvalues: Largest error of those kept, as a part of the true ones.
    """

    variance_lost: float
    eigenvalues: float


def write_features(task: Task, n_rows: int, n_columns: int, seed: int) -> None:
    """Rectified mixtures of fewer hidden numbers, whose weights fall as a power of their rank."""
    rng = np.random.default_rng(seed)
    n_hidden = max(n_columns // 4, 1)
    scales = 3 * np.arange(1, n_hidden + 1, dtype=np.float32) ** -0.8
    mixture = scales[:, None] * rng.standard_normal((n_hidden, n_columns), np.float32)
    mixture /= np.sqrt(n_columns)
    means = rng.uniform(0.1, 0.6, n_columns).astype(np.float32)
    with h5py.File(task.features_path, "w") as file:
        written = file.create_dataset("all_feats", (n_rows, n_columns), "<f4")
        file["all_labels"] = np.zeros(n_rows, np.int32)
        file["count"] = np.array([n_rows], np.int32)
        for first, last in row_ranges(n_rows, BLOCK_ROWS):
            hidden = rng.standard_normal((last - first, n_hidden), np.float32)
            written[first:last] = np.maximum(hidden @ mixture + means, 0)


def ours_training(task: Task) -> Outcome:
    """From the features to the file of the transform."""
    machine.set_threads(task.n_threads)
    libraries = peak_rss_bytes()
    watch = Stopwatch()
    task.transform("ours").save(train_pca(task.features(), task.n_components, True))
    return Outcome(watch.seconds, peak_rss_bytes(), libraries)


def faiss_training(task: Task) -> Outcome:
    """Of rows that are in memory already."""
    machine.set_threads(task.n_threads)
    features = task.features()
    rows = features.read(0, features.n_rows)
    pca = faiss.PCAMatrix(features.n_columns, task.n_components, 0, True)
    watch = Stopwatch()
    pca.train(rows)
    outcome = Outcome(watch.seconds, peak_rss_bytes())
    task.transform("faiss").save(pca)
    return outcome


def ours_applying(task: Task) -> Outcome:
    """From the features to the file of the vectors."""
    machine.set_threads(task.n_threads)
    transform = task.transform("ours").load()
    watch = Stopwatch()
    task.vectors().save(apply_pca(transform, task.features()))
    return Outcome(watch.seconds, peak_rss_bytes())


def product(task: Task) -> Outcome:
    """The matrix of the transform times rows that are in memory already."""
    machine.set_threads(task.n_threads)
    matrix = _matrix(task.transform("ours").load())
    features = task.features()
    rows = features.read(0, features.n_rows)
    watch = Stopwatch()
    matrix @ rows.T
    return Outcome(watch.seconds, peak_rss_bytes())


def comparison(task: Task, names: Sequence[str]) -> tuple[dict[str, Quality], float]:
    """How exact trainings are, and how far our vectors are from faiss' own."""
    machine.set_threads(task.n_threads)
    return _qualities(task, names), _largest_difference(task)


def _qualities(task: Task, names: Sequence[str]) -> dict[str, Quality]:
    """Beside products and eigenvectors in float64."""
    features = task.features()
    mean = sum(block.sum(axis=0, dtype=np.float64) for _, block in _blocks(features))
    mean = mean / features.n_rows
    scatter = np.zeros((features.n_columns, features.n_columns))
    for _, block in _blocks(features):
        centred = block - mean
        scatter += centred.T @ centred
    true = np.linalg.eigvalsh(scatter)[::-1][: task.n_components]
    found = {}
    for name in names:
        transform = task.transform(name).load()
        # Rows of float32 have length 1 but for rounding.
        directions = np.linalg.qr(_matrix(transform).T.astype(np.float64))[0]
        kept = float(np.einsum("ij,ij->", scatter @ directions, directions))
        eigenvalues = spectrum_of(transform)[: task.n_components]
        error = float(np.abs(eigenvalues / true - 1).max())
        found[name] = Quality(1 - kept / float(true.sum()), error)
    return found


def _largest_difference(task: Task) -> float:
    """Between our vectors and faiss' own result, as a part of the largest number."""
    transform = task.transform("ours").load()
    vectors = task.vectors().load()
    difference = largest = 0.0
    for first, block in _blocks(task.features()):
        expected = transform.apply(block)
        found = vectors[first : first + len(block)]
        difference = max(difference, float(np.abs(found - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    return difference / largest


def _matrix(transform: faiss.LinearTransform) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] = faiss.vector_to_array(transform.A)
    return matrix.reshape(transform.d_out, transform.d_in)


def _blocks(features: FeatureMatrix) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for first, last in row_ranges(features.n_rows, BLOCK_ROWS):
        yield first, features.read(first, last)


class PcaBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
        task: What everybody gets.
    """

    def __init__(self, options: argparse.Namespace, task: Task) -> None:
        self._options, self._task = options, task
        self.seconds = Seconds()
        self.memory: dict[str, int] = {}
        self.quality: dict[str, Quality] = {}
        self.difference = 0.0

    def measure(self) -> None:
        """Every round once, and then whether the results are right."""
        steps: dict[str, tuple[Callable[[Task], Outcome], str]] = {
            "ours-training": (ours_training, "ours"),
            "faiss-training": (faiss_training, "faiss"),
            "ours-applying": (ours_applying, "vectors"),
            "product": (product, "nothing"),
        }
        for _ in range(self._options.repeat):
            for name, (function, made) in steps.items():
                if name in self._options.skip:
                    continue
                note(name)
                self._task.forget(made)
                outcome = in_new_process(function, self._task)
                self.seconds.add(name, {name: outcome.seconds})
                self.memory[name] = max(outcome.peak, self.memory.get(name, 0))
                if outcome.libraries:
                    self.memory[LIBRARIES] = outcome.libraries
        note("comparison")
        trained = [name for name in ("ours", "faiss") if f"{name}-training" in self.seconds]
        self.quality, self.difference = in_new_process(comparison, self._task, trained)

    def require_right_results(self) -> None:
        """End with an error if ours are wrong; faiss rounds more than we allow ourselves."""
        if not self.quality["ours"].variance_lost < MAX_VARIANCE_LOST:
            raise SystemExit(f"ours-training: {self.quality['ours'].variance_lost:.2g} lost")
        if not self.difference < LARGEST_DIFFERENCE:
            raise SystemExit(f"ours-applying: differs from faiss by {self.difference:.2g}")

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times as fast as the peers we are."""
        pairs = {
            "training_vs_faiss": ("faiss-training", "ours-training"),
            "applying_vs_product": ("product", "ours-applying"),
        }
        return {
            name: ratio(of(peer), of(ours))
            for name, (peer, ours) in pairs.items()
            if peer in self.seconds
        }

    def print_tables(self) -> None:
        """For people."""
        n_rows = self._options.rows
        rows = [
            [
                name,
                f"{self.seconds.best(name):.2f}",
                f"{n_rows / self.seconds.best(name):.0f}",
                f"{self.memory[name] / 1e9:.2f}",
                *self._exactness(name),
            ]
            for name in ("ours-training", "faiss-training", "ours-applying", "product")
            if name in self.seconds
        ]
        columns = ("row", "s", "rows/s", "peak GB", "variance lost", "error of eigenvalues")
        print_table(f"{n_rows} rows of {self._options.columns} columns", columns, rows)
        print(
            f"Peak of the training: {self.memory['ours-training'] / 1e9:.2f} GB, wanted at most "
            f"{WANTED_MEMORY / 1e9:g}; of these {self.memory[LIBRARIES] / 1e9:.2f} GB are Python "
            "and its libraries."
        )
        print(f"Our vectors differ from faiss' own by {self.difference:.1e} of the largest number.")

    def _exactness(self, name: str) -> tuple[str, str]:
        quality = self.quality.get(name.removesuffix("-training"))
        return ("", "") if quality is None else (f"{quality[0]:.1e}", f"{quality[1]:.1e}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, if they go together."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", type=positive, default=200_000, help="of the features")
    add("--columns", type=positive, default=2048, help="of the features")
    add("--components", type=positive, default=256, help="of the transform")
    add("--threads", type=positive, default=native.get_num_threads(), help="for everybody")
    add("--repeat", type=positive, default=2, help="rounds of measurement")
    add("--seed", type=int, default=0, help="of the features")
    add("--folder", type=Path, help="where temporary files go; default: where they usually go")
    add("--skip", nargs="+", default=[], choices=PEERS, metavar="NAME", help=", ".join(PEERS))
    options = parser.parse_args(arguments)
    if not options.components <= options.columns or not options.components < options.rows:
        parser.error(
            f"--components: {options.components} of only {options.columns} columns and "
            f"{options.rows} rows"
        )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parse(arguments)
    machine.set_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="pca-", dir=options.folder) as folder:
        task = Task(Path(folder), options.components, options.threads)
        note("features")
        write_features(task, options.rows, options.columns, options.seed)
        benchmark = PcaBenchmark(options, task)
        benchmark.measure()
    benchmark.require_right_results()
    print(
        f"{options.rows} rows of {options.columns} columns, {options.components} components, "
        f"{options.threads} threads, shortest of {options.repeat}"
    )
    benchmark.print_tables()
    ratios = benchmark.ratios(benchmark.seconds.best)
    of_medians = benchmark.ratios(benchmark.seconds.median)
    if ratios:
        print_ratios(ratios, of_medians, WANTED)
    for name in options.skip:
        print(f"skipped {name}: asked to")
    print_json(
        {
            "benchmark": "pca",
            "machine": machine.describe(),
            "versions": {"faiss": faiss.__version__},
            "sizes": {
                "rows": options.rows,
                "columns": options.columns,
                "components": options.components,
                "threads": options.threads,
                "repeat": options.repeat,
                "seed": options.seed,
            },
            "seconds": benchmark.seconds.summary(),
            "memory": benchmark.memory,
            "wanted_memory": WANTED_MEMORY,
            "quality": {name: found._asdict() for name, found in benchmark.quality.items()},
            "difference": benchmark.difference,
            "ratios": ratios,
            "ratios_of_medians": of_medians,
            "wanted": WANTED,
            "skipped": dict.fromkeys(options.skip, "asked to"),
        }
    )


if __name__ == "__main__":
    main()
