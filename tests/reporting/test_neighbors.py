import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from matplotlib.colors import to_hex
from PIL import Image

from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.images import LoadedImage
from lowshot_kedro.metrics import Scores
from lowshot_kedro.protocol import ImageSelection
from lowshot_kedro.reporting import (
    NeighborRow,
    NodeImages,
    frame_color,
    images_worth_showing,
    neighbor_rows,
    plot_neighbors,
)


def image(shade):
    return Image.new("RGB", (4, 4), (shade, 0, 0))


def test_the_panel_shows_each_image_with_its_neighbors():
    rows = [
        NeighborRow(image(1), "cat", [(image(2), "cat 0.9", frame_color(3, 3))]),
        NeighborRow(
            image(3),
            "dog",
            [(image(4), "0.8", frame_color(None, 1)), (image(5), "cat", frame_color(2, 1))],
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
    """Scores that recognise exactly the images that are said to be."""
    guesses = np.where(correct, classes, (classes + 1) % 10)
    scores = np.zeros((1, len(classes), 10), dtype=np.float32)
    scores[0, np.arange(len(classes)), guesses] = 1
    return Scores(scores, np.array([1]), classes, np.arange(10), np.zeros(10, dtype=bool))


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(0, 40), st.integers(1, 12))
def test_images_worth_showing_are_distinct_and_half_of_them_wrong(data, n_images, n_shown):
    correct = data.draw(st_numpy.arrays(bool, n_images))
    classes = data.draw(st_numpy.arrays(np.int32, n_images, elements=st.integers(0, 5)))
    chosen = images_worth_showing(scores_of(correct, classes), n_shown)

    assert len(chosen) == len(set(chosen.tolist())) == min(n_shown, n_images)
    assert all(0 <= position < n_images for position in chosen)
    assert (np.diff(classes[chosen]) >= 0).all()
    n_wrong, n_right = int((~correct).sum()), int(correct.sum())
    shown_wrong = int((~correct[chosen]).sum())
    if min(n_wrong, n_right) >= n_shown:
        assert shown_wrong == n_shown // 2
    elif n_wrong + n_right >= n_shown:
        # Where one kind is short, the other fills up.
        assert shown_wrong >= min(n_wrong, n_shown // 2)
        assert len(chosen) - shown_wrong >= min(n_right, n_shown // 2)


def test_images_worth_showing_spread_over_the_classes():
    classes = np.repeat(np.arange(10, dtype=np.int32), 10)
    chosen = images_worth_showing(scores_of(np.zeros(100, dtype=bool), classes), 10)
    assert len(set(classes[chosen].tolist())) >= 9
    assert {classes[chosen].min(), classes[chosen].max()} == {0, 9}


class Numbered:
    """LoadedImage i is all i."""

    def __init__(self, n_shown):
        self.n_shown = n_shown

    def __len__(self):
        return self.n_shown

    def __getitem__(self, number):
        assert 0 <= number < self.n_shown
        return LoadedImage(image(number), 0, None)


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


@pytest.mark.parametrize(
    ("unlabeled", "node", "shown"),
    [("background", 4, 1), ("train", 4, 21), ("both", 4, 21), ("both", 6, 1)],
)
def test_rows_of_neighbours_show_the_images_behind_the_nodes(unlabeled, node, shown):
    scores = Scores(
        np.array([[[0.9, 0.1], [0.8, 0.2]]], dtype=np.float32),
        np.array([3]), SELECTION.test_classes, SELECTION.classes, SELECTION.is_novel,
    )  # fmt: skip
    neighbors = KnnGraph(
        np.array([[2, node, 0], [1, -1, -1]], dtype=np.int32),
        np.array([[0.75, 0.5, 0.25], [0.5, -np.inf, -np.inf]], dtype=np.float32),
    )
    nodes = NodeImages(SELECTION, Numbered(50), Numbered(2), unlabeled)
    first, second = neighbor_rows(
        np.array([0, 1]), SELECTION, scores, neighbors, Numbered(10), nodes
    )
    assert (first.image.getpixel((0, 0))[0], first.title) == (5, "dog\n→ cat")
    assert [(cell[0].getpixel((0, 0))[0], cell[1], cell[2]) for cell in first.neighbors] == [
        (12, "dog 0.75", frame_color(1, 1)),
        (shown, "0.50", frame_color(None, 1)),
        (40, "cat 0.25", frame_color(0, 1)),
    ]
    assert [cell[1] for cell in second.neighbors] == ["cat 0.50"]
