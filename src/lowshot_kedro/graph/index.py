"""Search structures over vectors that may lie on disk."""

from __future__ import annotations

import logging
import math

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lowshot_kedro.errors import InputError
from lowshot_kedro.matrices import KnnGraph, require_finite, row_ranges
from lowshot_kedro.parallel import map_rows, run_in_one_thread
from lowshot_kedro.resources import format_bytes

logger = logging.getLogger(__name__)

METHODS = ("auto", "exact", "ivf")

BLOCK_ROWS = 16384
# Builds of faiss without GPU support lack the first name.
_GPU_INDEXES = tuple(
    getattr(faiss, name) for name in ("GpuIndex", "IndexReplicas") if hasattr(faiss, name)
)
_EXACT_BELOW = 1_000_000
_TRAINING_VECTORS_PER_LIST = 100
_N_PROBE = 256


def normalize(vectors: NDArray[np.float32], first_row: int, name: str) -> NDArray[np.float32]:
    """A copy with rows of length 1; a zero row stays zero.

    Args:
        vectors: float32 (m, d).
        first_row: Number of the first of these rows in the whole matrix.
        name: What an error message calls the matrix.

    Raises:
        ValueError: For NaN or infinity.
    """
    copy = np.array(vectors, dtype=np.float32, order="C")
    require_finite(copy, np.arange(first_row, first_row + len(copy)), name)
    # In float32 the squares of large finite numbers overflow, and those of small ones vanish.
    lengths = np.sqrt(np.einsum("ij,ij->i", copy, copy, dtype=np.float64))
    copy /= np.where(lengths == 0, 1, lengths)[:, None]
    return copy


def build_index(
    vectors: NDArray[np.float32], method: str = "auto", name: str = "background_vectors"
) -> faiss.Index:
    """Index the normalised vectors for inner product search.

    Args:
        vectors: float32 (n, d), a memmap or array, not normalised; read block by block.
        method: `exact` (compares with every vector), `ivf` (inverted file of 4·√n lists, of which
            256 are searched, as in the published experiment), or `auto`: exact below a million.
        name: What messages call the vectors.

    Returns:
        A faiss index that holds all n vectors (4·n·d bytes).

    Raises:
        ValueError: For NaN, more vectors than fit int32 numbers, or too few for ivf.
    """
    n_vectors, dimension = vectors.shape
    if n_vectors > np.iinfo(np.int32).max:
        raise InputError(f"{name}: {n_vectors} rows, expected at most {np.iinfo(np.int32).max}")
    if method == "auto":
        method = "exact" if n_vectors < _EXACT_BELOW else "ivf"
    if method == "exact":
        index: faiss.Index = faiss.IndexFlatIP(dimension)
    else:
        index = _train_inverted_file(vectors, name)
    with tqdm(total=n_vectors, unit="vector", desc=f"index ({method})", disable=None) as bar:
        for first, last in row_ranges(n_vectors, BLOCK_ROWS):
            run_in_one_thread(index.add, normalize(vectors[first:last], first, name))
            bar.update(last - first)
    return index


def _train_inverted_file(vectors: NDArray[np.float32], name: str) -> faiss.Index:
    n_vectors, dimension = vectors.shape
    n_lists = 4 * math.isqrt(n_vectors)
    if n_lists > n_vectors:
        raise InputError(
            f"graph.method: got 'ivf', but {name} has only {n_vectors} rows for {n_lists} lists; "
            "use exact"
        )
    n_training = min(n_vectors, n_lists * _TRAINING_VECTORS_PER_LIST)
    training = np.empty((n_training, dimension), dtype=np.float32)
    for first, last in row_ranges(n_training, BLOCK_ROWS):
        training[first:last] = normalize(vectors[first:last], first, name)
    logger.info("training %d inverted lists on %d vectors", n_lists, n_training)
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatL2(dimension), dimension, n_lists, faiss.METRIC_INNER_PRODUCT
    )
    index.nprobe = min(_N_PROBE, max(1, 3 * n_lists // 4))
    run_in_one_thread(index.train, training)
    return index


def on_gpus(index: faiss.Index) -> faiss.Index:
    """The index itself, or its copy on all GPUs where there are GPUs that it fits on."""
    n_gpus = faiss.get_num_gpus()
    if n_gpus == 0 or not torch.cuda.is_available() or index.ntotal == 0:
        return index
    needed = 4 * index.ntotal * index.d
    free = min(torch.cuda.mem_get_info(gpu)[0] for gpu in range(n_gpus))
    if needed > 0.6 * free:
        logger.info(
            "index of %s stays on the CPU: the GPU has %s free",
            format_bytes(needed),
            format_bytes(free),
        )
        return index
    return faiss.index_cpu_to_all_gpus(index)


def search(index: faiss.Index, queries: NDArray[np.float32], k: int) -> KnnGraph:
    """The k most similar vectors of each query.

    Args:
        index: Inner product index.
        queries: float32 (m, d), normalised.
        k: How many.

    Returns:
        indices (m, k) and similarities (m, k); -1 and -inf where the index holds fewer than k.
    """
    if index.ntotal == 0 or len(queries) == 0:
        return KnnGraph(
            np.full((len(queries), k), -1, dtype=np.int32),
            np.full((len(queries), k), -np.inf, dtype=np.float32),
        )
    # A GPU takes all queries at once, and one caller at a time.
    if isinstance(index, _GPU_INDEXES):
        blocks = [index.search(queries, k)]
    else:
        blocks = map_rows(lambda chunk: index.search(chunk, k), queries)
    similarities, indices = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    similarities[indices < 0] = -np.inf
    return KnnGraph(indices.astype(np.int32), similarities)
