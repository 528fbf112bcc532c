"""Search structures over vectors that may lie on disk."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import (
    Blocks,
    InvertedFile,
    KnnGraph,
    ListBlock,
    Resumable,
    row_ranges,
    spread_rows,
)
from lowshot_kedro.deprecated import takes_old_keywords
from lowshot_kedro.devices import free_gpu_bytes
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.centroids import (
    CentroidSearch,
    lists_of,
    probes_needed,
    train_centroids,
)
from lowshot_kedro.graph.list_search import QUERY_ROWS, Division, encode_rows, fit_encoder
from lowshot_kedro.graph.methods import choose_method, is_factory_string, n_gpus
from lowshot_kedro.graph.quality import ExactSearch, sample_rows
from lowshot_kedro.graph.sampled_neighbors import Ranking, SampledNeighbors
from lowshot_kedro.graph.spaces import COSINE, Space
from lowshot_kedro.graph.vectors import (
    BLOCK_ROWS,
    describe_vectors,
    normalized_blocks,
    release,
)
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace
from lowshot_kedro.interruption import require_no_stop
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.progress import Progress, logged_step
from lowshot_kedro.threads import map_in_threads, map_rows, rows_at_once, run_in_one_thread

logger = logging.getLogger(__name__)

# Builds of faiss without GPU support lack the first name.
_GPU_INDEXES = tuple(
    getattr(faiss, name)
    for name in ("GpuIndex", "IndexReplicas", "IndexShards")
    if hasattr(faiss, name)
)
_TRAINING_VECTORS_PER_LIST = 24
_FACTORY_TRAINING_VECTORS = 1_000_000
# An inverted file takes less time for each query if there are at least so many.
_MIN_QUERIES = 32
# Lists of an inverted file: as many as in the published experiment, or more where these would hold
# more vectors than this.
_MAX_VECTORS_PER_LIST = 320
_TUNING_ROWS = 256
_TUNING_NEIGHBORS = 32
# Lists that are put together while the ones before them are written: few, so that the processor's
# cache still has them when they are. Where memory is short blocks have a part of every list: as
# large ones as there is memory for, up to a limit, since many small parts take long to write.
_BLOCK_BYTES = 16 * 2**20
_MAX_BLOCK_BYTES = 2**30
# Part of the free memory of a GPU that an index may take.
_GPU_PART = 0.6

IndexContent = Blocks[NDArray[np.float32]] | InvertedFile | faiss.Index


def n_lists_for(n_vectors: int) -> int:
    """Lists of an inverted file: 4·√n, or one for every 320 vectors if that is more."""
    lists = max(4 * math.isqrt(n_vectors), n_vectors // _MAX_VECTORS_PER_LIST)
    # Every list should have something to be trained on.
    return max(1, min(lists, n_vectors // 4))


@takes_old_keywords
def build_index(
    vectors: NDArray[np.float32],
    method: str = "auto",
    target_recall: float = 0.99,
    memory_budget_bytes: int | None = None,
    name: str = "background_vectors",
) -> Resumable[IndexContent]:
    """A search index over the normalised vectors, for inner products, built while it is saved.

    Args:
        vectors: float32 (n, d), a memmap or array, not normalised; read block by block.
        method: As for :func:`~lowshot_kedro.graph.background.background_graph`. `exact` makes a
            flat index, a factory string what it says, and the others an inverted file.
        target_recall: An inverted file is told to look through as many lists as find this part of
            the 32 nearest neighbours, estimated on 256 rows.
        memory_budget_bytes: Bytes that the process may take; None: four fifths of what is free.
        name: What messages call the vectors.

    Returns:
        What the dataset writes block by block. In memory: a sample for training, and blocks; the
        whole index only for a factory string.

    Raises:
        ValueError: For more vectors than fit int32 numbers; when the work begins, for NaN.
    """
    n_vectors = len(vectors)
    if n_vectors > np.iinfo(np.int32).max:
        raise InputError(f"{name}: {n_vectors} rows, expected at most {np.iinfo(np.int32).max}")
    method = choose_method(method, n_vectors)

    def begin(folder: Path) -> IndexContent:
        budget = MemoryBudget(memory_budget_bytes)
        if method == "exact":
            return _flat_blocks(vectors, name)
        if is_factory_string(method):
            return factory_index(vectors, method, budget, name)
        return _inverted_file(vectors, target_recall, budget, folder, name)

    provenance: dict[str, Any] = {
        "kind": "index",
        "method": "inverted file" if method in ("ivf", "descent", "pynndescent") else method,
        "vectors": describe_vectors(vectors),
    }
    if provenance["method"] == "inverted file":
        provenance |= {"n_lists": n_lists_for(n_vectors), "target_recall": target_recall}
    return Resumable(provenance, begin)


def require_inner_products(index: faiss.Index) -> None:
    """Refuse an index that ranks vectors by anything but their inner products, or cannot yet.

    Raises:
        ValueError: Naming what it does.
    """
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise InputError(
            f"background_index: a {type(index).__name__} that compares by the metric "
            f"{index.metric_type} of faiss, expected METRIC_INNER_PRODUCT over normalised vectors"
        )
    if not index.is_trained:
        raise InputError(
            f"background_index: a {type(index).__name__} that is not trained, expected one that "
            "holds the vectors"
        )


def _flat_blocks(vectors: NDArray[np.float32], name: str) -> Blocks[NDArray[np.float32]]:
    def blocks() -> Iterator[NDArray[np.float32]]:
        with Progress(len(vectors), "index") as bar:
            for _, block in normalized_blocks(vectors, name):
                yield block
                bar.update(len(block))

    return Blocks(len(vectors), vectors.shape[1], blocks)


def factory_index(
    vectors: NDArray[np.float32],
    description: str,
    budget: MemoryBudget,
    name: str,
    space: Space = COSINE,
) -> faiss.Index:
    """An index of faiss over points, which holds what its description says.

    Args:
        vectors: float32 (n, d), a memmap or array.
        description: For faiss.index_factory.
        budget: For the sample that it is trained on.
        name: What messages call the vectors.
        space: Space in which they are compared.

    Raises:
        ValueError: If faiss cannot train it on these vectors, or for NaN.
    """
    n_vectors, dimension = vectors.shape
    index = faiss.index_factory(dimension, description, space.faiss_metric)
    if not index.is_trained:
        most = min(_FACTORY_TRAINING_VECTORS, budget.left // (8 * dimension))
        sample = space.point_rows(vectors, spread_rows(n_vectors, most), name)
        with logged_step(f"index: training {description} on {len(sample)} vectors"):
            try:
                run_in_one_thread(index.train, sample)
            except RuntimeError as error:
                raise InputError(
                    f"faiss cannot train {description!r} on {len(sample)} vectors of {name} "
                    f"({_reason(error)}); use a smaller one, or exact",
                    parameter="method",
                ) from error
    with Progress(n_vectors, f"index {description}") as bar:
        for _, block in space.point_blocks(vectors, name):
            require_no_stop()
            try:
                run_in_one_thread(index.add, block)
            except RuntimeError as error:
                raise InputError(
                    f"faiss cannot add vectors to {description!r} ({_reason(error)}); use another "
                    "description",
                    parameter="method",
                ) from error
            bar.update(len(block))
    return index


def _reason(error: RuntimeError) -> str:
    """What an error of faiss says, without the place in its sources."""
    last = str(error).strip().splitlines()[-1].split("' failed: ")[-1]
    return re.sub(r"^Error.* at \S+:\d+: ", "", last).removeprefix("Error: ")


class Assignment(NamedTuple):
    """Vectors assigned to lists.

    Attributes:
        centroids: float32 (L, d), points.
        lists: int32 (n,), the list of each vector.
        n_probe: How many lists a search looks through.
        inverse_lengths: float32 (n,), 1 / length of each vector; None if distances count.
    """

    centroids: NDArray[np.float32]
    lists: NDArray[np.int32]
    n_probe: int
    inverse_lengths: NDArray[np.float32] | None


def assign_to_lists(
    vectors: NDArray[np.float32],
    target_recall: float | None,
    workspace: Workspace,
    name: str,
    space: Space = COSINE,
) -> Assignment:
    """Train lists and put every vector into the one nearest to it.

    Args:
        vectors: float32 (n, d), a memmap or array.
        target_recall: Part of the 32 nearest neighbours that is in the lists to be looked through,
            estimated on 256 rows; None: whoever searches says how many lists that takes.
        workspace: Folder for the training vectors if memory is short.
        name: What messages call the vectors.
        space: Space in which they are compared.

    Returns:
        The centroids, and the list of each vector. In memory: these, and 8 bytes for each vector.

    Raises:
        ValueError: For NaN.
    """
    n_vectors, dimension = vectors.shape
    n_lists = n_lists_for(n_vectors)
    with logged_step(f"index: training {n_lists} lists"):
        rows = spread_rows(n_vectors, n_lists * _TRAINING_VECTORS_PER_LIST)
        # On disk where memory is short: the lists do not depend on how much of it there is.
        sample = workspace.allocate("training", (len(rows), dimension), np.float32)
        for first, last in row_ranges(len(rows), BLOCK_ROWS):
            sample[first:last] = space.point_rows(vectors, rows[first:last], name)
            workspace.relieve(sample)
        centroids = train_centroids(sample, n_lists, space)
        del sample
    encoder = fit_encoder(vectors, name, space)
    search = CentroidSearch(centroids, encoder)
    n_sampled = 0 if target_recall is None else _TUNING_ROWS
    queries = space.query_rows(vectors, sample_rows(n_vectors, n_sampled), name)
    sampled = SampledNeighbors(queries, _TUNING_NEIGHBORS, 2 * _TUNING_NEIGHBORS, encoder)
    assigned = np.empty(n_vectors, np.int32)
    inverse_lengths = None if space.is_euclidean else np.empty(n_vectors, np.float32)
    with (
        logged_step("index: assigning vectors to lists"),
        Progress(n_vectors, "index") as bar,
    ):
        for first, last in row_ranges(n_vectors, QUERY_ROWS):
            codes, of_block = encode_rows(encoder, vectors, first, last, name)
            if inverse_lengths is not None:
                inverse_lengths[first:last] = of_block
            assigned[first:last] = search.assign(codes)
            if target_recall is not None:
                sampled.add(codes, _ranking(vectors[first:last], of_block), first)
            release(vectors)
            bar.update(last - first)
    if target_recall is None:
        return Assignment(centroids, assigned, n_lists, inverse_lengths)
    neighbors = sampled.neighbors.indices
    lists = np.where(neighbors < 0, np.int32(-1), assigned[neighbors])
    # Their neighbours are as good in one list as in another.
    lists[space.without_direction(queries)] = -1
    n_probe = probes_needed(search, sampled.codes.values, lists, n_lists, target_recall)
    logger.info("index: searches look through %d of %d lists", n_probe, n_lists)
    return Assignment(centroids, assigned, n_probe, inverse_lengths)


def _ranking(vectors: NDArray[np.float32], inverse_lengths: NDArray[np.float32] | None) -> Ranking:
    """Ranks candidates by their similarity to these vectors."""
    return lambda queries, found: KnnGraph(
        *native.rank_candidates(vectors, inverse_lengths, queries, found, _TUNING_NEIGHBORS)
    )


def divide(
    vectors: NDArray[np.float32],
    target_recall: float | None,
    workspace: Workspace,
    name: str,
    space: Space = COSINE,
) -> Division:
    """Divide vectors into lists; arguments and errors are those of :func:`assign_to_lists`.

    Returns:
        The division. In memory: 4 bytes for each vector, and the centroids; meanwhile 12 bytes for
        each vector.
    """
    assigned = assign_to_lists(vectors, target_recall, workspace, name, space)
    lists = lists_of(assigned.lists, len(assigned.centroids))
    assert lists.members is not None
    return Division(assigned.centroids, lists.offsets, lists.members, assigned.n_probe)


def _inverted_file(
    vectors: NDArray[np.float32],
    target_recall: float,
    budget: MemoryBudget,
    folder: Path,
    name: str,
) -> InvertedFile:
    workspace = Workspace(folder, budget)
    assigned = assign_to_lists(vectors, target_recall, workspace, name)
    sizes = np.bincount(assigned.lists, minlength=len(assigned.centroids))
    return InvertedFile(
        assigned.centroids,
        sizes,
        assigned.n_probe,
        lambda: _list_blocks(vectors, assigned, workspace),
    )


def _list_blocks(
    vectors: NDArray[np.float32],
    assigned: Assignment,
    workspace: Workspace,
    block_bytes: int = _BLOCK_BYTES,
) -> Iterator[ListBlock]:
    """The vectors list after list; the next block is put together while one is written.

    Args:
        vectors: float32 (n, d), a memmap or array.
        assigned: The list of each vector, and its length.
        workspace: Its budget says whether all vectors can be held. If not, they are read once from
            first to last, and every block has a part of every list.
        block_bytes: Size of a block of whole lists, and the least of one of rows.

    Yields:
        Blocks, of which two are in memory.
    """
    n_vectors, dimension = vectors.shape
    n_lists, row_bytes = len(assigned.centroids), 4 * dimension + 8
    left = workspace.budget.left
    sparing = vectors.nbytes > left // 2
    if sparing:
        most_bytes = max(block_bytes, min(left // 3, _MAX_BLOCK_BYTES))
        parts = _parts_of_rows(assigned.lists, n_lists, most_bytes // row_bytes)
    else:
        parts = _whole_lists(lists_of(assigned.lists, n_lists), block_bytes // row_bytes)

    def make(part: tuple[NDArray[np.int32], NDArray[np.int64]]) -> ListBlock:
        # Another thread is writing meanwhile.
        native.set_num_threads(1)
        assert assigned.inverse_lengths is not None
        numbers, counts = part
        block = np.empty((len(numbers), dimension), np.float32)
        places = np.argsort(numbers)
        rows = numbers[places]
        for first, last in row_ranges(len(rows), BLOCK_ROWS):
            native.copy_rows(
                vectors, assigned.inverse_lengths, rows[first:last], places[first:last], block
            )
            if sparing:
                release(vectors)
        workspace.relieve(vectors)
        return ListBlock(numbers.astype(np.int64), block, counts)

    with (
        Progress(n_vectors, "index: lists") as bar,
        closing(map_in_threads(make, parts, n_waiting=0, n_threads=1)) as blocks,
    ):
        for block in blocks:
            n_rows = len(block.numbers)
            yield block
            # Or it would stay in memory while another one is made.
            del block
            bar.update(n_rows)
    release(vectors)


def _whole_lists(
    lists: native.Lists, most: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Members of as many lists as have up to so many, at least one; and how many of each list."""
    assert lists.members is not None
    offsets = lists.offsets
    begin = 0
    while offsets[begin] < offsets[-1]:
        end = int(np.searchsorted(offsets, offsets[begin] + most, side="right")) - 1
        # Past lists without members, one that has some.
        end = max(end, int(np.searchsorted(offsets, offsets[begin], side="right")))
        counts = np.zeros(len(offsets) - 1, np.int64)
        counts[begin:end] = np.diff(offsets[begin : end + 1])
        yield lists.members[offsets[begin] : offsets[end]], counts
        begin = end


