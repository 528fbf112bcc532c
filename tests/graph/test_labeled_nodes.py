from typing import NamedTuple

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph import (
    UnlabeledNodes,
    bounded_search,
    index_in_memory,
    insert_labeled_nodes,
    insertion,
    labeled_nodes,
    list_search,
    normalize,
)
from lowshot_kedro.graph import index as index_module
from lowshot_kedro.graph import vectors as vectors_module
from lowshot_kedro.graph.workspace import MemoryBudget

from .making import graph_of, same_bits, threads
from .truth import (
    assert_nearest,
    assert_well_formed,
    clustered_vectors,
    dense_graph,
    random_vectors,
    recall_of,
    similarities_of,
)


def complete(labeled, test, background, k, stored_k=None, **changes):
    """The graph with labelled nodes; of the unlabelled ones `changes` may hold what they are."""
    nodes = {name: changes.pop(name) for name in UnlabeledNodes._fields if name in changes}
    nodes.setdefault("vectors", background)
    if "search_index" not in nodes:
        nodes["search_index"] = index_in_memory(background, "exact")
    if "neighbors" not in nodes:
        nodes["neighbors"] = dense_graph(background, stored_k or k)
    arguments = {
        "labeled_vectors": normalize(labeled, 0, "labelled"),
        "test_vectors": normalize(test, 0, "test"),
    } | changes
    return insert_labeled_nodes(**arguments, unlabeled=UnlabeledNodes(**nodes), k=k)


def three_sets(n_labeled, n_background, n_test=7, dimension=16):
    return (
        random_vectors(n_labeled, dimension, seed=1),
        random_vectors(n_test, dimension, seed=2),
        random_vectors(n_background, dimension, seed=3),
    )


@pytest.mark.parametrize("block_rows", [6, 16384])
@pytest.mark.parametrize(
    ("n_labeled", "n_background", "k", "stored_k"),
    [
        (5, 60, 6, 8),
        (30, 30, 7, 32),
        (20, 12, 12, 12),
        (5, 60, 1, 4),
        (3, 40, 30, 32),
        (12, 3, 6, 8),
        (12, 0, 5, 8),
        (0, 20, 5, 5),
        (1, 1, 2, 2),
        (4, 5, 9, 16),
    ],
    ids=lambda value: str(value),
)
def test_the_graph_is_that_of_comparing_all_with_all(
    monkeypatch, n_labeled, n_background, k, stored_k, block_rows
):
    for module in (index_module, vectors_module):
        monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(labeled_nodes, "QUERY_ROWS", block_rows)
    labeled, test, background = three_sets(n_labeled, n_background)
    graph = complete(labeled, test, background, k, stored_k)

    nodes = np.concatenate([labeled, background])
    assert_nearest(graph.neighbors, similarities_of(nodes, nodes), k)
    among_nodes = similarities_of(test, nodes)
    assert_nearest(graph.test_neighbors.indices, among_nodes, k)
    expected = -np.sort(-among_nodes, axis=1)[:, :k]
    np.testing.assert_allclose(graph.test_neighbors.similarities, expected, atol=2e-6)
    np.testing.assert_array_equal(graph.neighbors[:, 0], np.arange(len(nodes)))


def test_similarities_of_nodes_are_kept_on_request():
    labeled, test, background = three_sets(6, 25)
    graph = complete(labeled, test, background, 4, keep_similarities=True)
    nodes = np.concatenate([labeled, background])
    expected = -np.sort(-similarities_of(nodes, nodes), axis=1)[:, :4]
    assert graph.similarities.dtype == np.float32
    np.testing.assert_allclose(graph.similarities, expected, atol=2e-6)
    without = complete(labeled, test, background, 4)
    assert without.similarities is None
    np.testing.assert_array_equal(without.neighbors, graph.neighbors)


def test_an_inverted_file_serves_as_well():
    labeled, test, background = three_sets(10, 300)
    index = index_in_memory(background, "ivf")
    index.nprobe = index.nlist
    graph = complete(labeled, test, background, 5, search_index=index)
    nodes = np.concatenate([labeled, background])
    assert_nearest(graph.neighbors, similarities_of(nodes, nodes), 5)


