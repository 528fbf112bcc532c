from itertools import pairwise

import faiss
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from matplotlib.colors import to_hex
from PIL import Image

from lowshot_kedro.images import Picture
from lowshot_kedro.matrices import KnnGraph
from lowshot_kedro.metrics import Scores
from lowshot_kedro.protocol import ImageSelection
from lowshot_kedro.reporting import (
    NeighborRow,
    NodePictures,
    compare_methods,
    frame_color,
    neighbor_rows,
    pictures_worth_showing,
    plot_accuracy_per_step,
    plot_methods,
    plot_neighbors,
    plot_spectrum,
    print_comparison,
)

GROUPS = ("", "_novel", "_base")


def entry(iteration, *percents, top_k=(1,)):
    """Accuracies in the order all, novel, base for each k."""
    names = [f"top{k}{group}" for k in top_k for group in GROUPS]
    values = [None if percent is None else percent / 100 for percent in percents]
    return {"iteration": iteration, **dict(zip(names, values, strict=True))}


def metrics_of(*entries):
    return {"per_iteration": list(entries), "final": entries[-1]}


DIFFUSION = metrics_of(entry(0, 10, 12, 8), entry(1, 40, 50, 30), entry(2, 61.2, 70, 52.4))
BASELINE = metrics_of(entry(500, 20, 25, 15), entry(1000, 55, 45, 65))


# --- table ---


def test_the_table_has_a_row_per_method_and_the_final_accuracies():
    wide = metrics_of(entry(3, 10, 20, 30, 40, 50, 60, top_k=(1, 5)))
    other = metrics_of(entry(7, 1, None, 1, 2, None, 2, top_k=(1, 5)))
    table = compare_methods({"a": wide, "b": other}, [1, 5])
    assert list(table.columns) == [
        "method", "iteration", "top1", "top1_novel", "top1_base", "top5", "top5_novel", "top5_base",
    ]  # fmt: skip
    assert table.iloc[0].tolist() == ["a", 3, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert table["iteration"].tolist() == [3, 7]
    assert table["top1_novel"].isna().tolist() == [False, True]
    assert table["top5_base"].tolist() == [0.6, 0.02]


def test_the_table_takes_the_final_entry_only():
    table = compare_methods({"diffusion": DIFFUSION, "regression": BASELINE}, [1])
    assert table["top1"].tolist() == [0.612, 0.55]
    assert table["iteration"].tolist() == [2, 1000]


@pytest.mark.parametrize(
    "top_k",
    [(1,), (1, 5), (1, 2, 5, 10)],
)
def test_the_printed_table_shows_every_number(capsys, monkeypatch, top_k):
    monkeypatch.setenv("COLUMNS", "80")
    percents = np.linspace(11.1, 98.7, 3 * len(top_k)).round(1).tolist()
    metrics = {"diffusion": metrics_of(entry(29500, *percents, top_k=top_k))}
    experiment = {"mode": "val", "n_labeled": 2, "seed": 17}
    print_comparison(compare_methods(metrics, top_k), experiment)
    printed = capsys.readouterr().out
    for percent in percents:
        assert f"{percent / 100:.3f}" in printed
    for word in ("diffusion", "mode val", "2 labelled", "seed 17"):
        assert word in printed


@pytest.mark.parametrize("others", [(None, 50.0), (None, None)])
def test_a_missing_accuracy_is_printed_as_a_dash(capsys, others):
    metrics = {
        f"method {number}": metrics_of(entry(1, 50.0, novel, 25.0))
        for number, novel in enumerate(others)
    }
    table = compare_methods(metrics, [1])
    print_comparison(table, {"mode": "test", "n_labeled": 1, "seed": 1})
    printed = capsys.readouterr().out
    assert printed.count("–") == others.count(None)
    assert "nan" not in printed.lower()
    assert "none" not in printed.lower()


# --- plots ---


def lines_by_label(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_the_plot_per_step_shows_the_metrics():
    figure = plot_accuracy_per_step(DIFFUSION, BASELINE, 1)
    lines = lines_by_label(figure)
    assert len(lines) == 6
    expected = {"all": [10, 40, 61.2], "novel": [12, 50, 70], "base": [8, 30, 52.4]}
    baseline = {"all": 55, "novel": 45, "base": 65}
    for group, values in expected.items():
        curve = lines[f"diffusion, {group} classes"]
        np.testing.assert_array_equal(curve.get_xdata(), [0, 1, 2])
        np.testing.assert_allclose(curve.get_ydata(), values)
        level = lines[f"logistic regression, {group} classes"]
        np.testing.assert_allclose(level.get_ydata(), baseline[group])
        assert level.get_color() == curve.get_color()
    assert figure.axes[0].get_ylabel() == "top-1 accuracy (%)"
    assert len({to_hex(line.get_color()) for line in lines.values()}) == 3


def test_the_plot_per_step_leaves_out_what_was_not_measured():
    diffusion = metrics_of(entry(0, 10, None, 8), entry(1, 40, None, 30))
    baseline = metrics_of(entry(9, 55, None, 65))
    lines = lines_by_label(plot_accuracy_per_step(diffusion, baseline, 1))
    assert "logistic regression, novel classes" not in lines
    assert np.isnan(lines["diffusion, novel classes"].get_ydata()).all()
    assert len(lines) == 5


def bars(figure):
    return [[bar.get_height() for bar in group] for group in figure.axes[0].containers]


def test_the_bars_are_the_final_accuracies(tmp_path):
    table = compare_methods({"regression": BASELINE, "diffusion": DIFFUSION}, [1])
    figure = plot_methods(table, 1)
    np.testing.assert_allclose(bars(figure), [[55, 61.2], [45, 70], [65, 52.4]])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["regression", "diffusion"]
    numbers = {text.get_text() for text in axes.texts}
    assert numbers == {"55.0", "61.2", "45.0", "70.0", "65.0", "52.4"}
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(edges))


def test_bars_for_missing_accuracies_are_empty(tmp_path):
    missing = metrics_of(entry(1, 50, None, 25))
    table = compare_methods({"a": missing, "b": missing}, [1])
    table.to_csv(tmp_path / "table.csv", index=False)
    for source in (table, pd.read_csv(tmp_path / "table.csv")):
        figure = plot_methods(source, 1)
        heights = np.array(bars(figure))
        np.testing.assert_array_equal(np.isnan(heights[1]), [True, True])
        assert "nan" not in {text.get_text() for text in figure.axes[0].texts}


@pytest.mark.parametrize("k", [1, 5])
def test_plots_show_the_k_asked_for(k):
    wide = metrics_of(entry(3, 10, 20, 30, 40, 50, 60, top_k=(1, 5)))
    height = {1: 10, 5: 40}[k]
    figure = plot_accuracy_per_step(wide, wide, k)
    assert lines_by_label(figure)["diffusion, all classes"].get_ydata() == pytest.approx([height])
    assert bars(plot_methods(compare_methods({"a": wide}, [1, 5]), k))[0] == pytest.approx([height])


# --- pictures ---


def picture(shade):
    return Image.new("RGB", (4, 4), (shade, 0, 0))


def test_the_panel_shows_each_picture_with_its_neighbors():
    rows = [
        NeighborRow(picture(1), "cat", [(picture(2), "cat 0.9", frame_color(3, 3))]),
        NeighborRow(
            picture(3),
            "dog",
            [(picture(4), "0.8", frame_color(None, 1)), (picture(5), "cat", frame_color(2, 1))],
        ),
    ]
    figure = plot_neighbors(rows)
    shown = [axes for axes in figure.axes if axes.images]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in shown] == [1, 2, 3, 4, 5]
    assert [axes.get_title() for axes in shown] == ["cat", "cat 0.9", "dog", "0.8", "cat"]
    frames = [to_hex(axes.spines["left"].get_edgecolor()).upper() for axes in shown]
    colors = [frame_color(3, 3), frame_color(None, 1), frame_color(2, 1)]
    assert frames == ["#000000", colors[0], "#000000", *colors[1:]]
    assert len(figure.axes) == 2 * 3


