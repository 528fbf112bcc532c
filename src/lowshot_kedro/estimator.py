"""Label propagation over a k-nearest-neighbour graph as a scikit-learn estimator, without Kedro."""

from __future__ import annotations

import inspect
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from threadpoolctl import threadpool_limits

from lowshot_kedro import graph
from lowshot_kedro.diffusion import (
    CLASS_PRIORS,
    MOST_COLUMNS,
    MOST_STEPS,
    PRECISIONS,
    PropagationMatrix,
    choose_steps,
    class_priors,
    matrix_of_weights,
    numbering_for,
    propagate,
    propagation_matrix,
    require_weights,
    scores_when_reached,
)
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.vectors import release
from lowshot_kedro.matrices import require_finite, require_nodes, row_ranges
from lowshot_kedro.resources import (
    Progress,
    available_bytes,
    format_bytes,
    logged_step,
    rss_bytes,
    shown_progress,
)

logger = logging.getLogger(__name__)

UNLABELED = -1
METRICS = (*graph.METRICS, "precomputed")
_BLOCK_ROWS = 16384
# Of the free memory, the part that vectors may take when they have to be converted.
_VECTORS_PART = 0.4
# What the functions called here name the parameters, and what they are called here.
_OWN_NAMES = {
    "graph.method": "graph_method",
    "graph.target_recall": "target_recall",
    "graph.memory_budget": "memory_budget_gb",
    "diffusion.memory_budget_gb": "memory_budget_gb",
    "diffusion.class_slice": "class_slice",
    "diffusion.class_prior": "class_prior",
    "diffusion.precision": "precision",
    "k: got": "n_neighbors: got",
}


