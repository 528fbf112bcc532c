import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from lowshot_kedro import metrics
from lowshot_kedro.metrics import (
    Scores,
    accuracies,
    accuracies_per_iteration,
    build_metrics,
    log_top_k_left_out,
    telling_top_k,
    top_k_hits,
)
from lowshot_kedro.protocol import ClassSplit, select_images

# Four test images of classes 0 (base), 1 and 2 (novel); ranks of the true classes: 1, 2, 3, 1.
SCORES = np.array([[3, 2, 1], [3, 2, 1], [3, 2, 1], [0, 0, 5]], dtype=np.float32)
TEST_CLASSES = np.array([0, 1, 2, 2], dtype=np.int32)
IS_NOVEL = np.array([False, True, True])


def scores_of(per_iteration, iterations=None):
    per_iteration = np.asarray(per_iteration, dtype=np.float32)
    iterations = np.arange(len(per_iteration)) if iterations is None else np.array(iterations)
    return Scores(per_iteration, iterations, TEST_CLASSES, np.array([4, 7, 9]), IS_NOVEL)


# --- hits ---


@st.composite
def scored_images(draw):
    n_images, n_classes = draw(st.integers(0, 12)), draw(st.integers(1, 6))
    values = st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0, np.inf])
    scores = draw(st_numpy.arrays(np.float32, (n_images, n_classes), elements=values))
    classes = draw(st_numpy.arrays(np.int32, n_images, elements=st.integers(0, n_classes - 1)))
    return scores, classes


@settings(deadline=None, max_examples=150)
@given(scored_images(), st.integers(1, 8))
def test_hits_are_those_of_sorting_by_score_then_class(images, k):
    scores, classes = images
    expected = []
    for row, true_class in zip(scores.tolist(), classes.tolist(), strict=True):
        ranked = sorted(range(len(row)), key=lambda number, row=row: (-row[number], number))
        expected.append(true_class in ranked[:k])
    assert top_k_hits(scores, classes, k).tolist() == expected


def test_ties_go_to_the_lowest_class():
    tied = np.zeros((3, 3), dtype=np.float32)
    assert top_k_hits(tied, np.arange(3, dtype=np.int32), 1).tolist() == [True, False, False]
    assert top_k_hits(tied, np.arange(3, dtype=np.int32), 2).tolist() == [True, True, False]


def test_hits_do_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 6)).astype(np.float32)
    classes = rng.integers(0, 6, 50).astype(np.int32)
    whole = top_k_hits(scores, classes, 2)
    assert 0 < whole.sum() < 50
    monkeypatch.setattr(metrics, "_BLOCK_ROWS", 7)
    assert np.array_equal(top_k_hits(scores, classes, 2), whole)


def test_nan_is_refused_with_its_row(monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_ROWS", 2)
    scores = SCORES.copy()
    scores[3, 1] = np.nan
    with pytest.raises(ValueError, match="scores: found NaN in row 3; expected numbers"):
        top_k_hits(scores, TEST_CLASSES, 1)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 1, 2, 3], r"test_classes: found 0\.\.3, expected 0\.\.2"),
        ([0, -1, 2, 2], r"test_classes: found -1\.\.2, expected 0\.\.2"),
        ([0, 1], "scores: 4 rows, but 2 true classes"),
    ],
)
def test_classes_that_do_not_fit_the_scores_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        top_k_hits(SCORES, np.array(classes, dtype=np.int32), 1)


# --- accuracies ---


def test_accuracies_of_all_novel_and_base_images():
    assert accuracies(SCORES, TEST_CLASSES, IS_NOVEL, [1, 2]) == {
        "top1": 2 / 4, "top1_novel": 1 / 3, "top1_base": 1.0,
        "top2": 3 / 4, "top2_novel": 2 / 3, "top2_base": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("is_novel", "expected"),
    [([True] * 3, (0.5, 0.5, None)), ([False] * 3, (0.5, None, 0.5))],
)
def test_a_group_without_images_has_no_accuracy(is_novel, expected):
    found = accuracies(SCORES, TEST_CLASSES, np.array(is_novel), [1])
    assert (found["top1"], found["top1_novel"], found["top1_base"]) == expected


def test_a_novel_class_without_test_images_does_not_count():
    found = accuracies(SCORES[:1], TEST_CLASSES[:1], IS_NOVEL, [1])
    assert found == {"top1": 1.0, "top1_novel": None, "top1_base": 1.0}


