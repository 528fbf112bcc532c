"""Semi-supervised label diffusion over a k-nearest-neighbour graph, as a scikit-learn estimator.

Others call it label propagation or label spreading; it is transductive, and predicts new rows too.
"""

from __future__ import annotations

import logging
import os
import tempfile
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
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from lowshot_kedro import graph
from lowshot_kedro.blocks import require_finite, row_ranges
from lowshot_kedro.diffusion import (
    CLASS_PRIORS,
    MAX_COLUMNS,
    MAX_STEPS,
    PRECISIONS,
    PropagationMatrix,
    PropagationOptions,
    choose_node_ordering,
    choose_steps,
    class_priors,
    matrix_of_weights,
    propagate,
    propagation_matrix,
    require_weights,
    scores_when_reached,
)
from lowshot_kedro.errors import InputError, NotEnoughMemoryError, warn_caller
from lowshot_kedro.estimators.labels import comparable_labels, encode_labels, labels_of, no_label
from lowshot_kedro.estimators.links import (
    count_rows,
    graph_rows,
    is_pair,
    link_matrix,
    links_of,
    neighbors_of,
)
from lowshot_kedro.estimators.rows import (
    center_of,
    checked_rows,
    is_plain,
    is_zero,
    require_directions,
    require_finite_entries,
    require_no_overflow,
    require_spread,
)
from lowshot_kedro.memory import available_bytes, format_bytes, rss_bytes
from lowshot_kedro.progress import Progress, logged_step, shown_progress

logger = logging.getLogger(__name__)

METRICS = (*graph.METRICS, "precomputed")
_BLOCK_ROWS = 16384
# More memory than any machine has; as bytes it fits 64 bits.
_LARGEST_BUDGET_GB = 1e9
# The smallest prior beside the largest, and a prior that is too large for a sum.
_SMALLEST_RATIO, _HUGE = 1e-30, 1e200
# The most threads: more would only take memory.
_MAX_THREADS = max(64, os.cpu_count() or 1)
# The part of the free memory that vectors may take when they have to be converted.
_VECTORS_PART = 0.4
# The estimator's names for the parameters of the functions that it calls.
_OWN_NAMES = {
    "k": "n_neighbors",
    "method": "graph_method",
    "memory_budget_bytes": "memory_budget_gb",
}