def test_a_panel_without_rows_is_empty():
    assert not any(axes.images for axes in plot_neighbors([]).axes)


def test_frames_tell_labels_apart():
    assert frame_color(2, 2) == "#009E73"
    assert frame_color(0, 0) == frame_color(2, 2)
    assert frame_color(0, 2) == frame_color(2, 0) == "#E69F00"
    assert frame_color(None, 0) == "#999999"


def scores_of(correct, classes):
    """Scores that recognise exactly the pictures that are said to be."""
    guesses = np.where(correct, classes, (classes + 1) % 10)
    scores = np.zeros((1, len(classes), 10), dtype=np.float32)
    scores[0, np.arange(len(classes)), guesses] = 1
    return Scores(scores, np.array([1]), classes, np.arange(10), np.zeros(10, dtype=bool))


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(0, 40), st.integers(1, 12))
def test_pictures_worth_showing_are_distinct_and_half_of_them_wrong(data, n_images, n_pictures):
    correct = data.draw(st_numpy.arrays(bool, n_images))
    classes = data.draw(st_numpy.arrays(np.int32, n_images, elements=st.integers(0, 5)))
    chosen = pictures_worth_showing(scores_of(correct, classes), n_pictures)

    assert len(chosen) == len(set(chosen.tolist())) == min(n_pictures, n_images)
    assert all(0 <= position < n_images for position in chosen)
    assert (np.diff(classes[chosen]) >= 0).all()
    n_wrong, n_right = int((~correct).sum()), int(correct.sum())
    shown_wrong = int((~correct[chosen]).sum())
    if min(n_wrong, n_right) >= n_pictures:
        assert shown_wrong == n_pictures // 2
    elif n_wrong + n_right >= n_pictures:
        # Where one kind is short, the other fills up.
        assert shown_wrong >= min(n_wrong, n_pictures // 2)
        assert len(chosen) - shown_wrong >= min(n_right, n_pictures // 2)


def test_pictures_worth_showing_spread_over_the_classes():
    classes = np.repeat(np.arange(10, dtype=np.int32), 10)
    chosen = pictures_worth_showing(scores_of(np.zeros(100, dtype=bool), classes), 10)
    assert len(set(classes[chosen].tolist())) >= 9
    assert {classes[chosen].min(), classes[chosen].max()} == {0, 9}


class Numbered:
    """Picture i is all i."""

    def __init__(self, n_pictures):
        self.n_pictures = n_pictures

    def __len__(self):
        return self.n_pictures

    def __getitem__(self, number):
        assert 0 <= number < self.n_pictures
        return Picture(picture(number), 0, None)


SELECTION = ImageSelection(
    classes=np.array([3, 8]),
    class_names=("cat", "dog"),
    is_novel=np.array([False, True]),
    labeled_positions=np.array([40, 41, 12]),
    labeled_classes=np.array([0, 0, 1], dtype=np.int32),
    unlabeled_positions=np.array([20, 21]),
    test_positions=np.array([5, 9]),
    test_classes=np.array([1, 0], dtype=np.int32),
)


@pytest.mark.parametrize("positions, last", [(None, 1), (SELECTION.unlabeled_positions, 21)])
def test_rows_of_neighbours_show_the_pictures_behind_the_nodes(positions, last):
    scores = Scores(
        np.array([[[0.9, 0.1], [0.8, 0.2]]], dtype=np.float32),
        np.array([3]), SELECTION.test_classes, SELECTION.classes, SELECTION.is_novel,
    )  # fmt: skip
    neighbors = KnnGraph(
        np.array([[2, 4, 0], [1, -1, -1]], dtype=np.int32),
        np.array([[0.75, 0.5, 0.25], [0.5, -np.inf, -np.inf]], dtype=np.float32),
    )
    nodes = NodePictures(
        SELECTION, Numbered(50), Numbered(50 if positions is not None else 2), positions
    )
    first, second = neighbor_rows(
        np.array([0, 1]), SELECTION, scores, neighbors, Numbered(10), nodes
    )
    assert (first.picture.getpixel((0, 0))[0], first.title) == (5, "dog\n→ cat")
    assert [(cell[0].getpixel((0, 0))[0], cell[1], cell[2]) for cell in first.neighbors] == [
        (12, "dog 0.75", frame_color(1, 1)),
        (last, "0.50", frame_color(None, 1)),
        (40, "cat 0.25", frame_color(0, 1)),
    ]
    assert [cell[1] for cell in second.neighbors] == ["cat 0.50"]


# --- spectrum of a PCA ---


def pca_of(variances, n_components):
    transform = faiss.PCAMatrix(len(variances), n_components)
    faiss.copy_array_to_vector(np.array(variances, np.float32), transform.eigenvalues)
    return transform


def test_the_spectrum_shows_each_variance_their_sum_and_what_is_kept():
    figure = plot_spectrum(pca_of([500, 250, 150, 100, 0], 2))
    axes, cumulative = figure.axes
    of_each, limit = axes.lines
    (together,) = cumulative.lines
    np.testing.assert_array_equal(of_each.get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_allclose(of_each.get_ydata(), [50, 25, 15, 10, np.nan])
    np.testing.assert_allclose(together.get_ydata(), [50, 75, 90, 100, 100])
    assert set(limit.get_xdata()) == {2}
    assert (axes.get_yscale(), cumulative.get_yscale()) == ("log", "linear")
    assert axes.get_title() == "2 of 5 dimensions keep 75.0 % of the variance"
    figure.canvas.draw()


def test_the_spectrum_leaves_out_what_is_only_rounding():
    axes, _ = plot_spectrum(pca_of([1, 1e-6, 1e-8, -1e-8], 2)).axes
    shown = np.isfinite(axes.lines[0].get_ydata())
    np.testing.assert_array_equal(shown, [True, True, False, False])


@pytest.mark.parametrize("transform", [faiss.OPQMatrix(8, 2), faiss.PCAMatrix(8, 2)])
def test_a_transform_without_a_spectrum_says_so(transform):
    figure = plot_spectrum(transform)
    (axes,) = figure.axes
    assert axes.texts[0].get_text() == f"{type(transform).__name__}: spectrum not known"
    figure.canvas.draw()
