import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro.diffusion.edge_weights import (
    EDGE_WEIGHTS,
    gaussian,
    link_weights,
    local_scales,
    locally_scaled,
    squared_distances,
)
from lowshot_kedro.errors import InputError

from .cases import ints
from .strategies import problems
from .truth import dense_links


def floats(*values):
    return np.array(values, dtype=np.float32)


# --- formulas ---


def test_distances_follow_from_inner_products_and_are_never_negative():
    found = squared_distances(floats([1, 0.5], [0, -1], [1.0000001, 0.875]))
    np.testing.assert_array_equal(found, [[0, 1], [2, 4], [0, 0.25]])
    assert found.dtype == np.float32


def test_gaussian_weights_worked_out_by_hand():
    found = gaussian(floats([0, 1], [0.5, 2]), sigma=0.5)
    np.testing.assert_allclose(found, np.exp([[0, -4], [-2, -8]]), rtol=1e-6)
    assert found.dtype == np.float32


def test_locally_scaled_weights_worked_out_by_hand():
    found = locally_scaled(
        floats([1, 2], [3, 0]), floats(0.5, 2), floats([1, 4], [0.25, 1])
    )  # σ_i σ_j: ½, 2; ½, 2
    np.testing.assert_allclose(found, np.exp([[-2, -1], [-6, 0]]), rtol=1e-6)
    assert found.dtype == np.float32


def test_locally_scaled_weights_do_not_depend_on_the_unit_of_distances():
    squared, scales, near = floats([1, 2], [3, 0.5]), floats(0.5, 2), floats([1, 4], [0.25, 1])
    expected = locally_scaled(squared, scales, near)
    unit = np.float32(2**-12)
    np.testing.assert_array_equal(
        locally_scaled(squared * unit**2, scales * unit, near * unit), expected
    )


def test_at_distance_zero_the_weight_is_one_even_without_a_scale_and_elsewhere_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = locally_scaled(floats([0, 1], [0, 4]), floats(0, 1), floats([0, 1], [0, 0]))
    np.testing.assert_array_equal(found, [[1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("rank", "expected"), [(1, [0, 1, 0]), (2, [1, 1, 0]), (3, [2, 1, 0]), (9, [2, 1, 0])]
)
def test_the_scale_is_the_distance_to_a_neighbour_or_to_the_last(rank, expected):
    neighbors = ints([0, 1, 2], [2, -1, -1], [-1, -1, -1])
    similarities = floats([1, 0.5, -1], [0.5, -np.inf, -np.inf], [-np.inf] * 3)
    found = local_scales(neighbors, similarities, rank)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


# --- all links ---


def as_matrix(neighbors, weights):
    """A dense matrix of the weights of all links; of a repeated one the first."""
    matrix = np.zeros((len(neighbors), len(neighbors)))
    for node, listed in enumerate(neighbors):
        for position in reversed(range(len(listed))):
            if listed[position] >= 0:
                matrix[node, listed[position]] = weights[node, position]
    return matrix


@settings(deadline=None, max_examples=40)
@given(
    problems(),
    st.sampled_from(["gaussian", "locally_scaled"]),
    st.sampled_from([0.4, 1.0]),
    st.integers(1, 7),
)
def test_weights_are_those_of_the_formula(problem, kind, sigma, local_neighbor):
    neighbors, similarities = problem.neighbors, problem.similarities
    found = link_weights(kind, neighbors, similarities, sigma, local_neighbor)
    assert (found.dtype, found.shape) == (np.float32, neighbors.shape)
    assert not found[neighbors < 0].any()
    expected = dense_links(neighbors, similarities, kind, sigma, local_neighbor)
    np.testing.assert_allclose(as_matrix(neighbors, found), expected, rtol=3e-6)


def test_constant_weights_need_no_array_and_no_similarities():
    assert link_weights("constant", ints([0, 1], [1, 0]), None, 0.5, 7) is None


@pytest.mark.parametrize("kind", ["gaussian", "locally_scaled"])
@pytest.mark.parametrize("beside", [np.nan, np.inf, -np.inf, 0.3])
def test_what_stands_beside_a_missing_neighbour_is_not_looked_at(kind, beside):
    neighbors = ints([0, 1, -1], [0, -1, -1], [-1, -1, -1])
    similarities = floats([1, 0.5, beside], [0.5, beside, beside], [beside] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = link_weights(kind, neighbors, similarities, 1.0, 7)
    np.testing.assert_allclose(found, [[1, np.exp(-1), 0], [np.exp(-1), 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("kind", ["gaussian", "locally_scaled"])
def test_blocks_of_rows_change_nothing(kind):
    rng = np.random.default_rng(0)
    neighbors = rng.integers(-1, 50, (50, 4), dtype=np.int32)
    similarities = rng.random((50, 4), dtype=np.float32)
    whole = link_weights(kind, neighbors, similarities, 0.5, 2)
    parts = link_weights(kind, neighbors, similarities, 0.5, 2, block_rows=7)
    np.testing.assert_array_equal(whole, parts)


# --- faults ---


@pytest.mark.parametrize("kind", ["gaussian", "locally_scaled"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block_rows", [7, 16, 1000])
def test_similarities_that_are_no_numbers_are_named_by_their_row(kind, value, block_rows):
    rng = np.random.default_rng(0)
    neighbors = rng.integers(0, 60, (60, 4), dtype=np.int32)
    # Their weights follow from row 50, too.
    neighbors[:5, 0] = 50
    similarities = rng.random((60, 4), dtype=np.float32)
    for column in range(4):
        changed = similarities.copy()
        changed[50, column] = value
        with pytest.raises(
            InputError,
            match=r"^similarities: found NaN or infinite values in 1 row\(s\), numbers 50;",
        ):
            link_weights(kind, neighbors, changed, 0.5, 3, block_rows)


def test_an_unknown_kind_is_refused():
    message = "edge_weight: got 'cosine', expected one of: constant, gaussian, locally_sc"
    with pytest.raises(InputError, match=message):
        link_weights("cosine", ints([0]), floats([1]), 0.5, 7)


@pytest.mark.parametrize(
    ("similarities", "found"),
    [(None, "none"), (np.ones((2, 1), np.float32), r"shape \(2, 1\)")],
)
@pytest.mark.parametrize("kind", ["gaussian", "locally_scaled"])
def test_missing_or_misshapen_similarities_are_refused(kind, similarities, found):
    message = rf"similarities: got {found}; edge_weight {kind} needs them in shape \(2, 2\)"
    with pytest.raises(InputError, match=message):
        link_weights(kind, ints([0, 1], [1, 0]), similarities, 0.5, 7)


def test_a_kind_of_weight_is_a_function_and_a_line(monkeypatch):
    monkeypatch.setitem(EDGE_WEIGHTS, "inverse", lambda links: 1 / (1 + links.squared))
    similarities = np.array([[1, 0.5], [1, 0.5]], np.float32)
    found = link_weights("inverse", np.array([[0, 1], [1, 0]], np.int32), similarities, 1, 1)
    np.testing.assert_allclose(found, [[1, 0.5], [1, 0.5]])