class LabelDiffusion(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Semi-supervised classifier: the labels of few rows spread over a k-NN graph to all others.

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
            rows; `uniform`; or a number above 0 for each of `classes_`. The first two are the same
            where all classes have as many labels.
        precision: Type of the scores between steps, `float32` or `bfloat16` in half the memory.
        class_slice: Classes propagated at a time, which bounds memory; 0: all; `auto`: as many as
            fit. Changes no result.
        n_components: Sparse X with more columns is reduced to so many by TruncatedSVD; with fewer
            it is made dense.
        memory_budget_gb: 10⁹ bytes that the process may take; None: four fifths of what is free.
        n_jobs: Threads; None or -1: as many as there are processors. Changes no result.
        random_state: Seed or generator for the held-out labels and for TruncatedSVD.
        verbose: Whether to show progress and a log on the standard error stream.

    Attributes:
        classes_: (C,), the labels that occur, in increasing order, of the type that they have in
            y: of lists and columns of objects int64 or what else is needed.
        transduction_: (N,), a label for every row of X. Labelled rows keep theirs; rows that no
            mass has reached have -1, among texts "-1". One kind of entries: where a row has -1,
            unsigned integers become the next signed type and truth values int8.
        label_distributions_: float32 (N, C), the share of each class in the mass of a row, made
            anew whenever it is asked for. Rows sum to 1; rows that no mass has reached are all
            zeros. A labelled row is 1 at its label. Shares are no probabilities: most are lower
            than the part of such rows that are right.
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
        >>> y = ["low", None, None, None, None, "high"]
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
                A_ij > 0 links i to j, or a pair (indices, similarities), as a tuple or a list,
                with int (N, k) neighbours, -1 for none, and float (N, k) weights or None for links
                that all weigh the same. Weights are at least 0, and larger for nearer rows. Links
                count in both directions.
            y: (N,), labels: whole numbers, bool or str, in an array, a list or a column of any
                type of pandas. Rows without a label have -1, as a number or a text, None, NaN, NA
                of pandas, or a mask, which all say the same. If y holds no labels but -1 and 1,
                which is a usual way to write two classes, -1 is a class, and rows that no mass
                reaches are 0. A warning says so, or that no row is without a label, or that a text
                such as "" is a class.

        Returns:
            The estimator. In memory besides X: for each row 4 bytes a neighbour and d + 12 bytes
            for searches, while the graph is built about 16 bytes a neighbour more, and for each row
            and class 16 bytes, of which 4 stay, or fewer classes at a time where that is too much.

        Raises:
            ValueError: For a parameter, X or y that cannot be used, in one line that names it.
            TypeError: For objects in X that are no numbers.
        """
        self._require_parameters()
        seed = self._seed()
        with self._at_work():
            is_graph = self.metric == "precomputed"
            rows = X if is_graph else checked_rows(self, X, reset=True)
            n_rows = graph_rows(X) if is_graph else rows.shape[0]
            classes, nodes, node_classes = encode_labels(y, n_rows)
            self._require_prior(node_classes, len(classes))
            if is_graph:
                matrix = self._matrix_of_graph(rows, n_rows)
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
        options = self._options()
        self.validation_accuracy_ = scores = None
        if self.n_iterations == "auto":
            chosen = choose_steps(
                matrix, nodes, node_classes, n_classes, options, seed=seed, keep_scores=True
            )
            n_iterations, self.validation_accuracy_ = chosen.n_iterations, chosen.accuracy
            scores = chosen.scores
        else:
            n_iterations = int(self.n_iterations)
        if scores is None:
            everyone = np.arange(matrix.n_nodes, dtype=np.int32)[:, None]
            with logged_step("diffusion"):
                scores = propagate(
                    matrix,
                    node_classes,
                    everyone,
                    n_classes,
                    n_iterations,
                    options,
                    every_step=False,
                    labeled_nodes=nodes,
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
        self.transduction_ = labels_of(classes, found)
        self.n_unreached_ = int((found < 0).sum())
        if self.n_unreached_:
            _warn(
                f"{self.n_unreached_} of {len(found)} rows were reached by no label within "
                f"{n_iterations} steps: transduction_ is {no_label(classes)!r} and "
                "label_distributions_ 0 there. A larger n_neighbors or n_iterations, or labels in "
                "other places, reach more"
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
                return scores_when_reached(
                    matrix,
                    node_classes,
                    unreached,
                    n_classes,
                    n_iterations,
                    n_iterations + MAX_STEPS,
                    self._options(),
                    labeled_nodes=nodes,
                )
        except NotEnoughMemoryError as error:
            reason = error.worded(_own_name)
            logger.info("rows that are farther away stay without a label: %s", reason)
            return np.zeros((len(unreached), n_classes), np.float32)

    @property
    def label_distributions_(self) -> NDArray[np.float32]:
        """The share of each class in the mass of every row, float32 (N, C)."""
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
            of the neighbours a row is all zeros, and a warning says how often. Shares of mass, as
            `label_distributions_`. In memory besides: a block of rows.

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
            (m,), labels, as `transduction_`; -1 or "-1" where no mass has reached any of the
            neighbours, and a warning says how often. Of classes with equal mass the first. In
            memory besides: a block of rows.

        Raises:
            ValueError: For X that cannot be used.
            NotFittedError: Before :meth:`fit`.
        """
        check_is_fitted(self)
        with self._at_work():
            parts = [_most(scores) for scores in self._scores_of(X)]
        found = np.concatenate([np.empty(0, np.int64), *parts])
        self._warn_of_unreached(found < 0)
        return labels_of(self.classes_, found)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Part of the rows that have a label for which :meth:`predict` says that label.

        Args:
            X: (m, d), as for :meth:`predict`.
            y: (m,), labels as for :meth:`fit`, of the same kind, texts or numbers. Rows without a
                label do not count, so that cross-validation works on data of which only a part is
                labelled. A label that fit has not seen is never right.
            sample_weight: (m,), how much each row counts, at least 0; None: all the same.

        Raises:
            ValueError: If no row has a label, labels are of another kind than those of fit, or X,
                y or weights cannot be used.
            NotFittedError: Before :meth:`fit`.
        """
        check_is_fitted(self)
        n_rows = count_rows(X)
        rows, labels = comparable_labels(y, n_rows, self.classes_)
        weights = None if sample_weight is None else _sample_weights(sample_weight, n_rows)[rows]
        if weights is not None and weights.sum() == 0:
            raise InputError("sample_weight: sums to 0 over rows with a label, nothing to score")
        found = self.predict(X)[rows]
        return float(np.average(found == labels, weights=weights))

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
            require_finite_entries(X, 0)
            with logged_step(f"reduction of {X.shape[1]} sparse columns to {self.n_components}"):
                self._reduction = TruncatedSVD(
                    min(self.n_components, n_rows), random_state=seed
                ).fit(X)
        self._center = None
        if self.metric == "euclidean" and self._reduction is None and not sparse.issparse(X):
            self._center = center_of(X)
        vectors = self._vectors(X)
        k = min(int(self.n_neighbors), n_rows)
        if k < self.n_neighbors:
            _warn(f"n_neighbors: got {self.n_neighbors}, but there are {n_rows} rows; taking all")
        graph.require_method(self.graph_method, vectors.shape[1])
        neighbors, self._search = graph.build_knn_graph(
            vectors,
            k,
            metric=self.metric,
            method=self.graph_method,
            target_recall=self.target_recall,
            memory_budget_bytes=self._memory_budget,
            name="X",
            one_of_equal=True,
        )
        self.neighbors_ = neighbors.indices
        self._unlink_zeros(vectors)
        with logged_step("symmetrised graph"):
            return propagation_matrix(
                self.neighbors_, node_ordering=self._node_ordering(n_rows, n_classes)
            )

    def _unlink_zeros(self, vectors: NDArray[np.float32]) -> None:
        """Links neither to nor from rows of zeros, which have no direction to compare."""
        if self.metric != "cosine":
            return
        zeros = np.concatenate(
            [is_zero(vectors[first:last]) for first, last in row_ranges(len(vectors), _BLOCK_ROWS)]
        )
        if zeros.any():
            _warn(
                f"{zeros.sum()} of {len(zeros)} rows are all zeros, which have no cosine with "
                "others: they are linked to none"
            )
            self.neighbors_[zeros[self.neighbors_]] = -1
            self.neighbors_[zeros] = -1

    def _node_ordering(self, n_rows: int, n_classes: int) -> str:
        if self.n_iterations == "auto":
            return choose_node_ordering(n_rows, max(n_classes, MAX_COLUMNS), MAX_STEPS)
        return choose_node_ordering(n_rows, n_classes, int(self.n_iterations))

    def _vectors(self, X: Any) -> NDArray[np.float32]:
        """X as float32 rows without gaps: X itself where it is that already."""
        if self.metric == "euclidean":
            require_spread(X)
        if is_plain(X) and self._center is None:
            if self.metric == "cosine":
                require_directions(X)
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
            require_finite_entries(block, first)
        else:
            require_finite(block, numbers, "X")
        if self._reduction is not None:
            block = self._reduction.transform(block)
        elif sparse.issparse(block):
            block = block.toarray()
        with np.errstate(over="ignore"):
            vectors = np.ascontiguousarray(block, dtype=np.float32)
            if block.dtype != np.float32:
                # Before the mean, which numbers too large in one row make too large for all.
                require_no_overflow(vectors, numbers)
            if self._center is not None:
                # Of what is not yet rounded to float32, which would not see small differences of
                # large numbers.
                vectors = np.ascontiguousarray(block - self._center, dtype=np.float32)
                require_no_overflow(vectors, numbers)
        if self.metric == "cosine":
            require_directions(block, first)
        return vectors

    # Graphs that are given.

    def _matrix_of_graph(self, X: Any, n_rows: int) -> PropagationMatrix:
        self.n_features_in_ = n_rows
        if is_pair(X) and X[1] is None:
            neighbors = np.ascontiguousarray(neighbors_of(X[0], n_rows), dtype=np.int32)
            with logged_step("symmetrised graph"):
                return propagation_matrix(neighbors, node_ordering="given")
        links = links_of(X, n_rows)
        with logged_step("symmetrised graph"):
            return matrix_of_weights(links, "X")

    # New rows.

    def _scores_of(self, X: Any) -> Iterator[NDArray[np.float64]]:
        """Scores of new rows, float64 (b, C), block after block."""
        n_nodes = len(self._node_scores)
        if self.metric == "precomputed":
            links = require_weights(links_of(X, n_nodes), "X")
            for first, last in row_ranges(links.shape[0], _BLOCK_ROWS):
                yield (links[first:last] @ self._node_scores).astype(np.float64)
            return
        rows = checked_rows(self, X, reset=False)
        with Progress(rows.shape[0], "prediction") as bar:
            for first, last in row_ranges(rows.shape[0], _BLOCK_ROWS):
                vectors = self._block(rows, first, last)
                found = self._search.search(vectors, min(int(self.n_neighbors), n_nodes)).indices
                if self.metric == "cosine":
                    found[is_zero(vectors)] = -1
                yield (link_matrix(found, None, n_nodes) @ self._node_scores).astype(np.float64)
                bar.update(last - first)

    # Parameters.

    def _require_prior(self, node_classes: NDArray[np.int32], n_classes: int) -> None:
        """Refuse, before any work, a prior that these classes cannot have."""
        class_prior: Any = self.class_prior
        # A list of integers that no float can hold is one of objects for numpy, too.
        given = None if isinstance(class_prior, str) else np.asarray(class_prior)
        if given is not None and (given.ndim != 1 or (given.size and not _are_priors(given))):
            raise InputError(
                parameter="class_prior",
                found=class_prior,
                expected=f"one of: {', '.join(CLASS_PRIORS)}; or a number above 0 for each class, "
                "none of them negligible beside the others, since every class has labelled rows",
            )
        class_priors(class_prior, node_classes, n_classes)

    def _seed(self) -> int:
        try:
            if isinstance(self.random_state, bool | np.bool_):
                raise ValueError
            random = check_random_state(self.random_state)
        except (TypeError, ValueError) as error:
            raise InputError(
                parameter="random_state",
                found=self.random_state,
                expected="an integer from 0 to 2³² - 1, a RandomState of numpy, or None",
            ) from error
        return int(random.randint(np.iinfo(np.int32).max))

    def _options(self) -> PropagationOptions:
        return PropagationOptions(
            class_slice=self.class_slice,
            precision=self.precision,
            class_prior=self.class_prior,
            memory_budget_bytes=self._memory_budget,
        )

    @property
    def _memory_budget(self) -> int | None:
        if self.memory_budget_gb is None:
            return None
        return int(min(self.memory_budget_gb, _LARGEST_BUDGET_GB) * 1e9)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Set threads and progress as the parameters say, and have errors name these parameters."""
        with ExitStack() as stack:
            if self.n_jobs is not None:
                # As everywhere in scikit-learn, -1 is all processors and -2 all but one.
                all_but = (os.cpu_count() or 1) + 1 + self.n_jobs
                n_threads = int(self.n_jobs) if self.n_jobs > 0 else max(1, all_but)
                stack.enter_context(threadpool_limits(min(n_threads, _MAX_THREADS)))
            stack.enter_context(shown_progress(bool(self.verbose)))
            try:
                yield
            except InputError as error:
                name = _own_name(error)
                if name is None or name == error.parameter:
                    raise
                raise error.renamed(name) from error

    def _require_parameters(self) -> None:
        """Refuse, before any work, values that the parameters cannot have."""
        _require_integer("n_neighbors", self.n_neighbors, 1)
        if not _is_integer(self.n_iterations, 0) and not _is_text(self.n_iterations, "auto"):
            expected = "an integer of at least 0, or auto"
            raise InputError(parameter="n_iterations", found=self.n_iterations, expected=expected)
        _require_choice("metric", self.metric, METRICS)
        if not isinstance(self.graph_method, str):
            raise InputError(
                parameter="graph_method",
                found=self.graph_method,
                expected=f"one of: {', '.join(graph.METHODS)}; or a description for "
                "faiss.index_factory",
            )
        _require_number("target_recall", self.target_recall, 1)
        if isinstance(self.class_prior, str):
            _require_choice("class_prior", self.class_prior, CLASS_PRIORS)
        _require_choice("precision", self.precision, PRECISIONS)
        if not _is_integer(self.class_slice, 0) and not _is_text(self.class_slice, "auto"):
            expected = "an integer of at least 0, or auto"
            raise InputError(parameter="class_slice", found=self.class_slice, expected=expected)
        _require_integer("n_components", self.n_components, 1)
        if self.memory_budget_gb is not None:
            _require_number("memory_budget_gb", self.memory_budget_gb)
        if self.n_jobs is not None and (not _is_integer(self.n_jobs) or self.n_jobs == 0):
            expected = "None or an integer other than 0"
            raise InputError(parameter="n_jobs", found=self.n_jobs, expected=expected)
        verbose: Any = self.verbose
        if not isinstance(verbose, bool | np.bool_) and not _is_integer(verbose, 0):
            raise InputError(parameter="verbose", found=verbose, expected="True or False")

    def _warn_of_unreached(self, unreached: NDArray[np.bool_]) -> None:
        count = int(unreached.sum())
        if count:
            _warn(
                f"{count} of {len(unreached)} rows are near to rows only that no label has "
                f"reached: predict says {no_label(self.classes_)!r} for them, predict_proba 0 for "
                "every class"
            )


def _own_name(error: InputError) -> str | None:
    """The name that the estimator gives to the parameter of an error."""
    name = error.parameter
    return None if name is None else _OWN_NAMES.get(name, name)


def _warn(message: str) -> None:
    warn_caller(f"LabelDiffusion: {message}")


def _is_integer(value: Any, least: int | None = None) -> bool:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        return False
    return least is None or int(value) >= least


def _is_text(value: Any, text: str) -> bool:
    return isinstance(value, str) and value == text


def _require_integer(name: str, value: Any, least: int) -> None:
    if not _is_integer(value, least):
        expected = f"an integer of at least {least}"
        raise InputError(parameter=name, found=value, expected=expected)


def _require_number(name: str, value: Any, most: float = np.inf) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    # Compared as it is: there are integers that no float can hold.
    if not is_number or not 0 < value <= most or value == np.inf:
        above = "" if most == np.inf else f" and at most {most}"
        raise InputError(parameter=name, found=value, expected=f"a number above 0{above}")


def _are_priors(numbers: NDArray[Any]) -> bool:
    if numbers.dtype.kind not in "iuf" or not (np.isfinite(numbers) & (numbers > 0)).all():
        return False
    # float32 holds their ratios, and float64 their sum.
    smallest, largest = float(numbers.min()), float(numbers.max())
    return smallest / largest > _SMALLEST_RATIO and 1 / _HUGE < largest < _HUGE


def _require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        expected = f"one of: {', '.join(choices)}"
        raise InputError(parameter=name, found=value, expected=expected)


# Scores.


def _sample_weights(weights: Any, n_rows: int) -> NDArray[np.float64]:
    """Weights divided by the largest, so that no sum is too large."""
    try:
        found = np.asarray(weights)
        if np.ma.is_masked(weights) or found.dtype.kind not in "biufO":
            raise ValueError
        numbers = found.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"sample_weight: found something else than numbers, expected {n_rows} numbers"
        ) from error
    if numbers.shape != (n_rows,):
        raise InputError(
            f"sample_weight: got shape {numbers.shape}, expected {n_rows} numbers, one for each "
            "row of X"
        )
    is_weight = np.isfinite(numbers) & (numbers >= 0)
    if not is_weight.all():
        raise InputError(
            f"sample_weight: got {numbers[~is_weight][0]}, expected finite numbers of at least 0"
        )
    return numbers / (numbers.max(initial=0) or 1)


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