class LabelDiffusion(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifier for few labelled and many unlabelled rows: labels spread over a k-NN graph.

    Every row is linked to the rows nearest to it. The labelled rows of a class share a mass of 1,
    which spreads over the links step by step; a row belongs to the class that has most of its mass
    there. New rows ask their nearest rows of the graph.

    The interface is that of :class:`sklearn.semi_supervised.LabelSpreading`; millions of rows are
    no problem, since no step compares all pairs and memory grows with the rows alone.

    M. Douze, A. Szlam, B. Hariharan and H. Jégou, "Low-shot learning with large-scale diffusion",
    CVPR 2018.

    Args:
        n_neighbors: How many rows each row is linked to, itself included.
        n_iterations: Steps, or `auto`: chosen by held-out labels, as
            :func:`~lowshot_kedro.diffusion.choose_steps` does; a row that is farther from all
            labelled rows then belongs where its first mass comes from.
        metric: What near means: `euclidean`, `cosine`, for which rows of zeros are near to
            nothing, or `precomputed`: X is a graph.
        graph_method: How neighbours are found: `auto` (exact up to 20 thousand rows, then
            `descent`), `exact`, `ivf`, `descent`, `pynndescent`, or a description for
            faiss.index_factory.
        target_recall: Part of the true neighbours to be found, above 0 and up to 1.
        class_prior: What the scores of each class sum to: `labeled`: in proportion to its labelled
            rows; `uniform`; or a number for each of `classes_`. The first two are the same where
            all classes have as many labels.
        precision: Of the scores between steps, `float32` or `bfloat16` in half the memory.
        class_slice: Classes propagated at a time, which bounds memory; 0: all; `auto`: as many as
            fit. Changes no result.
        n_components: Sparse X with more columns is reduced to so many by TruncatedSVD; with fewer
            it is made dense.
        memory_budget_gb: 10⁹ bytes that the process may take; None: four fifths of what is free.
        n_jobs: Threads; None or -1: as many as there are processors. Changes no result.
        random_state: Seed or generator for the held-out labels and for TruncatedSVD.
        verbose: Whether to show progress and a log on the standard error stream.

    Attributes:
        classes_: (C,), the labels that occur, in increasing order.
        transduction_: (N,), a label for every row of X. Labelled rows keep theirs; rows that no
            mass has reached have -1.
        label_distributions_: float32 (N, C), the share of each class in the mass of a row, made
            anew whenever it is asked for. Rows sum to 1; rows that no mass has reached are all
            zeros. A labelled row is 1 at its label.
        neighbors_: int32 (N, n_neighbors), the rows that each row is linked to, nearest first; -1
            for none. There is none with metric `precomputed`, for which `(neighbors_, None)` is the
            same graph again, for instance with other labels.
        n_unreached_: How many rows no mass has reached.
        n_iterations_: Steps taken.
        validation_accuracy_: float64 (S + 1,), part of the held-out labels that were right after
            0..S steps; None where `n_iterations` is a number or no class has two labels.
        n_features_in_: Columns of X.
        feature_names_in_: Names of the columns, if X is a table that has names.

    Example:
        >>> import numpy as np
        >>> from lowshot_kedro import LabelDiffusion
        >>> X = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
        >>> y = np.array(["low", -1, -1, -1, -1, "high"], dtype=object)
        >>> LabelDiffusion(n_neighbors=3).fit(X, y).transduction_.tolist()
        ['low', 'low', 'low', 'high', 'high', 'high']
    """

    def __init__(
        self,
        n_neighbors: int = 10,
        n_iterations: int | str = "auto",
        *,
        metric: str = "euclidean",
        graph_method: str = "auto",
        target_recall: float = 0.99,
        class_prior: str | Sequence[float] = "labeled",
        precision: str = "float32",
        class_slice: int | str = "auto",
        n_components: int = 256,
        memory_budget_gb: float | None = None,
        n_jobs: int | None = None,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.n_iterations = n_iterations
        self.metric = metric
        self.graph_method = graph_method
        self.target_recall = target_recall
        self.class_prior = class_prior
        self.precision = precision
        self.class_slice = class_slice
        self.n_components = n_components
        self.memory_budget_gb = memory_budget_gb
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> LabelDiffusion:
        """Build the graph over all rows and spread the labels.

        Args:
            X: (N, d), an array or memmap of any kind of real numbers, a table, or sparse. Finite.
                A C-contiguous float32 array or memmap is used as it is and must not be changed
                afterwards, since new rows are compared with it; anything else is converted block
                by block. With metric `precomputed`: a sparse matrix (N, N) of weights, where
                A_ij > 0 links i to j, or a pair (indices, similarities) with int (N, k)
                neighbours, -1 for none, and float (N, k) weights or None for links that all weigh
                the same. Weights are at least 0, and larger for nearer rows. Links count in both
                directions.
            y: (N,), labels: numbers, bool or str; -1 (in arrays of str also the text "-1") for
                rows without a label. If y holds nothing but -1 and 1, which is a usual way to
                write two classes, -1 is a class, and a warning says so.

        Returns:
            The estimator. In memory besides X: for each row 4 bytes a neighbour and d + 12 bytes
            for searches, while the graph is built about 16 bytes a neighbour more, and for each row
            and class 16 bytes, of which 4 stay, or fewer classes at a time where that is too much.

        Raises:
            ValueError: For a parameter, X or y that cannot be used.
        """
        self._require_parameters()
        seed = self._seed()
        with self._at_work():
            is_graph = self.metric == "precomputed"
            if is_graph:
                rows, labels = X, _require_labels(y)
            else:
                checked, labels = validate_data(
                    self, X, y, accept_sparse="csr", dtype="numeric", ensure_all_finite=False
                )
                rows = _same_memory(X, checked)
            classes, nodes, node_classes = _encode_labels(labels)
            # Refuses, before any work, a prior that these classes cannot have.
            class_priors(self.class_prior, node_classes, len(classes))
            if is_graph:
                matrix = self._matrix_of_graph(rows, labels)
            else:
                matrix = self._matrix_of_rows(rows, len(classes), seed)
            self._spread(matrix, classes, nodes, node_classes, seed)
        return self

    def _spread(
        self,
        matrix: PropagationMatrix,
        classes: NDArray[Any],
        nodes: NDArray[np.int32],
        node_classes: NDArray[np.int32],
        seed: int,
    ) -> None:
        n_classes = len(classes)
        options: dict[str, Any] = {
            "class_slice": self.class_slice,
            "precision": self.precision,
            "class_prior": self.class_prior,
            "memory_budget_bytes": self._memory_budget,
        }
        self.validation_accuracy_ = None
        if self.n_iterations == "auto":
            chosen = choose_steps(matrix, nodes, node_classes, n_classes, seed=seed, **options)
            n_iterations, self.validation_accuracy_ = chosen.n_iterations, chosen.accuracy
        else:
            n_iterations = int(self.n_iterations)
        everyone = np.arange(matrix.n_nodes, dtype=np.int32)[:, None]
        with logged_step("diffusion"):
            scores = propagate(
                matrix,
                node_classes,
                everyone,
                n_classes,
                n_iterations,
                every_step=False,
                labeled_nodes=nodes,
                **options,
            )[0]
        unreached = np.flatnonzero(_most(scores) < 0).astype(np.int32)
        if self.n_iterations == "auto" and len(unreached):
            scores[unreached] = self._reached_later(
                matrix, nodes, node_classes, n_classes, unreached, n_iterations
            )
        self.classes_ = classes
        self.n_iterations_ = n_iterations
        self._node_scores = scores
        self._labeled_nodes, self._labeled_classes = nodes, node_classes
        found = _most(scores)
        found[nodes] = node_classes
        self.transduction_ = self._labels(found)
        self.n_unreached_ = int((found < 0).sum())
        if self.n_unreached_:
            _warn(
                f"{self.n_unreached_} of {len(found)} rows were reached by no label within "
                f"{n_iterations} steps: transduction_ is -1 and label_distributions_ 0 there. A "
                "larger n_neighbors or n_iterations, or labels in other places, reach more"
            )

    def _reached_later(
        self,
        matrix: PropagationMatrix,
        nodes: NDArray[np.int32],
        node_classes: NDArray[np.int32],
        n_classes: int,
        unreached: NDArray[np.int32],
        n_iterations: int,
    ) -> NDArray[np.float32]:
        """Scores of rows for which more steps are needed than are good for the others."""
        try:
            with logged_step(f"diffusion to {len(unreached)} rows that are farther away"):
                scores = scores_when_reached(
                    matrix,
                    node_classes,
                    unreached,
                    n_classes,
                    n_iterations,
                    n_iterations + MOST_STEPS,
                    precision=self.precision,
                    memory_budget_bytes=self._memory_budget,
                    labeled_nodes=nodes,
                )
        except InputError as error:
            logger.info("rows that are farther away stay without a label: %s", error)
            return np.zeros((len(unreached), n_classes), np.float32)
        return scores * class_priors(self.class_prior, node_classes, n_classes)

    @property
    def label_distributions_(self) -> NDArray[np.float32]:
        """The share of each class in the mass of every row; see above."""
        check_is_fitted(self)
        distributions: NDArray[np.float32] = self._node_scores / _divisors(self._node_scores)
        distributions[self._labeled_nodes] = 0
        distributions[self._labeled_nodes, self._labeled_classes] = 1
        return distributions

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The share of each class in the mass of the rows that are nearest to new rows.

        Args:
            X: (m, d), as for :meth:`fit`; with metric `precomputed` a sparse matrix (m, N), or a
                pair of (m, k), of links to the rows of the graph.

        Returns:
            float64 (m, C), in the order of `classes_`. Rows sum to 1; where no mass has reached any
            of the neighbours a row is all zeros, and a warning says how often. In memory besides:
            a block of rows.

        Raises:
            ValueError: For X that cannot be used.
            NotFittedError: Before :meth:`fit`.
        """
        check_is_fitted(self)
        with self._at_work():
            parts = [scores / _divisors(scores) for scores in self._scores_of(X)]
        probabilities = np.concatenate([np.empty((0, len(self.classes_))), *parts])
        self._warn_of_unreached((probabilities == 0).all(axis=1))
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of most of the mass of the rows of the graph that are nearest to new rows.

        Args:
            X: (m, d), as for :meth:`predict_proba`.

        Returns:
            (m,), labels; -1 where no mass has reached any of the neighbours, and a warning says how
            often. Of classes with equal mass the first. In memory besides: a block of rows.

        Raises:
            ValueError: For X that cannot be used.
            NotFittedError: Before :meth:`fit`.
        """
        check_is_fitted(self)
        with self._at_work():
            parts = [_most(scores) for scores in self._scores_of(X)]
        found = np.concatenate([np.empty(0, np.int64), *parts])
        self._warn_of_unreached(found < 0)
        return self._labels(found)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Part of the rows that have a label for which :meth:`predict` says that label.

        Args:
            X: (m, d), as for :meth:`predict`.
            y: (m,), labels. Rows with -1 do not count, so that cross-validation works on data of
                which only a part is labelled.
            sample_weight: (m,), how much each row counts; None: all the same.

        Raises:
            ValueError: If no row has a label, or X or y cannot be used.
            NotFittedError: Before :meth:`fit`.
        """
        check_is_fitted(self)
        labels = _require_labels(y)
        is_labeled = ~_is_unlabeled(labels) | np.isin(UNLABELED, self.classes_)
        if not is_labeled.any():
            raise InputError(f"y: none of the {len(labels)} rows has a label, nothing to score")
        found = self.predict(X)
        check_consistent_length(found, labels, sample_weight)
        weights = None if sample_weight is None else np.asarray(sample_weight)[is_labeled]
        if weights is not None and weights.sum() == 0:
            raise InputError("sample_weight: sums to 0 over rows with a label, nothing to score")
        return float(np.average(found[is_labeled] == labels[is_labeled], weights=weights))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self.metric == "precomputed"
        return tags

    # Rows of X and the graph over them.

    def _matrix_of_rows(self, X: Any, n_classes: int, seed: int) -> PropagationMatrix:
        n_rows = X.shape[0]
        self._reduction = None
        if sparse.issparse(X) and X.shape[1] > self.n_components:
            _require_finite_entries(X, 0)
            with logged_step(f"reduction of {X.shape[1]} sparse columns to {self.n_components}"):
                self._reduction = TruncatedSVD(
                    min(self.n_components, n_rows), random_state=seed
                ).fit(X)
        self._center = None
        if self.metric == "euclidean" and self._reduction is None and not sparse.issparse(X):
            self._center = _center(X)
        vectors = self._vectors(X)
        k = min(int(self.n_neighbors), n_rows)
        if k < self.n_neighbors:
            _warn(f"n_neighbors: got {self.n_neighbors}, but there are {n_rows} rows; taking all")
        graph.require_method(self.graph_method, vectors.shape[1], "graph_method")
        neighbors, self._search = graph.node_graph(
            vectors,
            k,
            metric=self.metric,
            method=self.graph_method,
            target_recall=self.target_recall,
            memory_budget=self._memory_budget,
            name="X",
        )
        self.neighbors_ = neighbors.indices
        self._unlink_zeros(vectors)
        with logged_step("symmetrised graph"):
            return propagation_matrix(self.neighbors_, numbering=self._numbering(n_rows, n_classes))

    def _unlink_zeros(self, vectors: NDArray[np.float32]) -> None:
        """Links neither to nor from rows of zeros, which have no direction to compare."""
        if self.metric != "cosine":
            return
        zeros = np.concatenate(
            [_is_zero(vectors[first:last]) for first, last in row_ranges(len(vectors), _BLOCK_ROWS)]
        )
        if zeros.any():
            _warn(
                f"{zeros.sum()} of {len(zeros)} rows are all zeros, which have no cosine with "
                "others: they are linked to none"
            )
            self.neighbors_[zeros[self.neighbors_]] = -1
            self.neighbors_[zeros] = -1

    def _numbering(self, n_rows: int, n_classes: int) -> str:
        if self.n_iterations == "auto":
            return numbering_for(n_rows, max(n_classes, MOST_COLUMNS), MOST_STEPS)
        return numbering_for(n_rows, n_classes, int(self.n_iterations))

    def _vectors(self, X: Any) -> NDArray[np.float32]:
        """X as float32 rows without gaps: X itself where it is that already."""
        if _is_plain(X) and self._center is None:
            return X  # type: ignore[no-any-return]
        n_rows = X.shape[0]
        n_columns = self._reduction.n_components if self._reduction else X.shape[1]
        vectors = self._allocate(n_rows, n_columns)
        with Progress(n_rows, "conversion of X") as bar:
            for first, last in row_ranges(n_rows, _BLOCK_ROWS):
                vectors[first:last] = self._block(X, first, last)
                bar.update(last - first)
        return vectors

    def _allocate(self, n_rows: int, n_columns: int) -> NDArray[np.float32]:
        """Room in memory, or on disk where memory is short."""
        n_bytes = 4 * n_rows * n_columns
        left = available_bytes()
        if self._memory_budget is not None:
            left = min(left, self._memory_budget - rss_bytes())
        if n_bytes <= _VECTORS_PART * left or n_bytes == 0:
            return np.empty((n_rows, n_columns), np.float32)
        logger.info("X as float32, %s, is kept on disk", format_bytes(n_bytes))
        # Nameless: it is gone when the last array over it is.
        with tempfile.TemporaryFile() as file:
            return np.memmap(file, np.float32, "w+", shape=(n_rows, n_columns))

    def _block(self, X: Any, first: int, last: int) -> NDArray[np.float32]:
        """Rows first..last-1 of X as vectors."""
        block = X[first:last]
        numbers = np.arange(first, last)
        if sparse.issparse(block):
            _require_finite_entries(block, first)
        else:
            require_finite(block, numbers, "X")
        if self._reduction is not None:
            block = self._reduction.transform(block)
        elif sparse.issparse(block):
            block = block.toarray()
        if self._center is not None:
            # Before it is rounded to float32, which would not see small differences of large
            # numbers.
            block = block - self._center
        with np.errstate(over="ignore"):
            vectors = np.ascontiguousarray(block, dtype=np.float32)
        if block.dtype != np.float32:
            require_finite(vectors, numbers, "X, as float32,")
        return vectors

    # Graphs that are given.

    def _matrix_of_graph(self, X: Any, labels: NDArray[Any]) -> PropagationMatrix:
        n_rows = _n_rows(X)
        if n_rows != len(labels):
            raise InputError(f"X: a graph over {n_rows} rows, but y has {len(labels)} labels")
        self.n_features_in_ = n_rows
        if _is_pair(X) and X[1] is None:
            neighbors = np.ascontiguousarray(_neighbors(X[0], n_rows), dtype=np.int32)
            with logged_step("symmetrised graph"):
                return propagation_matrix(neighbors, numbering="given")
        links = _links_of(X, n_rows)
        with logged_step("symmetrised graph"):
            return matrix_of_weights(links, "X")

    # New rows.

    def _scores_of(self, X: Any) -> Iterator[NDArray[np.float64]]:
        """Scores of new rows, float64 (b, C), block after block."""
        n_nodes = len(self._node_scores)
        if self.metric == "precomputed":
            links = require_weights(_links_of(X, n_nodes), "X")
            for first, last in row_ranges(links.shape[0], _BLOCK_ROWS):
                yield (links[first:last] @ self._node_scores).astype(np.float64)
            return
        checked = validate_data(
            self, X, accept_sparse="csr", dtype="numeric", ensure_all_finite=False, reset=False
        )
        rows = _same_memory(X, checked)
        with Progress(rows.shape[0], "prediction") as bar:
            for first, last in row_ranges(rows.shape[0], _BLOCK_ROWS):
                vectors = self._block(rows, first, last)
                found = self._search.search(vectors, min(int(self.n_neighbors), n_nodes)).indices
                if self.metric == "cosine":
                    found[_is_zero(vectors)] = -1
                yield (_links(found, None, n_nodes) @ self._node_scores).astype(np.float64)
                bar.update(last - first)

    def _labels(self, found: NDArray[np.int64]) -> NDArray[Any]:
        """Labels of classes, -1 for none, in an array that has room for both."""
        labels = self.classes_[np.maximum(found, 0)]
        if (found >= 0).all():
            return labels
        dtype = np.promote_types(labels.dtype, np.int8)
        # Texts, truth values and the largest integers have no common type with -1.
        is_number = labels.dtype.kind in "if" or (dtype.kind == "i" and labels.dtype.kind == "u")
        labels = labels.astype(dtype if is_number else object)
        labels[found < 0] = UNLABELED
        return labels

    # Parameters.

    def _seed(self) -> int:
        try:
            random = check_random_state(self.random_state)
        except ValueError as error:
            raise InputError(
                f"random_state: got {self.random_state!r}, expected an integer of at least 0, a "
                "RandomState of numpy, or None"
            ) from error
        return int(random.randint(np.iinfo(np.int32).max))

    @property
    def _memory_budget(self) -> int | None:
        return None if self.memory_budget_gb is None else int(self.memory_budget_gb * 1e9)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Threads and progress as the parameters say, and errors that name these parameters."""
        with ExitStack() as stack:
            if self.n_jobs is not None:
                # As everywhere in scikit-learn, -1 is all processors and -2 all but one.
                all_but = (os.cpu_count() or 1) + 1 + self.n_jobs
                n_threads = int(self.n_jobs) if self.n_jobs > 0 else max(1, all_but)
                stack.enter_context(threadpool_limits(n_threads))
            stack.enter_context(shown_progress(bool(self.verbose)))
            try:
                yield
            except InputError as error:
                message = str(error)
                for theirs, own in _OWN_NAMES.items():
                    message = message.replace(theirs, own)
                raise InputError(message) from error

    def _require_parameters(self) -> None:
        """Refuse, before any work, what no parameter can be."""
        _require_integer("n_neighbors", self.n_neighbors, 1)
        if not _is_integer(self.n_iterations, 0) and self.n_iterations != "auto":
            raise InputError(
                f"n_iterations: got {self.n_iterations!r}, expected an integer of at least 0, or "
                "auto"
            )
        _require_choice("metric", self.metric, METRICS)
        if not isinstance(self.graph_method, str):
            raise InputError(
                f"graph_method: got {self.graph_method!r}, expected one of: "
                f"{', '.join(graph.METHODS)}; or a description for faiss.index_factory"
            )
        _require_number("target_recall", self.target_recall, 1)
        if isinstance(self.class_prior, str):
            _require_choice("class_prior", self.class_prior, CLASS_PRIORS)
        _require_choice("precision", self.precision, PRECISIONS)
        if not _is_integer(self.class_slice, 0) and self.class_slice != "auto":
            raise InputError(
                f"class_slice: got {self.class_slice!r}, expected an integer of at least 0, or auto"
            )
        _require_integer("n_components", self.n_components, 1)
        if self.memory_budget_gb is not None:
            _require_number("memory_budget_gb", self.memory_budget_gb)
        if self.n_jobs is not None and (not _is_integer(self.n_jobs) or self.n_jobs == 0):
            raise InputError(
                f"n_jobs: got {self.n_jobs!r}, expected None or an integer other than 0"
            )

    def _warn_of_unreached(self, unreached: NDArray[np.bool_]) -> None:
        count = int(unreached.sum())
        if count:
            _warn(
                f"{count} of {len(unreached)} rows are near to rows only that no label has "
                "reached: predict says -1 for them, predict_proba 0 for every class"
            )


def _warn(message: str) -> None:
    """Warn whoever has called the estimator, however far up that is."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame, level = frame.f_back, level + 1
    warnings.warn(f"LabelDiffusion: {message}", UserWarning, stacklevel=level + 1)


def _is_integer(value: Any, least: int | None = None) -> bool:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        return False
    return least is None or int(value) >= least


def _require_integer(name: str, value: Any, least: int) -> None:
    if not _is_integer(value, least):
        raise InputError(f"{name}: got {value!r}, expected an integer of at least {least}")


def _require_number(name: str, value: Any, most: float = np.inf) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    if not is_number or not 0 < value <= most or not np.isfinite(value):
        above = "" if most == np.inf else f" and at most {most}"
        raise InputError(f"{name}: got {value!r}, expected a number above 0{above}")


def _require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}: got {value!r}, expected one of: {', '.join(choices)}")