def test_background_and_stored_graph_may_lie_on_disk(tmp_path):
    labeled, test, background = three_sets(10, 50)
    stored = dense_graph(background, 8)
    in_memory = complete(labeled, test, background, 5, neighbors=stored)

    def on_disk(name, array):
        array.tofile(tmp_path / name)
        return np.memmap(tmp_path / name, array.dtype, "r", shape=array.shape)

    mapped = complete(
        labeled, test, on_disk("vectors", background), 5,
        neighbors=KnnGraph(
            on_disk("indices", stored.indices), on_disk("similarities", stored.similarities)
        ),
    )  # fmt: skip
    np.testing.assert_array_equal(mapped.neighbors, in_memory.neighbors)
    np.testing.assert_array_equal(mapped.test_neighbors.indices, in_memory.test_neighbors.indices)


def test_background_comes_before_labelled_where_equally_similar():
    # Inner products of unit vectors along the axes are exact: 1 or 0.
    axes = np.eye(4, dtype=np.float32)
    labeled = axes[[0, 1, 0]]  # nodes 0, 1, 2
    background = 2 * axes[[0, 1, 0, 3]]  # nodes 3, 4, 5, 6
    graph = complete(labeled, axes[[0, 1]], background, 3)

    same_first_axis = {0: {3, 5}, 2: {3, 5}, 3: {3, 5}, 5: {3, 5}}
    for node, background_nodes in same_first_axis.items():
        assert set(graph.neighbors[node, :2].tolist()) == background_nodes
        assert graph.neighbors[node, 2] in (0, 2)
    for node in (1, 4):
        # The third is at similarity 0, where background comes first again.
        assert graph.neighbors[node, :2].tolist() == [4, 1]
        assert graph.neighbors[node, 2] in (3, 5, 6)
    assert set(graph.test_neighbors.indices[0, :2].tolist()) == {3, 5}
    assert graph.test_neighbors.indices[1, :2].tolist() == [4, 1]
    assert graph.test_neighbors.similarities[1].tolist() == [1, 1, 0]


def test_duplicates_find_each_other_across_both_sets():
    labeled, test, background = three_sets(6, 30)
    background[10:14] = background[3]
    labeled[2] = 3 * background[3]
    graph = complete(labeled, test, background, 6)
    nodes = np.concatenate([labeled, background])
    similarities = similarities_of(nodes, nodes)
    found = np.take_along_axis(similarities, graph.neighbors.astype(np.int64), axis=1)
    np.testing.assert_allclose(found, -np.sort(-similarities, axis=1)[:, :6], atol=2e-6)
    group = {2, 9, 16, 17, 18, 19}
    for node in group:
        assert set(graph.neighbors[node].tolist()) == group


def test_without_test_points_there_are_no_test_neighbors():
    labeled, _, background = three_sets(4, 10)
    graph = complete(labeled, np.empty((0, 16), dtype=np.float32), background, 3)
    assert graph.test_neighbors.indices.shape == (0, 3)
    assert graph.neighbors.shape == (14, 3)


