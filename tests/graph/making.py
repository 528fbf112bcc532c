"""Graphs and indexes without files."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import faiss

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.graph import background_graph, index_in_memory


def joined(resumable, k, folder=None):
    """The graph that a Resumable comes to."""
    with tempfile.TemporaryDirectory() as temporary:
        blocks = resumable.begin(Path(folder or temporary)).starting_at(0)
        return KnnGraph.joined(blocks, k)


def graph_of(vectors, k, method="exact", target_recall=0.99, folder=None):
    index = index_in_memory(vectors, method, target_recall)
    return joined(background_graph(index, vectors, k, method, target_recall), k, folder)


def same_bits(one, other):
    return all(
        (first.dtype, first.shape, first.tobytes())
        == (second.dtype, second.shape, second.tobytes())
        for first, second in zip(one, other, strict=True)
    )


@contextmanager
def threads(count):
    """So many threads of faiss and of the compiled functions."""
    before = faiss.omp_get_max_threads(), native.get_num_threads()
    faiss.omp_set_num_threads(count)
    native.set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before[0])
        native.set_num_threads(before[1])