# Labels.


def _require_labels(y: Any) -> NDArray[Any]:
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    return labels


def _is_unlabeled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    if labels.dtype.kind in "US":
        return np.asarray(labels == np.array(str(UNLABELED), labels.dtype.kind))
    if labels.dtype.kind == "O":
        # numpy makes texts of [-1, "cat"], and other libraries of a column with both.
        return np.array([label == UNLABELED or label == str(UNLABELED) for label in labels], bool)
    return np.asarray(labels == UNLABELED)


def _encode_labels(
    labels: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int32]]:
    """The classes, the rows that have a label, and the class of each of these."""
    is_labeled = ~_is_unlabeled(labels)
    if labels.dtype.kind in "if" and np.array_equal(np.unique(labels), [UNLABELED, 1]):
        _warn(
            "y holds nothing but -1 and 1, which is taken for two classes with every row labelled; "
            "with a single class there is nothing to tell apart"
        )
        is_labeled[:] = True
    nodes = np.flatnonzero(is_labeled).astype(np.int32)
    if len(nodes) == 0:
        raise InputError(
            f"y: none of the {len(labels)} rows has a label, expected at least one label other "
            f"than {UNLABELED}"
        )
    known = labels[nodes]
    if known.dtype.kind == "O" and not all(isinstance(label, str) for label in known):
        known = np.asarray(known.tolist())
        if known.dtype.kind not in "biuf":
            kinds = sorted({type(label).__name__ for label in labels[nodes]})
            raise InputError(
                f"y: found labels of the types {', '.join(kinds)}, expected either numbers or str, "
                f"and {UNLABELED} for rows without a label"
            )
    check_classification_targets(known)
    classes, node_classes = np.unique(known, return_inverse=True)
    return classes, nodes, node_classes.astype(np.int32)