@pytest.mark.parametrize(
    ("changes", "k", "message"),
    [
        ({}, 15, r"k: got 15, but the graph has only 14 nodes \(4 labelled and 10 backgr"),
        ({"neighbors": dense_graph(random_vectors(10), 4)}, 5,
         "background_graph: has 4 columns, expected at least k = 5"),
        ({"neighbors": dense_graph(random_vectors(9), 8)}, 5,
         "background_vectors has 10 rows, background_graph 9 and background_index 10; expected"),
        ({"search_index": index_in_memory(random_vectors(11))}, 5,
         "background_vectors has 10 rows, background_graph 10 and background_index 11; expected"),
        ({"vectors": random_vectors(12)}, 5,
         "background_vectors has 12 rows, background_graph 10 and background_index 10; expected"),
        ({"vectors": random_vectors(10, 15)}, 5,
         "background_vectors: dimension 15, but the labelled vectors have 16"),
        ({"test_vectors": random_vectors(3, 17)}, 5,
         "test vectors: dimension 17, but the labelled vectors have 16"),
        ({"search_index": index_in_memory(random_vectors(10, 15))}, 5,
         "background_index: dimension 15, but the labelled vectors have 16"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(changes, k, message):
    labeled, test, background = three_sets(4, 10)
    with pytest.raises(ValueError, match=message):
        complete(labeled, test, background, k, **changes)


@pytest.mark.parametrize("index_kind", ["Flat", "IVF2,Flat"])
def test_nan_is_refused_with_its_row_wherever_it_is(index_kind):
    labeled, test, background = (normalize(random_vectors(n, 8), 0, "x") for n in (60, 70, 80))
    index = faiss.index_factory(8, index_kind, faiss.METRIC_INNER_PRODUCT)
    index.train(background)
    index.add(background)
    similarities, indices = index.search(background, 4)
    stored = KnnGraph(indices.astype(np.int32), similarities)
    arguments = (labeled, test, background)

    def insert(labeled, test, background, stored=stored):
        return insert_labeled_nodes(labeled, test, UnlabeledNodes(background, index, stored), 4)

    insert(*arguments)
    for position, name in ((0, "labelled vectors"), (1, "test vectors"), (2, "background_vectors")):
        for value in (np.nan, np.inf):
            changed = list(arguments)
            changed[position] = changed[position].copy()
            changed[position][50, 3] = value
            with pytest.raises(InputError, match=rf"^{name}: found NaN .* 1 row.* numbers 50;"):
                insert(*changed)
    similarities = similarities.copy()
    similarities[50, 1] = np.nan
    message = r"^similarities of background_graph: found NaN .* numbers 50;"
    with pytest.raises(InputError, match=message):
        insert(*arguments, KnnGraph(stored.indices, similarities))


def test_nan_in_the_background_is_refused_with_its_row(monkeypatch):
    monkeypatch.setattr(vectors_module, "BLOCK_ROWS", 4)
    labeled, test, background = three_sets(4, 10)
    damaged = background.copy()
    damaged[6, 3] = np.nan
    with pytest.raises(ValueError, match=r"background_vectors: found NaN .* numbers 6;"):
        complete(
            labeled, test, damaged, 3,
            search_index=index_in_memory(background),
            neighbors=dense_graph(background, 3),
        )  # fmt: skip


# --- an inverted file, at the sizes it is for ---


class Case(NamedTuple):
    labeled: NDArray[np.float32]
    test: NDArray[np.float32]
    background: NDArray[np.float32]

    @property
    def nodes(self):
        return np.concatenate([self.labeled, self.background])


def clustered_case(n_labeled, n_test, n_background, dimension=64, noise=1.0):
    vectors = clustered_vectors(
        n_labeled + n_test + n_background, dimension, members=100, noise=noise
    )
    return Case(*np.split(vectors, [n_labeled, n_labeled + n_test]))


def completed(case, k, **changes):
    """The graph with an inverted file as it is built by default, over an exact stored graph."""
    stored = graph_of(case.background, k + 2)
    index = index_in_memory(case.background, "ivf")
    assert index.nprobe < index.nlist / 2
    return stored, complete(*case, k, neighbors=stored, search_index=index, **changes)


def assert_nearly_complete(case, stored, graph, k, least=0.98):
    """The part of the links that there should be, of labelled, test and background points."""
    n_labeled = len(case.labeled)
    of_labeled = graph.neighbors[:n_labeled]
    assert recall_of(of_labeled, case.labeled, case.nodes, k) >= least
    assert recall_of(graph.test_neighbors.indices, case.test, case.nodes, k) >= least

    to_labeled = similarities_of(case.background, case.labeled)
    both = np.concatenate([stored.similarities[:, :k], to_labeled], axis=1)
    threshold = np.partition(both, -k, axis=1)[:, -k]
    wanted = to_labeled > threshold[:, None] + 1e-6
    of_background = graph.neighbors[n_labeled:]
    got = np.zeros_like(wanted)
    rows, columns = np.nonzero((of_background >= 0) & (of_background < n_labeled))
    got[rows, of_background[rows, columns]] = True
    changed = wanted.any(axis=1)
    assert changed.sum() > len(changed) / 100
    assert got[wanted].mean() >= least
    unchanged = ~got.any(axis=1)
    np.testing.assert_array_equal(
        of_background[unchanged], stored.indices[unchanged, :k] + n_labeled
    )


def test_lists_find_nearly_all_links():
    case = clustered_case(1000, 500, 20_000)
    stored, graph = completed(case, 30, keep_similarities=True)
    assert_nearly_complete(case, stored, graph, 30)
    nodes = KnnGraph(graph.neighbors, graph.similarities)
    # Of equal ones those of the background come first.
    assert_well_formed(nodes, case.nodes, 30, equal_by_number=False)


def test_lists_find_nearly_all_links_of_more_labelled_than_background():
    case = clustered_case(4000, 300, 1500, noise=0.6)
    stored, graph = completed(case, 10, keep_similarities=True)
    assert_nearly_complete(case, stored, graph, 10)
    nodes = KnnGraph(graph.neighbors, graph.similarities)
    assert_well_formed(nodes, case.nodes, 10, equal_by_number=False)


def test_lists_find_duplicates_across_both_sets():
    case = clustered_case(400, 100, 4000, dimension=32, noise=0.6)
    case.labeled[:200] = 2 * case.background[:200]
    case.test[:50] = 3 * case.background[:50]
    case.background[300:700] = case.background[300]
    case.labeled[300:310] = case.background[300]
    _, graph = completed(case, 12, keep_similarities=True)
    for number in range(200):
        twins = {number, 400 + number}
        assert set(graph.neighbors[number, :2].tolist()) == twins
        assert set(graph.neighbors[400 + number, :2].tolist()) == twins
    for number in range(50):
        assert set(graph.test_neighbors.indices[number, :2].tolist()) == {number, 400 + number}
    same = [*range(300, 310), *range(700, 1100)]
    assert np.isin(graph.neighbors[same], same).all()
    np.testing.assert_allclose(graph.similarities[same], 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["labelled", "background", "test"])
def test_zero_vectors_do_no_harm_in_lists(kind):
    case = clustered_case(300, 100, 3000, dimension=32, noise=0.6)
    {"labelled": case.labeled, "background": case.background, "test": case.test}[kind][::9] = 0
    stored, graph = completed(case, 8, keep_similarities=True)
    assert_nearly_complete(case, stored, graph, 8)


def test_neither_threads_nor_blocks_nor_memory_change_a_bit(monkeypatch):
    case = clustered_case(300, 100, 3000)
    graphs = []
    for count in (1, 3):
        with threads(count):
            graphs.append(completed(case, 10, keep_similarities=True)[1])
    for module in (labeled_nodes, insertion, bounded_search, list_search):
        monkeypatch.setattr(module, "QUERY_ROWS", 700)
    stored, index = graph_of(case.background, 12), index_in_memory(case.background, "ivf")
    monkeypatch.setattr(MemoryBudget, "left", 0)
    graphs.append(complete(*case, 10, neighbors=stored, search_index=index, keep_similarities=True))
    for graph in graphs[1:]:
        assert same_bits(graph[:2], graphs[0][:2])
        assert same_bits(graph.test_neighbors, graphs[0].test_neighbors)


def test_a_stored_graph_with_a_node_that_there_is_not_is_refused():
    labeled, test, background = three_sets(4, 10)
    stored = dense_graph(background, 3)
    stored.indices[7, 2] = 10
    message = r"background_graph: row 7, column 2 holds 10, expected -1 or 0\.\.9"
    with pytest.raises(ValueError, match=message):
        complete(labeled, test, background, 3, neighbors=stored)


# --- the part of the links that is found ---


def share_of_links(case, stored, graph, k):
    """Links from the background to labelled points, and out of these: the parts that are there.

    A link from the background is due to a labelled point that is more similar than the k-th
    neighbour would be in a graph with all such links.
    """
    n_labeled = len(case.labeled)
    to_labeled = similarities_of(case.background, case.labeled)
    both = np.concatenate([stored.similarities[:, :k].astype(np.float64), to_labeled], axis=1)
    last = np.partition(both, -k, axis=1)[:, -k]
    wanted = to_labeled > last[:, None] + 2e-6
    there = np.zeros_like(wanted)
    rows, columns = np.nonzero(graph.neighbors[n_labeled:] < n_labeled)
    there[rows, graph.neighbors[n_labeled:][rows, columns]] = True
    of_labeled = recall_of(graph.neighbors[:n_labeled], case.labeled, case.nodes, k)
    return there[wanted].mean(), of_labeled, int(wanted.sum())


def far_and_near_case():
    """Most points in clusters, some far from all: these have their neighbours in many lists."""
    rng = np.random.default_rng(3)
    case = clustered_case(700, 300, 8000, dimension=64, noise=0.7)
    for vectors in case:
        far = rng.random(len(vectors)) < 0.15
        vectors[far] = rng.standard_normal((far.sum(), 64)) * np.exp(rng.normal(size=64))
    return case


@pytest.mark.parametrize("n_probe", [1, None])
@pytest.mark.parametrize("make_case", [far_and_near_case, lambda: clustered_case(700, 300, 8000)])
def test_nearly_no_link_is_lost_however_few_lists_the_index_looks_through(make_case, n_probe):
    case, k = make_case(), 12
    stored = graph_of(case.background, k)
    index = index_in_memory(case.background, "ivf", 0.5)
    if n_probe is not None:
        index.nprobe = n_probe
    graph = complete(*case, k, neighbors=stored, search_index=index)
    into, out_of, n_links = share_of_links(case, stored, graph, k)
    assert n_links > 2000
    assert into >= 0.999
    assert out_of >= 0.999
    assert recall_of(graph.test_neighbors.indices, case.test, case.nodes, k) >= 0.999
    for name in ("links_to_labeled", "links_of_labeled", "links_of_test"):
        found = graph.quality[name]
        assert found["share"] >= 0.995
        assert found["n_links"] >= 100 and found["n_sampled"] > 20


@pytest.mark.parametrize("n_few", [0, 20_000])
@pytest.mark.parametrize("description", ["HNSW8", "SQ4", "IVF16,SQ4"])
def test_nearly_no_link_is_lost_whatever_the_index(monkeypatch, description, n_few):
    monkeypatch.setattr(labeled_nodes, "EXACT_BELOW", n_few)
    case, k = clustered_case(400, 150, 4000, dimension=32), 10
    stored = graph_of(case.background, k)
    graph = complete(
        *case, k,
        neighbors=stored,
        search_index=index_in_memory(case.background, description),
    )  # fmt: skip
    into, out_of, n_links = share_of_links(case, stored, graph, k)
    assert n_links > 1000
    assert min(into, out_of) >= 0.999
    assert recall_of(graph.test_neighbors.indices, case.test, case.nodes, k) >= 0.999


def test_links_that_are_missing_are_told(caplog, monkeypatch):
    """Half of the links out of test points, as if the search had lost them."""
    case, k = clustered_case(400, 300, 4000, dimension=32), 8
    real = insertion.LinksInLists.of_points

    def losing(self):
        background, labeled = real(self)
        of_test = slice(len(case.labeled), None), slice(k // 2, None)
        background.indices[of_test] = labeled.indices[of_test] = -1
        background.similarities[of_test] = labeled.similarities[of_test] = -np.inf
        return background, labeled

    monkeypatch.setattr(insertion.LinksInLists, "of_points", losing)
    index = index_in_memory(case.background, "ivf")
    with caplog.at_level("INFO", "lowshot_kedro"):
        graph = complete(*case, k, neighbors=graph_of(case.background, k), search_index=index)
    assert graph.quality["links_of_labeled"]["share"] >= 0.999
    assert graph.quality["links_of_test"]["share"] < 0.8
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "links from test points are found" in warnings[0].getMessage()


def test_where_every_pair_is_compared_nothing_is_sampled():
    labeled, test, background = three_sets(6, 25)
    graph = complete(labeled, test, background, 4)
    assert graph.quality == {
        "k": 4,
        **{
            name: {"share": 1.0, "n_links": None, "n_sampled": None}
            for name in ("links_to_labeled", "links_of_labeled", "links_of_test")
        },
    }