def test_accuracies_per_iteration_keep_their_numbers():
    zeros = np.zeros_like(SCORES)
    found = accuracies_per_iteration(scores_of([zeros, SCORES], [0, 3]), [1])
    assert [(entry["iteration"], entry["top1"]) for entry in found] == [(0, 0.25), (3, 0.5)]
    assert all(type(entry["iteration"]) is int for entry in found)


# --- Scores ---


def test_scores_survive_the_way_through_arrays():
    scores = scores_of([np.zeros_like(SCORES), SCORES])
    arrays = scores.to_arrays()
    assert np.array_equal(arrays["scores"], SCORES)
    back = Scores.from_arrays(arrays)
    for name in ("scores_per_iteration", "iterations", "test_classes", "classes", "is_novel"):
        assert np.array_equal(getattr(back, name), getattr(scores, name))
        assert getattr(back, name).dtype == getattr(scores, name).dtype


def test_scores_of_a_selection_take_its_test_images():
    split = ClassSplit(np.array([4]), np.array([7]), ())
    selection = select_images(split, np.array([4, 7, 7]), np.array([7, 5, 4]), 1, seed=0)
    per_iteration = np.zeros((1, 2, 2), dtype=np.float32)
    scores = Scores.of_selection(per_iteration, [9], selection)
    assert scores.iterations.tolist() == [9]
    assert scores.test_classes.tolist() == [1, 0]
    assert scores.classes.tolist() == [4, 7]
    assert scores.is_novel.tolist() == [False, True]
    assert scores.scores.shape == (2, 2)


# --- metrics file ---


@pytest.fixture
def diffusion_metrics():
    scores = scores_of([np.zeros_like(SCORES), SCORES])
    return build_metrics(
        scores,
        accuracies_per_iteration(scores, [1, 5]),
        experiment={"mode": "test", "seed": 1},
        n_nodes=12,
        seconds={"graph": 0.5, "diffusion": 0.25},
        peak_rss_bytes=1024,
    )


def test_the_metrics_file_has_the_agreed_shape(diffusion_metrics):
    entry = {"iteration", "top1", "top5", "top1_novel", "top5_novel", "top1_base", "top5_base"}
    assert set(diffusion_metrics) == {
        "experiment", "n_classes", "n_novel", "n_test", "n_nodes", "per_iteration", "final",
        "seconds", "peak_rss_bytes",
    }  # fmt: skip
    assert all(set(found) == entry for found in diffusion_metrics["per_iteration"])
    assert diffusion_metrics["final"] == diffusion_metrics["per_iteration"][-1]
    assert diffusion_metrics["final"]["top1"] == 0.5
    counts = [diffusion_metrics[name] for name in ("n_classes", "n_novel", "n_test", "n_nodes")]
    assert counts == [3, 2, 4, 12]
    assert diffusion_metrics["experiment"] == {"mode": "test", "seed": 1}
    assert diffusion_metrics["seconds"] == {"graph": 0.5, "diffusion": 0.25}
    assert diffusion_metrics["peak_rss_bytes"] == 1024


def test_metrics_can_be_written_as_json(diffusion_metrics):
    assert json.loads(json.dumps(diffusion_metrics)) == diffusion_metrics


def test_the_final_entry_is_a_copy(diffusion_metrics):
    diffusion_metrics["final"]["top1"] = -1
    assert diffusion_metrics["per_iteration"][-1]["top1"] == 0.5


@pytest.mark.parametrize(
    ("top_k", "n_classes", "telling"),
    [
        ((1, 5), 10, (1, 5)), ((1, 5), 6, (1, 5)), ((1, 5), 5, (1,)), ((1, 5), 4, (1,)),
        ((1, 2, 3, 4), 4, (1, 2, 3)), ((5, 7), 4, (5,)), ((1,), 1, (1,)),
    ],
)  # fmt: skip
def test_who_may_guess_all_classes_is_always_right(caplog, top_k, n_classes, telling):
    assert telling_top_k(top_k, n_classes) == telling
    rng = np.random.default_rng(0)
    scores = rng.random((40, n_classes), dtype=np.float32)
    truth = rng.integers(0, n_classes, 40).astype(np.int32)
    found = accuracies(scores, truth, np.ones(n_classes, bool), top_k)
    # Those that are asked for are there, left out of tables or not.
    assert all(found[f"top{k}"] == 1 for k in top_k if k >= n_classes)
    caplog.set_level("INFO")
    log_top_k_left_out(top_k, n_classes)
    if telling[0] < n_classes:
        assert [f"top-{k}" in caplog.text for k in top_k] == [k not in telling for k in top_k]
    else:
        assert f"top_k: {list(top_k)}, but with {n_classes} classes" in caplog.text