# Vectors.


def _is_plain(X: Any) -> bool:
    return isinstance(X, np.ndarray) and X.dtype == np.float32 and X.flags.c_contiguous


def _is_zero(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(~vectors.any(axis=1))


def _require_finite_entries(block: sparse.csr_array, first: int) -> None:
    """As require_finite, of which the sum of a row is enough."""
    sums = np.asarray(block.sum(axis=1)).reshape(-1, 1)
    require_finite(sums, np.arange(first, first + len(sums)), "X")


def _same_memory(given: Any, checked: Any) -> Any:
    """The memmap that was given rather than the array over it that scikit-learn makes of it."""
    is_same = isinstance(given, np.memmap) and np.shares_memory(given, checked)
    return given if is_same and given.dtype == checked.dtype else checked


def _center(X: NDArray[Any]) -> NDArray[np.float64] | None:
    """The mean of the rows, where float32 would round them; else None."""
    if np.can_cast(X.dtype, np.float32, "safe"):
        return None
    total = np.zeros(X.shape[1], np.float64)
    for first, last in row_ranges(len(X), _BLOCK_ROWS):
        require_finite(X[first:last], np.arange(first, last), "X")
        total += X[first:last].sum(axis=0, dtype=np.float64)
        release(X)
    return total / len(X)


# Links of a graph that is given.


def _is_pair(X: Any) -> bool:
    return isinstance(X, tuple) and len(X) == 2


def _n_rows(X: Any) -> int:
    shape = np.shape(X[0] if _is_pair(X) else X)
    if not shape:
        raise InputError(_expected_graph(X))
    return int(shape[0])


def _expected_graph(X: Any) -> str:
    return (
        "X: expected a sparse matrix, or a pair (indices, similarities), since metric is "
        f"precomputed; got {type(X).__name__}"
    )


def _neighbors(indices: Any, n_nodes: int) -> NDArray[np.integer[Any]]:
    neighbors = np.asarray(indices)
    if neighbors.ndim != 2 or neighbors.dtype.kind not in "iu":
        raise InputError(
            f"X: neighbours of shape {neighbors.shape} and type {neighbors.dtype}, expected two "
            "dimensions and integers"
        )
    require_nodes(neighbors, n_nodes, "X: neighbours")
    return neighbors


def _links_of(X: Any, n_nodes: int) -> sparse.csr_array:
    """The weights of the links to n_nodes rows of a graph."""
    if _is_pair(X):
        neighbors = _neighbors(X[0], n_nodes)
        if X[1] is None:
            return _links(neighbors, None, n_nodes)
        weights = np.asarray(X[1])
        if weights.shape != neighbors.shape:
            raise InputError(
                f"X: similarities of shape {weights.shape}, expected that of the neighbours, "
                f"{neighbors.shape}"
            )
        return _links(neighbors, weights, n_nodes)
    if not sparse.issparse(X) and np.ndim(X) != 2:
        raise InputError(_expected_graph(X))
    links = sparse.csr_array(X)
    if links.shape[1] != n_nodes:
        raise InputError(
            f"X: got {links.shape[1]} columns, but the graph has {n_nodes} rows; with metric "
            "precomputed X holds the weight of a link to each of them"
        )
    return links


def _links(
    neighbors: NDArray[np.integer[Any]], weights: NDArray[Any] | None, n_nodes: int
) -> sparse.csr_array:
    present = neighbors >= 0
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    values = np.ones(indptr[-1], np.float32) if weights is None else weights[present]
    shape = (len(neighbors), n_nodes)
    return sparse.csr_array((values, neighbors[present], indptr), shape=shape)


# Scores.


def _divisors(scores: NDArray[Any]) -> NDArray[Any]:
    """What scales rows to sum 1; 1 for a row of zeros."""
    sums = scores.sum(axis=1, keepdims=True)
    sums[sums == 0] = 1
    return sums  # type: ignore[no-any-return]


def _most(scores: NDArray[Any]) -> NDArray[np.int64]:
    """The column of the largest score of every row, the first of equal ones; -1 without any."""
    found: NDArray[np.int64] = scores.argmax(axis=1)
    found[scores.max(axis=1) == 0] = -1
    return found
