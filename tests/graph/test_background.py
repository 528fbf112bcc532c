import numpy as np
import pytest

from lowshot_kedro.graph import background, background_graph, build_index
from lowshot_kedro.matrices import KnnGraph

from .truth import assert_nearest, random_vectors, similarities_of


def graph_of(vectors, k, method="exact"):
    return KnnGraph.joined(background_graph(build_index(vectors, method), vectors, k), k)


@pytest.mark.parametrize("block_rows", [1, 7, 50, 16384])
def test_every_vector_gets_its_most_similar(monkeypatch, block_rows):
    monkeypatch.setattr("lowshot_kedro.graph.background.BLOCK_ROWS", block_rows)
    vectors = random_vectors(50)
    graph = graph_of(vectors, 8)
    similarities = similarities_of(vectors, vectors)
    assert_nearest(graph.indices, similarities, 8)
    np.testing.assert_array_equal(graph.indices[:, 0], np.arange(50))
    expected = np.take_along_axis(similarities, graph.indices.astype(np.int64), axis=1)
    np.testing.assert_allclose(graph.similarities, expected, atol=1e-6)


def test_blocks_say_how_large_the_graph_is():
    vectors = random_vectors(20)
    blocks = background_graph(build_index(vectors), vectors, 4)
    assert (blocks.n_rows, blocks.n_columns) == (20, 4)
    assert sum(len(block.indices) for block in blocks) == 20


def test_duplicates_are_each_others_neighbors():
    vectors = random_vectors(10)
    vectors[[3, 5, 7]] = 2 * vectors[1]
    graph = graph_of(vectors, 4)
    for row in (1, 3, 5, 7):
        assert set(graph.indices[row].tolist()) == {1, 3, 5, 7}
        np.testing.assert_allclose(graph.similarities[row], 1, atol=1e-6)


def test_missing_neighbors_are_marked():
    graph = graph_of(random_vectors(3), 8)
    assert (graph.indices[:, 3:] == -1).all()
    assert (graph.similarities[:, 3:] == -np.inf).all()
    assert (graph.indices[:, :3] >= 0).all()


def test_no_vectors_make_an_empty_graph():
    graph = graph_of(np.empty((0, 16), dtype=np.float32), 8)
    assert graph.indices.shape == graph.similarities.shape == (0, 8)


def test_vectors_may_lie_on_disk(tmp_path):
    vectors = random_vectors(40)
    vectors.tofile(tmp_path / "vectors.raw")
    mapped = np.memmap(tmp_path / "vectors.raw", np.float32, "r", shape=vectors.shape)
    graph = graph_of(mapped, 5)
    np.testing.assert_array_equal(graph.indices, graph_of(vectors, 5).indices)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((19, 16), "holds 20 vectors of dimension 16, but background_vectors has 19 of dimension"),
        ((20, 15), "holds 20 .* of dimension 16, but background_vectors has 20 of dimension 15"),
    ],
)
def test_an_index_of_other_vectors_is_refused(shape, message):
    with pytest.raises(ValueError, match=f"background_index: {message}"):
        background_graph(build_index(random_vectors(20)), random_vectors(*shape), 4)


def test_nan_is_refused_with_its_row(monkeypatch):
    monkeypatch.setattr(background, "BLOCK_ROWS", 10)
    vectors = random_vectors(30)
    blocks = background_graph(build_index(vectors), vectors, 4)
    vectors[21] = np.nan
    with pytest.raises(ValueError, match=r"background_vectors: found NaN .* numbers 21;"):
        list(blocks)
