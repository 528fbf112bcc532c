"""What a sample says about the effort: lists looked through, columns compared, links followed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro import native
from lowshot_kedro.graph import centroids, descent, index_in_memory
from lowshot_kedro.graph.centroids import CentroidSearch, missed_after_probes, probes_needed
from lowshot_kedro.graph.codes import VectorEncoder
from lowshot_kedro.graph.descent import links_to_follow, tune
from lowshot_kedro.graph.list_search import ListSearch, division_of
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace

from .truth import clustered_vectors, unit

# --- links ---


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.5, 1))
def test_rounds_end_where_the_target_is_reached_or_no_more_links_can_be_followed(recalls, target):
    # Rounds only find more, and none follows on the target.
    recalls = sorted(recalls)
    recalls = recalls[: 1 + sum(recall < target for recall in recalls)]
    links = links_to_follow(recalls, target)
    if recalls[-1] >= target:
        assert links is None
    elif links is None:
        # Among the rounds before is one that followed the most, and found too little.
        before = [links_to_follow(recalls[:n], target) for n in range(1, len(recalls))]
        assert (48, True) in before
    else:
        assert 8 <= links[0] <= 48


def test_more_links_are_followed_where_more_is_missing():
    first = [links_to_follow([1 - missed], 0.99)[0] for missed in (0.011, 0.02, 0.05, 0.1, 0.9)]
    assert first == sorted(first) and first[0] == 8 and first[-1] == 48
    assert len(set(first)) == 5
    assert links_to_follow([0.9], 0.95)[0] < links_to_follow([0.9], 0.99)[0]
    assert links_to_follow([0.5], 1.0) == (48, True)


def test_a_round_that_has_found_much_is_repeated_with_as_many_links():
    n_links, is_fresh = links_to_follow([0.9], 0.99)
    assert is_fresh
    assert links_to_follow([0.9, 0.98], 0.99) == (n_links, False)
    more, is_fresh = links_to_follow([0.9, 0.98, 0.981], 0.99)
    assert is_fresh and more >= n_links + 8
    assert links_to_follow([0.9, 0.91], 0.99)[0] > n_links


# --- lists ---


def search_over(vectors, folder, **options):
    index = index_in_memory(vectors, "ivf", 0.9)
    search = ListSearch.of(
        vectors, division_of(index), Workspace(folder, MemoryBudget()), "vectors"
    )
    return search, tune(search, 10, 0.98)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    rng = np.random.default_rng(0)
    # Of five coordinates, nearly: near and far are far apart.
    vectors = rng.normal(size=(6000, 5)) @ rng.normal(size=(5, 160))
    vectors = (vectors + 0.3 * rng.normal(size=(6000, 160))).astype(np.float32)
    return search_over(vectors, tmp_path_factory.mktemp("searched"))


def test_what_is_missed_after_some_lists(searched):
    search, tuning = searched
    n_lists = len(search.division.centroids)
    codes = np.ascontiguousarray(search.codes.values[tuning.rows])
    lists = search.lists_of(tuning.neighbors.indices)
    missed = missed_after_probes(search.centroids, codes, lists, n_lists)
    assert missed.shape == (n_lists,) and missed[-1] == 0 and (np.diff(missed) <= 0).all()
    for count in (1, 2, 7, n_lists):
        probes = search.centroids.nearest(codes, count)
        found = np.mean([np.isin(row, probed) for row, probed in zip(lists, probes, strict=True)])
        assert missed[count - 1] == pytest.approx(1 - found)
    wanted = probes_needed(search.centroids, codes, lists, n_lists, 0.9)
    assert missed[wanted - 1] <= 0.1 < missed[max(wanted - 2, 0)] + (wanted == 1)
    nothing = missed_after_probes(search.centroids, codes, np.full_like(lists, -1), n_lists)
    assert not nothing.any()


@pytest.mark.parametrize("target", [0.5, 0.9, 0.99, 1.0])
def test_the_first_search_leaves_no_more_than_descent_can_find(searched, target):
    search, tuning = searched
    n_probe = descent._count_probes(search, tuning, target, True)
    codes = np.ascontiguousarray(search.codes.values[tuning.rows])
    lists = search.lists_of(tuning.neighbors.indices)
    missed = missed_after_probes(search.centroids, codes, lists, len(search.division.centroids))
    assert missed[n_probe - 1] <= max(0.05, 1 - target)
    # With descent no more lists than without.
    assert n_probe <= max(descent._count_probes(search, tuning, target, False), 1)


def test_lists_around_those_of_vectors(monkeypatch):
    rng = np.random.default_rng(0)
    points = unit(rng.normal(size=(90, 40))).astype(np.float32)
    encoder = VectorEncoder(points)
    search = CentroidSearch(points, encoder)
    vectors = unit(points[rng.integers(0, 90, 500)] + 0.1 * rng.normal(size=(500, 40)))
    codes, _ = encoder.encode(vectors.astype(np.float32))
    own = search.nearest(codes.values, 1)[:, 0]
    everything = search.nearest(codes.values, 90)
    monkeypatch.setattr(centroids, "_AROUND", 24)
    found = search.nearest_around(codes.values, own, 3)
    of_points = search.nearest(search.codes.values, 24)
    for query in range(500):
        near = everything[query][np.isin(everything[query], of_points[own[query]])]
        np.testing.assert_array_equal(found[query], near[:3])
    # Of too many wanted too few would be around.
    np.testing.assert_array_equal(search.nearest_around(codes.values, own, 4), everything[:, :4])


# --- first columns ---


def test_first_columns_lose_hardly_any_neighbor_of_the_sample(searched):
    search, tuning = searched
    n_probe = 30
    # Lists of about 20 vectors; in 3 of them there are hardly more than are kept.
    full_probes = descent._full_probes(search, tuning)
    assert 9 <= full_probes <= 11
    assert descent._prefix_share(search, tuning, n_probe, 3) == 1
    share = descent._prefix_share(search, tuning, n_probe, full_probes)
    assert 64 / 192 < share < 1
    codes = search.codes.part(tuning.rows)
    probes = search.probes(codes.values, n_probe)
    lists = native.Lists(search.division.offsets)
    width = tuning.pool_width
    everything, _ = native.search_lists(search.codes, lists, codes.values, probes, width)
    prefix = native.Prefix(codes.biases, share, full_probes)
    found, _ = native.search_lists(search.codes, lists, codes.values, probes, width, None, prefix)
    neighbors = search.division.positions[tuning.neighbors.indices]
    there = [np.isin(n, row).sum() for n, row in zip(neighbors, everything, strict=True)]
    kept = [np.isin(n, row).sum() for n, row in zip(neighbors, found, strict=True)]
    assert sum(there) - sum(kept) <= 5e-4 * neighbors.size
    assert (found != everything).any()


def test_first_columns_are_not_asked_where_they_tell_nothing(searched, tmp_path):
    search, tuning = searched
    assert descent._prefix_share(search, tuning, 10, 10) == 1
    # All are about equally far from each other.
    rng = np.random.default_rng(0)
    alike, of_alike = search_over(rng.normal(size=(3000, 128)).astype(np.float32), tmp_path)
    assert descent._prefix_share(alike, of_alike, 30, 10) == 1
    narrow, of_narrow = search_over(clustered_vectors(2000, 30), tmp_path / "narrow")
    assert descent._prefix_share(narrow, of_narrow, 30, 10) == 1
