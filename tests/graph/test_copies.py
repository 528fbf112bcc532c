"""Rows that occur very often."""

import numpy as np
import pytest

from lowshot_kedro import LabelDiffusion
from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.graph import build_knn_graph
from lowshot_kedro.graph import copies as copies_module
from lowshot_kedro.graph.copies import find_copies
from lowshot_kedro.graph.spaces import space_of
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace

from .making import graph_of, same_bits, threads
from .truth import assert_well_formed, recall_of


def found_copies(vectors, max_copies, n_kept, folder, metric="cosine", **options):
    workspace = Workspace(folder, MemoryBudget())
    space = space_of(metric, vectors, "v")
    return find_copies(vectors, max_copies, n_kept, workspace, "v", space, **options)


def by_hand(vectors, max_copies, n_kept):
    """Rows left out, and the first row like each, by looking at all."""
    seen = {}
    for row, vector in enumerate(vectors):
        seen.setdefault(tuple((vector + 0).tolist()), []).append(row)
    left_out = {
        row: rows[0] for rows in seen.values() if len(rows) > max_copies for row in rows[n_kept:]
    }
    return sorted(left_out.items())


def repeated(n, n_different, dimension=7, seed=0, n_frequent=3):
    """Random rows of which a few occur very often, in random order."""
    rng = np.random.default_rng(seed)
    different = rng.normal(size=(n_different, dimension)).astype(np.float32)
    which = np.where(
        rng.random(n) < 0.5, rng.integers(0, n_frequent, n), rng.integers(0, n_different, n)
    )
    return different[which]


@pytest.mark.parametrize(("max_copies", "n_kept"), [(1, 1), (4, 1), (4, 4), (30, 7)])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_rows_that_occur_often_are_left_out(tmp_path, max_copies, n_kept, metric):
    vectors = repeated(900, 150)
    expected = by_hand(vectors, max_copies, n_kept)
    found = found_copies(vectors, max_copies, n_kept, tmp_path, metric)
    assert list(zip(found.rows.tolist(), found.first.tolist(), strict=True)) == expected
    left_out = {row for row, _ in expected}
    assert found.kept.tolist() == [row for row in range(900) if row not in left_out]


def test_the_block_size_does_not_matter(tmp_path):
    vectors = repeated(900, 150)
    expected = found_copies(vectors, 4, 2, tmp_path)
    found = found_copies(vectors, 4, 2, tmp_path, block_rows=7)
    assert same_bits((found.rows, found.first), (expected.rows, expected.first))


def test_without_frequent_rows_there_is_nothing_to_leave_out(tmp_path):
    vectors = np.repeat(np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32), 3, axis=0)
    assert found_copies(vectors, 3, 1, tmp_path) is None
    assert len(found_copies(vectors, 2, 1, tmp_path).rows) == 80
    assert found_copies(vectors[:2], 5, 1, tmp_path) is None


def test_only_the_cosine_ignores_lengths_and_both_the_sign_of_zero(tmp_path):
    vectors = np.zeros((60, 3), np.float32)
    vectors[:, 0] = np.arange(1, 61)
    vectors[::2, 1] = -0.0
    found = found_copies(vectors, 10, 1, tmp_path)
    assert found.rows.tolist() == list(range(1, 60)) and not found.first.any()
    assert found_copies(vectors, 10, 1, tmp_path, "euclidean") is None
    vectors[:, 0] = 5
    assert len(found_copies(vectors, 10, 1, tmp_path, "euclidean").rows) == 59


def test_rows_with_the_checksum_of_others_stay(tmp_path, monkeypatch):
    vectors = repeated(600, 100)
    expected = by_hand(vectors, 20, 2)
    real = copies_module._checksums

    def few(*arguments):
        return real(*arguments) % np.uint64(2)

    monkeypatch.setattr(copies_module, "_checksums", few)
    found = found_copies(vectors, 20, 2, tmp_path)
    # Those that are not like the first row of their checksum are not looked at any further.
    assert found is not None
    pairs = set(zip(found.rows.tolist(), found.first.tolist(), strict=True))
    assert pairs <= set(expected)
    assert all((vectors[row] == vectors[first]).all() for row, first in pairs)


