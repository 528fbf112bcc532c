import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from lowshot_kedro.errors import InputError
from lowshot_kedro.probes import Gallery, knn, knn_scores, strict_top_k

# What the original of SNCA computes, of one gallery.
REFERENCE = np.load(Path(__file__).with_name("reference_knn.npz"))
GALLERY, LABELS = REFERENCE["loss_bankB"], REFERENCE["loss_labels"]
QUERIES, QUERY_LABELS = REFERENCE["knn_query"], REFERENCE["knn_query_labels"]


def scores_by_sorting(gallery, labels, queries, k, temperature, n_classes):
    """The rule with all similarities in a table of double precision, and a stable sort."""
    expected = np.zeros((len(queries), n_classes))
    for row, similarities in enumerate(queries.astype(float) @ gallery.astype(float).T):
        for neighbor in np.argsort(-similarities, kind="stable")[:k]:
            expected[row, labels[neighbor]] += np.exp(similarities[neighbor] / temperature)
    return expected


# --- the original ---


def test_neighbours_are_those_of_the_original():
    found = Gallery(GALLERY, LABELS, 20).nearest(QUERIES, 30)
    np.testing.assert_array_equal(found.indices, REFERENCE["knn_K30_neighbours"])
    similarities = np.take_along_axis(QUERIES @ GALLERY.T, found.indices.astype(np.int64), axis=1)
    np.testing.assert_allclose(found.similarities, similarities, rtol=1e-5, atol=1e-6)


def test_scores_are_those_of_the_original():
    found = knn_scores(GALLERY, LABELS, QUERIES, 30, 0.05, 20)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, REFERENCE["knn_K30_T0.05_scores"], rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=1), REFERENCE["knn_K30_T0.05_pred"])


def test_accuracies_are_those_of_the_original():
    one, thirty = Gallery(GALLERY, LABELS, 20).accuracies(QUERIES, QUERY_LABELS, [1, 30], 0.05)
    # The class of one neighbour is the only guess there is.
    expected = float(REFERENCE["knn_nn_top1"])
    assert one == {"k": 1, "top1": expected, "top5": expected}
    assert thirty == {
        "k": 30,
        "top1": REFERENCE["knn_K30_T0.05_top1"],
        "top5": REFERENCE["knn_K30_T0.05_top5_strict"],
    }


# --- the rule ---


