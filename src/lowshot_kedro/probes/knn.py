"""Classification by the labels of the most similar embeddings, as it is used to judge networks.

The similarity is the inner product of embeddings as they are, and the weight of a neighbour is
exp(similarity / temperature): the k-NN classifier of Z. Wu, A. Efros and S. Yu, "Improving
Generalization via Scalable Neighborhood Component Analysis", ECCV 2018.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import KnnGraph, require_finite, row_ranges
from lowshot_kedro.classifiers import nearest_vectors
from lowshot_kedro.errors import InputError
from lowshot_kedro.metrics import top_k_hits
from lowshot_kedro.parameters import refuse, require_integer, require_number
from lowshot_kedro.progress import Progress

if TYPE_CHECKING:
    import torch

    Rows = NDArray[Any] | torch.Tensor
    RowsT = TypeVar("RowsT", NDArray[Any], torch.Tensor)

TIES = (
    "of equally similar gallery rows the one that comes first is the neighbour, of classes with "
    "equal scores the one that comes first is guessed, and a class without a neighbour never is"
)

_BLOCK_ROWS = 4096
# Entries of the neighbours' embeddings that are in memory together.
_GATHERED_ENTRIES = 2**21
# Similarities from which on a search takes so long that its progress is of interest.
_MANY_SIMILARITIES = 2**31
_MAX_EXPONENT = float(np.log(np.finfo(np.float64).max))


class _Neighbors(NamedTuple):
    """Neighbours of queries first..last-1: classes and similarities, int32 and float64 (b, k)."""

    first: int
    last: int
    classes: NDArray[np.int32]
    similarities: NDArray[np.float64]

    def scores(self, k: int, temperature: float, n_classes: int) -> NDArray[np.float64]:
        """Scores of classes by the first k neighbours."""
        return class_scores(self.classes[:, :k], self.similarities[:, :k], temperature, n_classes)


class Gallery:
    """Labelled embeddings that others are compared with.

    Similarity is the inner product; nothing is normalised. The search is exact in single precision.
    Of equally similar rows the lower one is the neighbour, wherever rounding leaves them equally
    similar. A tensor is searched on the CPU, block by block.

    In memory: a float32 copy of the embeddings, 4·N·d bytes. The embeddings themselves are read
    again, so they must not change while the gallery is used.

    Args:
        embeddings: Floating (N, d), an array, a memmap or a tensor.
        labels: Integers (N,), 0..C-1.
        n_classes: Number of classes C.

    Raises:
        InputError: For other shapes, a label out of range, NaN or infinity.
    """

    def __init__(self, embeddings: Rows, labels: Rows, n_classes: int) -> None:
        require_integer("n_classes", n_classes, 1)
        _require_matrix("gallery", embeddings)
        self.n_classes = n_classes
        self._embeddings = embeddings
        self._classes = _classes_of("gallery_labels", labels, len(embeddings), n_classes)
        self._index = faiss.IndexFlatIP(embeddings.shape[1])
        for first, last in row_ranges(len(embeddings), _BLOCK_ROWS):
            self._index.add(_checked_block(embeddings, first, last, "gallery"))

    def __len__(self) -> int:
        return len(self._classes)

    def nearest(self, queries: Rows, k: int) -> KnnGraph:
        """The k most similar rows of each query, most similar first.

        Args:
            queries: Floating (Q, d), an array or a tensor.
            k: How many, at most N.

        Raises:
            InputError: As for :func:`knn_scores`.
        """
        self._require(queries, k)
        blocks = (
            nearest_vectors(self._index, _checked_block(queries, first, last, "queries"), k)
            for first, last in row_ranges(len(queries), _BLOCK_ROWS)
        )
        return KnnGraph.joined(blocks, k)

    def scores(self, queries: RowsT, k: int, temperature: float) -> RowsT:
        """The sum of exp(similarity / temperature) over those of k neighbours of each class.

        Args:
            queries: Floating (Q, d), an array or a tensor.
            k: Neighbours that count, at most N.
            temperature: Above 0.

        Returns:
            float64 (Q, C), an array, or a tensor on the device of the queries.

        Raises:
            InputError: As for :func:`knn_scores`.
        """
        result: Any = np.empty((len(queries), self.n_classes))
        for block in self._neighbors(queries, k, temperature):
            result[block.first : block.last] = block.scores(k, temperature, self.n_classes)
        if _is_tensor(queries):
            import torch

            result = torch.from_numpy(result).to(queries.device)
        return result  # type: ignore[no-any-return]

    def accuracies(
        self,
        queries: Rows,
        labels: Rows,
        ks: Sequence[int],
        temperature: float,
        top_k: Sequence[int] = (1, 5),
    ) -> list[dict[str, float]]:
        """Strict top-k accuracies for several numbers of neighbours, from one search.

        Args:
            queries: Floating (Q, d), at least one.
            labels: Integers (Q,), the true classes, 0..C-1.
            ks: Numbers of neighbours, each at most N.
            temperature: Above 0.
            top_k: How many classes may be guessed.

        Returns:
            For each number of neighbours `k`, `top1`, `top5`, … as fractions. See
            :func:`strict_top_k`. In memory: scores of a block of queries.

        Raises:
            InputError: As for :func:`knn_scores`, and for no queries.
        """
        if len(queries) == 0:
            raise InputError("queries: none; expected at least one")
        classes = _classes_of("query_labels", labels, len(queries), self.n_classes)
        hits = np.zeros((len(ks), len(top_k)), np.int64)
        for block in self._neighbors(queries, max(ks), temperature):
            true = classes[block.first : block.last]
            for row, k in enumerate(ks):
                scores = block.scores(k, temperature, self.n_classes)
                hits[row] += [strict_top_k(scores, true, guesses).sum() for guesses in top_k]
        names = [f"top{guesses}" for guesses in top_k]
        return [
            {"k": k, **dict(zip(names, (found / len(queries)).tolist(), strict=True))}
            for k, found in zip(ks, hits, strict=True)
        ]

    def _require(self, queries: Rows, k: int) -> None:
        require_integer("k", k, 1)
        if k > len(self):
            raise InputError(f"but the gallery has only {len(self)} rows", parameter="k", found=k)
        _require_matrix("queries", queries)
        if queries.shape[1] != self._index.d:
            raise InputError(
                f"queries: {queries.shape[1]} columns, but the gallery has {self._index.d}"
            )

    def _neighbors(self, queries: Rows, k: int, temperature: float) -> Iterator[_Neighbors]:
        self._require(queries, k)
        require_number("temperature", temperature, 0)
        if temperature == 0:
            raise refuse("temperature", temperature, "a number above 0")
        takes_long = len(queries) * len(self) > _MANY_SIMILARITIES
        progress = Progress(len(queries), "k-NN", unit="image") if takes_long else nullcontext()
        with progress as bar:
            for first, last in row_ranges(len(queries), _BLOCK_ROWS):
                block = _checked_block(queries, first, last, "queries")
                indices = nearest_vectors(self._index, block, k).indices
                similarities = self._similarities(queries, first, indices)
                _require_no_overflow(similarities, temperature)
                yield _Neighbors(first, last, self._classes[indices], similarities)
                if bar is not None:
                    bar.update(last - first)

    def _similarities(
        self, queries: Rows, first: int, indices: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """Those of neighbours, anew: a small temperature enlarges what single precision loses."""
        result = np.empty(indices.shape)
        block_rows = max(1, _GATHERED_ENTRIES // (indices.shape[1] * self._index.d))
        for begin, end in row_ranges(len(indices), block_rows):
            neighbors = _in_double_precision(self._embeddings, indices[begin:end].ravel())
            neighbors = neighbors.reshape(end - begin, indices.shape[1], -1)
            block = _in_double_precision(queries, slice(first + begin, first + end))
            result[begin:end] = (neighbors @ block[:, :, None])[:, :, 0]
        return result


def class_scores(
    classes: NDArray[np.int32],
    similarities: NDArray[np.floating[Any]],
    temperature: float,
    n_classes: int,
) -> NDArray[np.float64]:
    """The sums of exp(similarity / temperature) over the neighbours of each class.

    Args:
        classes: Integers (Q, k), those of the neighbours, 0..C-1.
        similarities: Floating (Q, k).
        temperature: Above 0.
        n_classes: Number of classes C.

    Returns:
        float64 (Q, C).
    """
    n_rows = len(classes)
    rows = np.arange(n_rows)[:, None]
    # What points away from a query has no weight if the temperature is small.
    with np.errstate(over="ignore"):
        weights = np.exp(similarities / temperature)
    sums: NDArray[Any] = np.bincount(
        (rows * n_classes + classes).ravel(), weights.ravel(), minlength=n_rows * n_classes
    )
    return sums.reshape(n_rows, n_classes)


def knn_scores(
    gallery: RowsT,
    gallery_labels: Rows,
    queries: RowsT,
    k: int,
    temperature: float,
    n_classes: int,
) -> RowsT:
    """Scores of classes by the k most similar rows of a gallery, each as heavy as it is similar.

    The score of a class is the sum of exp(similarity / temperature) over those of the k rows with
    the largest inner products that belong to it. Embeddings are compared as they are; of equally
    similar rows the lower one is the neighbour. Neighbours are found in single precision, and
    their similarities computed in double precision. Tensors are searched on the CPU.

    Args:
        gallery: Floating (N, d), an array, a memmap or a tensor.
        gallery_labels: Integers (N,), 0..C-1.
        queries: Floating (Q, d).
        k: Neighbours that count, at most N.
        temperature: Above 0. Scores are sums of exp(similarity / temperature) as they are, so that
            a temperature below 1/700 of the largest similarity is refused.
        n_classes: Number of classes C.

    Returns:
        float64 (Q, C), an array, or if the queries are a tensor one on their device. In memory
        besides: 4·N·d bytes, and blocks of queries.

    Raises:
        InputError: For shapes that do not go together, a label out of range, NaN or infinity, k
            larger than N, or a temperature that is too small.
    """
    return Gallery(gallery, gallery_labels, n_classes).scores(queries, k, temperature)


def strict_top_k(
    scores: NDArray[np.floating[Any]], true_classes: NDArray[np.int32], k: int
) -> NDArray[np.bool_]:
    """Whether the true class is among the k best, and has a positive score at all.

    Of classes with equal scores the lower one comes first. With fewer than k classes all that have
    a neighbour are guessed.

    Args:
        scores: Floating (Q, C), at least 0, as :func:`knn_scores` returns them.
        true_classes: Integers (Q,), 0..C-1.
        k: How many classes may be guessed.

    Returns:
        bool (Q,).

    Raises:
        InputError: For NaN scores, or a class out of range.
    """
    hits = top_k_hits(scores, true_classes, k)
    return hits & (scores[np.arange(len(scores)), true_classes] > 0)


def _is_tensor(rows: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(rows, torch.Tensor)


def _require_matrix(name: str, rows: Rows) -> None:
    found: Any = rows
    is_array = isinstance(rows, np.ndarray) and rows.dtype.kind == "f"
    if not is_array and not (_is_tensor(found) and found.is_floating_point()):
        kind = getattr(rows, "dtype", type(rows).__name__)
        raise InputError(f"{name}: found {kind}, expected a floating-point array or tensor")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InputError(f"{name}: found shape {tuple(rows.shape)}, expected (rows, columns)")


def _classes_of(name: str, labels: Any, n_rows: int, n_classes: int) -> NDArray[np.int32]:
    """Labels as an array of their own, if there is one in range for each row."""
    array = np.asarray(labels.cpu() if _is_tensor(labels) else labels)
    if array.shape != (n_rows,) or (n_rows and array.dtype.kind not in "iu"):
        raise InputError(
            f"{name}: found {array.dtype} of shape {array.shape}, expected an integer for each of "
            f"{n_rows} rows"
        )
    bad = np.flatnonzero((array < 0) | (array >= n_classes))
    if len(bad):
        raise InputError(
            f"{name}: found {array[bad[0]]} in row {bad[0]}, expected 0..{n_classes - 1}"
        )
    return array.astype(np.int32)


def _checked_block(rows: Rows, first: int, last: int, name: str) -> NDArray[np.float32]:
    """Some rows in single precision, C-contiguous."""
    block: Any = rows[first:last]
    if _is_tensor(block):
        block = block.detach().cpu().double().numpy()
    # What single precision cannot hold becomes infinite, and is refused as such.
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(block, dtype=np.float32)
    require_finite(single, np.arange(first, last), name)
    return single


def _in_double_precision(rows: Any, chosen: Any) -> NDArray[np.float64]:
    """Rows by a slice, or by numbers, int32 (m,)."""
    if not _is_tensor(rows):
        return np.asarray(rows[chosen], dtype=np.float64)
    import torch

    if not isinstance(chosen, slice):
        chosen = torch.from_numpy(chosen).to(rows.device, torch.int64)
    found: NDArray[np.float64] = rows[chosen].detach().cpu().double().numpy()
    return found


def _require_no_overflow(similarities: NDArray[np.float64], temperature: float) -> None:
    # A sum of as many equal terms as there are neighbours is a number as well.
    limit = _MAX_EXPONENT - np.log(max(1, similarities.shape[1]))
    largest = float(similarities.max(initial=-np.inf))
    if largest > limit * temperature:
        raise refuse(
            "temperature",
            temperature,
            f"at least {largest / limit:.2g}, as exp(similarity / temperature) is no number for "
            f"the similarity {largest:.4g}",
        )