# --- graphs ---


@pytest.mark.parametrize("method", ["exact", "descent"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_first_of_equal_rows_are_the_neighbors_of_all(method, metric):
    vectors = repeated(3000, 400, dimension=16)
    k = 6
    graph, search = build_knn_graph(vectors, k, metric=metric, method=method)
    for row in range(0, 3000, 97):
        same = np.flatnonzero((vectors == vectors[row]).all(axis=1))
        if len(same) >= k:
            assert graph.indices[row].tolist() == same[:k].tolist()
            assert search.search(vectors[[row]], k).indices[0].tolist() == same[:k].tolist()
        else:
            assert set(same.tolist()) <= set(graph.indices[row].tolist())


def test_one_of_equal_rows_links_them_to_others():
    rng = np.random.default_rng(0)
    different = rng.normal(size=(60, 8)).astype(np.float32)
    vectors = different[rng.integers(0, 60, 3000)]
    k = 9
    graph, _ = build_knn_graph(vectors, k, metric="euclidean", one_of_equal=True)
    groups = {}
    for row, vector in enumerate(vectors.tolist()):
        groups.setdefault(tuple(vector), []).append(row)
    firsts = np.array(sorted(group[0] for group in groups.values()))
    distances = ((vectors[:, None].astype(np.float64) - vectors[firsts]) ** 2).sum(axis=2)
    nearest = firsts[np.argsort(distances, axis=1)]
    # Of 60 different rows: log2 60 = 5.9.
    for row in range(3000):
        own = groups[tuple(vectors[row].tolist())][0]
        expected = nearest[row, :7] if row == own else np.array([own, row])
        assert graph.indices[row, : len(expected)].tolist() == expected.tolist()
        assert (graph.indices[row, len(expected) :] == -1).all()
        assert (graph.similarities[row, len(expected) :] == -np.inf).all()
    there = graph.indices >= 0
    expected = ((vectors[:, None] - vectors[graph.indices]) ** 2).sum(axis=2)
    np.testing.assert_allclose(graph.similarities[there], -expected[there], rtol=1e-4, atol=1e-6)


def test_new_rows_find_all_equal_rows():
    rng = np.random.default_rng(1)
    different = rng.normal(size=(50, 6)).astype(np.float32)
    vectors = different[np.concatenate([np.arange(50), rng.integers(0, 12, 60)])]
    new = rng.normal(size=(40, 6)).astype(np.float32)
    for k in (4, 9, 30):
        _, search = build_knn_graph(vectors, k, metric="euclidean", one_of_equal=True)
        found = search.search(new, k)
        distances = ((new[:, None].astype(np.float64) - vectors) ** 2).sum(axis=2)
        expected = np.argsort(distances, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(found.indices, expected)
        np.testing.assert_allclose(
            found.similarities, -np.take_along_axis(distances, expected, axis=1), rtol=1e-4
        )


@pytest.mark.parametrize("k", [1, 2, 9])
def test_all_rows_are_equal(k):
    vectors = np.ones((500, 4), np.float32)
    graph, search = build_knn_graph(vectors, k, metric="euclidean", one_of_equal=True)
    assert graph.indices[0].tolist() == [0] + [-1] * (k - 1)
    for row in (1, 499):
        linked = [row] if k == 1 else [0, row]
        assert graph.indices[row].tolist() == linked + [-1] * (k - len(linked))
    assert search.search(vectors[:1], k).indices[0].tolist() == list(range(k))
    exact, _ = build_knn_graph(vectors, k, metric="euclidean")
    assert (exact.indices == np.arange(k)).all()


def test_neither_threads_nor_memory_change_the_graph(monkeypatch):
    vectors = repeated(4000, 900, dimension=20)
    graphs = []
    for count in (1, 3):
        with threads(count):
            graphs.append(build_knn_graph(vectors, 7, method="descent", one_of_equal=True)[0])
    monkeypatch.setattr(MemoryBudget, "left", 0)
    graphs.append(build_knn_graph(vectors, 7, method="descent", one_of_equal=True)[0])
    assert same_bits(graphs[0], graphs[1]) and same_bits(graphs[0], graphs[2])


@pytest.mark.parametrize("method", ["ivf", "descent"])
def test_a_stored_graph_with_equal_rows_is_the_exact_one(method):
    vectors = repeated(3000, 500, dimension=24, n_frequent=2)
    k = 8
    found = graph_of(vectors, k, method, 1.0)
    for row in range(0, 3000, 53):
        same = np.flatnonzero((vectors == vectors[row]).all(axis=1))
        if len(same) >= k:
            assert found.indices[row].tolist() == same[:k].tolist()
    assert recall_of(found.indices, vectors, vectors, k) >= 0.999
    assert_well_formed(found, vectors, k)


def test_rows_left_out_are_linked_to_the_first_or_have_its_links(tmp_path):
    found = found_copies(np.ones((4, 2), np.float32), 1, 1, tmp_path)
    graph = KnnGraph(np.array([[0, -1]], np.int32), np.array([[1, -np.inf]], np.float32))
    complete = found.complete(graph, through_first=True)
    assert complete.indices.tolist() == [[0, -1], [0, 1], [0, 2], [0, 3]]
    assert complete.similarities[1:].tolist() == [[1, 1]] * 3
    assert found.complete(graph, through_first=False).indices.tolist() == [[0, -1]] * 4


# --- labels ---


def test_labels_go_from_one_group_of_equal_rows_to_others():
    """Two chains of groups, far apart: a label at the end of each reaches all of its chain."""
    values = np.concatenate([np.arange(8), 1000 + np.arange(8)]).astype(np.float32)
    rng = np.random.default_rng(0)
    which = rng.permutation(np.repeat(np.arange(16), 50))
    X = np.stack([values[which], np.zeros(800, np.float32)], axis=1)
    y = np.full(800, -1)
    y[np.flatnonzero(which == 0)[-1]] = 0
    y[np.flatnonzero(which == 15)[-1]] = 1
    model = LabelDiffusion(n_neighbors=4).fit(X, y)
    np.testing.assert_array_equal(model.transduction_, which >= 8)
    np.testing.assert_array_equal(model.predict(X), which >= 8)


@pytest.mark.parametrize("n_copies", [3, 5, 9, 10, 30])
def test_labels_are_as_good_whatever_the_number_of_copies(n_copies):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 6))
    classes = rng.integers(0, 4, 200)
    rows = (centers[classes] + 0.3 * rng.normal(size=(200, 6))).astype(np.float32)
    labeled = [int(np.flatnonzero(classes == number)[0]) for number in range(4)]
    X = np.repeat(rows, n_copies, axis=0)
    y = np.full(len(X), -1)
    y[np.array(labeled) * n_copies] = np.arange(4)
    model = LabelDiffusion().fit(X, y)
    once = LabelDiffusion().fit(rows, np.where(np.isin(np.arange(200), labeled), classes, -1))
    wanted = np.mean(once.transduction_ == classes)
    assert np.mean(model.transduction_ == np.repeat(classes, n_copies)) >= wanted - 0.03
    assert np.mean(model.predict(rows) == classes) >= wanted - 0.03
    assert model.n_unreached_ == 0


@pytest.mark.parametrize("n_neighbors", [2, 5, 10, 20])
def test_few_different_rows_keep_to_the_labels_of_their_own(n_neighbors):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, (2000, 2)).astype(np.float32)
    classes = X[:, 0].astype(int)
    X[:, 0] *= 50
    y = np.full(2000, -1)
    for number in range(3):
        y[rng.choice(np.flatnonzero(classes == number), 20, replace=False)] = number
    model = LabelDiffusion(n_neighbors).fit(X, y)
    np.testing.assert_array_equal(model.transduction_, classes)
    np.testing.assert_array_equal(model.predict(X), classes)