@settings(deadline=None, max_examples=100)
@given(
    st.data(),
    st.integers(1, 40),
    st.integers(0, 9),
    st.integers(1, 5),
    st.sampled_from([1.0, 0.05, 0.03]),
)
def test_scores_are_those_of_sorting_all_similarities(data, n_rows, n_queries, d, temperature):
    # Products of such numbers are exact, and full of ties; the largest is 20.
    entries = st.integers(-1, 2).map(float)
    gallery = data.draw(st_numpy.arrays(np.float32, (n_rows, d), elements=entries))
    queries = data.draw(st_numpy.arrays(np.float64, (n_queries, d), elements=entries))
    labels = data.draw(st_numpy.arrays(np.int64, n_rows, elements=st.integers(0, 3)))
    k = data.draw(st.integers(1, n_rows))
    expected = scores_by_sorting(gallery, labels, queries, k, temperature, 4)
    found = knn_scores(gallery, labels, queries, k, temperature, 4)
    # Terms may be added in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    true = data.draw(st_numpy.arrays(np.int32, n_queries, elements=st.integers(0, 3)))
    for guesses in (1, 2, 5):
        best = [
            sorted((-score, number) for number, score in enumerate(row) if score > 0)[:guesses]
            for row in found
        ]
        hits = [
            number in [other for _, other in row] for number, row in zip(true, best, strict=True)
        ]
        np.testing.assert_array_equal(strict_top_k(found, true, guesses), hits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_small_temperature_does_not_enlarge_what_single_precision_loses(dtype):
    rng = np.random.default_rng(0)
    gallery, queries = (rng.standard_normal((n, 16)) for n in (300, 40))
    gallery, queries = (
        (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(dtype) for rows in (gallery, queries)
    )
    labels = rng.integers(0, 7, 300)
    expected = scores_by_sorting(gallery, labels, queries, 10, 0.002, 7)
    np.testing.assert_allclose(
        knn_scores(gallery, labels, queries, 10, 0.002, 7), expected, rtol=1e-10
    )


def test_similarities_are_products_of_embeddings_as_they_are():
    gallery = np.array([[3, 0], [0.5, 0.5], [0, 1]], np.float32)
    found = knn_scores(gallery, [0, 1, 1], np.array([[2.0, 0]]), 3, 2.0, 3)
    np.testing.assert_allclose(found, [[np.exp(3), np.exp(0.5) + 1, 0]], rtol=1e-12)


@pytest.mark.parametrize(("block_rows", "entries"), [(1, 1), (7, 60), (4096, 2**21)])
def test_blocks_change_nothing(block_rows, entries, monkeypatch):
    expected = knn_scores(GALLERY, LABELS, QUERIES, 12, 0.1, 20)
    accuracies = Gallery(GALLERY, LABELS, 20).accuracies(QUERIES, QUERY_LABELS, [3, 12], 0.1)
    monkeypatch.setattr(knn, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(knn, "_GATHERED_ENTRIES", entries)
    monkeypatch.setattr(knn, "_MANY_SIMILARITIES", 0)
    found = knn_scores(GALLERY, LABELS, QUERIES, 12, 0.1, 20)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    gallery = Gallery(GALLERY, LABELS, 20)
    assert gallery.accuracies(QUERIES, QUERY_LABELS, [3, 12], 0.1) == accuracies


def test_accuracies_are_means_of_hits():
    gallery = Gallery(GALLERY, LABELS, 20)
    for found in gallery.accuracies(QUERIES, QUERY_LABELS, [9, 2], 0.1, [1, 2, 7]):
        scores = gallery.scores(QUERIES, found["k"], 0.1)
        assert list(found) == ["k", "top1", "top2", "top7"]
        for guesses in (1, 2, 7):
            hits = strict_top_k(scores, QUERY_LABELS, guesses)
            assert found[f"top{guesses}"] == hits.mean()


def test_a_class_without_a_neighbour_is_no_guess_and_few_classes_do_not_fail():
    scores = np.array([[0, 1, 0], [2, 2, 0], [0, 0, 0]], float)
    for true, k, expected in [
        ([0, 0, 0], 5, [False, True, False]),
        ([1, 1, 1], 1, [True, False, False]),
        ([1, 1, 2], 2, [True, True, False]),
    ]:
        found = strict_top_k(scores, np.array(true, np.int32), k)
        np.testing.assert_array_equal(found, expected)


# --- tensors ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_give_tensors(dtype):
    tensors = [torch.from_numpy(rows).to(dtype) for rows in (GALLERY, QUERIES)]
    gallery, queries = (tensor.requires_grad_() for tensor in tensors)
    found = knn_scores(gallery, torch.from_numpy(LABELS), queries, 30, 0.05, 20)
    assert isinstance(found, torch.Tensor)
    assert (found.dtype, found.device, found.requires_grad) == (
        torch.float64, queries.device, False,
    )  # fmt: skip
    arrays = [tensor.detach().double().numpy() for tensor in (gallery, queries)]
    expected = scores_by_sorting(arrays[0], LABELS, arrays[1], 30, 0.05, 20)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_arrays_do_without_torch(monkeypatch):
    expected = knn_scores(GALLERY, LABELS, QUERIES, 3, 0.05, 20)
    monkeypatch.setitem(sys.modules, "torch", None)
    np.testing.assert_array_equal(knn_scores(GALLERY, LABELS, QUERIES, 3, 0.05, 20), expected)


# --- faults ---


def changed(position, value):
    rows = QUERIES.copy()
    rows[position] = value
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 401}, "k: got 401, but the gallery has only 400 rows"),
        ({"k": 0}, "k: got 0, expected an integer from 1 to 2147483647"),
        ({"temperature": 0}, "temperature: got 0, expected a number above 0"),
        ({"temperature": -0.1}, "temperature: got -0.1, expected a number of at least 0"),
        ({"n_classes": 19}, "gallery_labels: found 19 in row 194, expected 0..18"),
        ({"gallery_labels": LABELS - 1}, "gallery_labels: found -1 in row"),
        ({"gallery_labels": LABELS[1:]}, "gallery_labels: found int16 of shape (399,), expected an "
         "integer for each of 400 rows"),
        ({"gallery_labels": LABELS / 2}, "gallery_labels: found float64 of shape (400,)"),
        ({"queries": QUERIES[:, 1:]}, "queries: 15 columns, but the gallery has 16"),
        ({"queries": QUERIES[0]}, "queries: found shape (16,), expected (rows, columns)"),
        ({"gallery": GALLERY[0]}, "gallery: found shape (16,), expected (rows, columns)"),
        ({"queries": changed((7, 3), np.nan)}, "queries: found NaN or infinite values in 1 row(s), "
         "numbers 7"),
        ({"queries": changed((7, 3), 1).astype(float) * 1e300}, "queries: found NaN or infinite"),
        ({"gallery": GALLERY * np.inf}, "gallery: found NaN or infinite values in 400 row(s)"),
        ({"gallery": torch.full((400, 16), torch.nan)}, "gallery: found NaN"),
        ({"gallery": GALLERY.tolist()}, "gallery: found list, expected a floating-point array or "
         "tensor"),
        ({"queries": QUERIES + 1j}, "queries: found complex64, expected a floating-point array"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(change, message):
    arguments = {
        "gallery": GALLERY, "gallery_labels": LABELS, "queries": QUERIES, "k": 30,
        "temperature": 0.05, "n_classes": 20,
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        knn_scores(**{**arguments, **change})
    assert message in str(caught.value)


def test_a_number_of_numpy_is_a_number_of_neighbours():
    expected = knn_scores(GALLERY, LABELS, QUERIES, 30, 0.05, 20)
    found = knn_scores(GALLERY, LABELS, QUERIES, np.int64(30), 0.05, 20)
    np.testing.assert_array_equal(found, expected)


def test_a_temperature_is_refused_just_where_scores_are_no_numbers():
    gallery, labels = np.ones((3, 1)), [0, 0, 0]
    found = knn_scores(gallery, labels, gallery, 3, 1 / 708, 1)
    assert np.isfinite(found).all()
    for temperature in (1 / 709, 1e-320):
        with pytest.raises(InputError, match=r"^temperature: got .*, expected at least 0\.0014"):
            knn_scores(gallery, labels, gallery, 3, temperature, 1)
    # What points away has small scores, not large ones.
    np.testing.assert_array_equal(knn_scores(gallery, labels, -gallery, 3, 1e-320, 1), 0)


def test_accuracies_want_queries_and_their_classes():
    gallery = Gallery(GALLERY, LABELS, 20)
    with pytest.raises(InputError, match=r"^queries: none"):
        gallery.accuracies(QUERIES[:0], QUERY_LABELS[:0], [1], 0.05)
    with pytest.raises(InputError, match=r"^query_labels: found 20 in row 0, expected 0..19"):
        gallery.accuracies(QUERIES, QUERY_LABELS * 0 + 20, [1], 0.05)
