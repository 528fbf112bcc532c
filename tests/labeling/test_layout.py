import logging

import faiss
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from lowshot_kedro.labeling import layout
from lowshot_kedro.labeling.layout import layout_images
from lowshot_kedro.labeling.nodes import LabelingGraph, NodeVectors

N_CLUSTERS = 12


def graph_of(vectors, k=20):
    """The exact graph of vectors, each row with itself first; the first ten are those inserted."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors.astype(np.float32)
    k = min(k, len(vectors))
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(vectors)
    neighbors = search.kneighbors(vectors, return_distance=False).astype(np.int32)
    similarities = np.einsum("nd,nkd->nk", vectors, vectors[neighbors])
    return LabelingGraph(neighbors, similarities, NodeVectors(vectors[:10], 3 * vectors[10:]))


def clustered(n, dimension=16, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLUSTERS
    centres = rng.normal(size=(N_CLUSTERS, dimension))
    return centres[labels] + 0.3 * rng.normal(size=(n, dimension)), labels


@pytest.fixture(scope="module")
def clusters():
    vectors, labels = clustered(600)
    return graph_of(vectors), labels


def purity(positions, labels):
    """How many of an image's five neighbours on the map are of its cluster."""
    found = NearestNeighbors(n_neighbors=6).fit(positions).kneighbors(return_distance=False)
    return (labels[found[:, :5]] == labels[:, None]).mean()


def test_similar_images_are_close_together(clusters):
    graph, labels = clusters
    positions = layout_images(graph)
    assert positions.shape == (600, 2) and positions.dtype == np.float32
    assert np.isfinite(positions).all()
    assert purity(positions, labels) > 0.99
    flat = PCA(2).fit_transform(graph.vectors.read(0, 600))
    assert purity(flat, labels) < 0.95


def test_a_seed_gives_the_same_map_for_any_number_of_threads(clusters):
    import numba

    graph, _ = clusters
    before, of_faiss = numba.get_num_threads(), faiss.omp_get_max_threads()
    with threadpool_limits(1):
        first = layout_images(graph, seed=3)
    second = layout_images(graph, seed=3)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, layout_images(graph, seed=4))
    layout_images(graph, seed=2**31 - 1)
    assert (numba.get_num_threads(), faiss.omp_get_max_threads()) == (before, of_faiss)
    assert logging.getLogger("pacmap.pacmap").level == logging.NOTSET


def test_others_than_those_laid_out_are_beside_their_neighbours(clusters):
    graph, labels = clusters
    always = np.array([597, 1, 598])
    positions = layout_images(graph, max_images=120, always=always)
    assert purity(positions, labels) > 0.99
    nodes = layout._laid_out(600, 120, always)
    assert len(nodes) == 120 and set(always) <= set(nodes.tolist())
    others = np.setdiff1d(np.arange(600), nodes)
    # The first hop, by hand.
    checked = 0
    for node in others.tolist():
        near = [each for each in graph.neighbors[node].tolist() if each in set(nodes.tolist())]
        if near:
            np.testing.assert_allclose(
                positions[node], positions[near[:5]].mean(axis=0), rtol=1e-5, atol=1e-5
            )
            checked += 1
    assert checked > 300


def test_too_many_labelled_images_leave_half_of_the_places():
    nodes = layout._laid_out(1000, 100, np.arange(500))
    assert len(nodes) == len(set(nodes.tolist())) == 100
    assert (nodes < 500).sum() >= 50 and (nodes >= 500).sum() > 20


def test_images_that_no_link_leads_away_from_are_beside_those_that_look_like_them(clusters):
    graph, _ = clusters
    nodes = layout._laid_out(600, 120, None)
    others = np.setdiff1d(np.arange(600), nodes)
    neighbors, similarities = graph.neighbors.copy(), graph.similarities.copy()
    neighbors[others], similarities[others] = -1, -np.inf
    positions = layout_images(LabelingGraph(neighbors, similarities, graph.vectors), max_images=120)
    vectors = graph.vectors.read(0, 600)
    nearest = nodes[(vectors[others] @ vectors[nodes].T).argmax(axis=1)]
    np.testing.assert_array_equal(positions[others], positions[nearest])


@pytest.mark.parametrize("n", [2, 3, 10, 30])
def test_few_images_are_laid_out_by_principal_components(n):
    vectors, _ = clustered(max(n, 10))
    graph = graph_of(vectors[:n])
    positions = layout_images(graph)
    expected = np.zeros((n, 2))
    n_components = min(n, 2)
    found = PCA(n_components).fit_transform(graph.vectors.read(0, n))
    expected[:, :n_components] = found
    np.testing.assert_allclose(np.abs(positions), np.abs(expected), atol=1e-5)


def test_no_image_and_a_single_one_are_laid_out_too():
    assert layout_images(graph_of(clustered(10)[0][:1])).tolist() == [[0, 0]]
    none = NodeVectors(np.empty((0, 4), np.float32), np.empty((0, 4), np.float32))
    graph = LabelingGraph(np.empty((0, 3), np.int32), np.empty((0, 3), np.float32), none)
    assert layout_images(graph).shape == (0, 2)


def test_identical_images_and_images_without_neighbours_are_laid_out():
    vectors, _ = clustered(120)
    vectors[:40] = vectors[0]
    graph = graph_of(vectors)
    graph.neighbors[50:60], graph.similarities[50:60] = -1, -np.inf
    graph.neighbors[60:70, 3:], graph.similarities[60:70, 3:] = -1, -np.inf
    assert np.isfinite(layout_images(graph)).all()
    same = graph_of(np.ones((80, 5)))
    assert np.isfinite(layout_images(same)).all()
    assert np.isfinite(layout_images(graph_of(np.arange(1, 81)[:, None] * [1.0]))).all()


def test_the_neighbours_are_those_that_pacmap_would_choose(clusters):
    """Nearest by squared distance, divided by both scales: formula (7) of the paper."""
    graph, _ = clusters
    found = layout._nearest(graph, np.arange(600), graph.vectors.read(0, 600))
    distances = np.sqrt(np.maximum(2 - 2 * graph.similarities[:, 1:].astype(float), 0))
    scales = distances[:, 3:6].mean(axis=1)
    for node in range(0, 600, 37):
        scaled = distances[node] ** 2 / (scales[node] * scales[graph.neighbors[node, 1:]])
        expected = graph.neighbors[node, 1:][np.argsort(scaled)[:10]]
        assert set(found[node].tolist()) == set(expected.tolist())


def test_without_the_library_the_map_shows_principal_components(clusters, monkeypatch, caplog):
    graph, _ = clusters
    monkeypatch.setattr(layout, "find_spec", lambda name: None)
    positions = layout_images(graph, max_images=120)
    assert "pip install" in caplog.text and "pacmap is not installed" in caplog.text
    vectors = graph.vectors.read(0, 600)
    pca = PCA(2).fit(vectors[layout._laid_out(600, 120, None)])
    np.testing.assert_allclose(
        np.abs(positions), np.abs(pca.transform(vectors)), rtol=1e-3, atol=1e-4
    )