def _parts_of_rows(
    assigned: NDArray[np.int32], n_lists: int, most: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Up to so many rows, at least one, in the order of their lists; and how many of each list."""
    for first, last in row_ranges(len(assigned), max(most, 1)):
        lists = lists_of(assigned[first:last], n_lists)
        assert lists.members is not None
        yield first + lists.members, np.diff(lists.offsets)


def on_gpus(index: faiss.Index) -> faiss.Index:
    """The index itself, or its copy on all GPUs where there are GPUs that it fits on.

    Each GPU gets the whole index if that fits, else a part of it.
    """
    if n_gpus() == 0 or index.ntotal == 0:
        return index
    needed = 4 * index.ntotal * index.d
    free = min(free_gpu_bytes(gpu) for gpu in range(n_gpus()))
    options = faiss.GpuMultipleClonerOptions()
    options.shard = needed > _GPU_PART * free
    if options.shard and needed > _GPU_PART * free * n_gpus():
        logger.info(
            "index of %s stays on the CPU: the GPUs have %s free",
            format_bytes(needed),
            format_bytes(free * n_gpus()),
        )
        return index
    try:
        return faiss.index_cpu_to_all_gpus(index, options)
    except RuntimeError as error:
        logger.info("index stays on the CPU: faiss has no GPU version (%s)", _reason(error))
        return index


def search(index: faiss.Index, queries: NDArray[np.float32], k: int) -> KnnGraph:
    """The k most similar vectors of each query.

    Args:
        index: For inner products, or for distances.
        queries: float32 (m, d), points.
        k: How many.

    Returns:
        indices (m, k) and similarities (m, k); -1 and -inf where the index holds fewer than k.
    """
    if index.ntotal == 0 or len(queries) == 0:
        return KnnGraph(
            np.full((len(queries), k), -1, dtype=np.int32),
            np.full((len(queries), k), -np.inf, dtype=np.float32),
        )
    if isinstance(index, faiss.IndexFlat):
        return _search_flat(index, queries, k)
    # A GPU takes all queries at once, and one caller at a time.
    if isinstance(index, _GPU_INDEXES):
        blocks = [index.search(queries, k)]
    else:
        n_rows = rows_at_once(index.ntotal * index.d, min_rows=_MIN_QUERIES)
        blocks = map_rows(lambda chunk: index.search(chunk, k), queries, n_rows)
    similarities, indices = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    if index.metric_type == faiss.METRIC_L2:
        np.negative(similarities, out=similarities)
    similarities[indices < 0] = -np.inf
    return KnnGraph(indices.astype(np.int32), similarities)


def _search_flat(index: faiss.IndexFlat, queries: NDArray[np.float32], k: int) -> KnnGraph:
    n_vectors, dimension = index.ntotal, index.d
    vectors = faiss.rev_swig_ptr(index.get_xb(), n_vectors * dimension)
    vectors = vectors.reshape(n_vectors, dimension)
    is_euclidean = index.metric_type == faiss.METRIC_L2
    space = Space(np.zeros(dimension, np.float32)) if is_euclidean else COSINE
    exact = ExactSearch(queries, k, space)
    for first, last in row_ranges(n_vectors, BLOCK_ROWS):
        exact.add(vectors[first:last], first)
    return KnnGraph(exact.indices, exact.similarities)


def compare_with_all(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> KnnGraph:
    """The k most similar vectors of each query, by comparing all, on GPUs where there are any.

    Args:
        vectors: float32 (n, d), normalised, in memory.
        queries: float32 (m, d), normalised.
        k: How many.

    Returns:
        As :func:`search`. In memory besides: a copy of the vectors.
    """
    return search_in_blocks(on_gpus(flat_index(vectors)), queries, k)


def flat_index(vectors: NDArray[np.float32]) -> faiss.Index:
    """An index that holds a copy of normalised vectors, float32 (n, d), and compares all."""
    index: faiss.Index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def search_in_blocks(index: faiss.Index, queries: NDArray[np.float32], k: int) -> KnnGraph:
    """What :func:`search` returns, with the queries searched for block by block."""
    blocks = (
        search(index, queries[first:last], k)
        for first, last in row_ranges(len(queries), BLOCK_ROWS)
    )
    return KnnGraph.joined(blocks, k)
