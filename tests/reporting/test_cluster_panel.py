"""What a panel of clusters says, and how sharp its images are."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.deepercluster.panel import ChosenClusters, ShownCluster
from lowshot_kedro.images import LoadedImage
from lowshot_kedro.reporting import cluster_panel, plot_cluster_panel

CHECKERS = (np.indices((28, 28)).sum(0) % 2 * 255).astype(np.uint8)


def large(size):
    """A wide image of one colour with a line of another, a two hundredth of it."""
    image = Image.new("RGB", size, (200, 100, 50))
    image.paste((0, 0, 0), (size[0] // 2, 0, size[0] // 2 + size[0] // 100, size[1]))
    return image


IMAGES = {
    0: Image.fromarray(CHECKERS),
    1: large((4000, 1000)),
    2: large((300, 900)),
    3: Image.new("L", (28, 28), 128),
    5: Image.new("RGB", (1, 1), (1, 2, 3)),
    6: Image.new("RGB", (5000, 1), (1, 2, 3)),
}


class Images:
    def __len__(self):
        return 7

    def __getitem__(self, number):
        if number not in IMAGES:
            return LoadedImage(Image.new("RGB", (256, 256)), 0, "4.jpg: gone")
        return LoadedImage(IMAGES[number].convert("RGB"), 0, None)


def cluster(super_cluster, number, size, mean, numbers, repeats=0.0):
    return ShownCluster(super_cluster, number, size, mean, repeats, np.array(numbers))


LARGEST = cluster(3, 17, 1234, 0.51234, [0, 1, 4], 0.376)
TIGHT = cluster(0, 2, 1, 0.05, [2, 3])


def chosen(largest=(LARGEST,), tightest=(TIGHT,), n_clusters=64, n_super_clusters=4):
    return ChosenClusters(largest, tightest, 10_000, n_clusters, n_super_clusters)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_each_row_says_what_its_cluster_is():
    said = texts(plot_cluster_panel(Images(), chosen()))
    assert said[0] == "10,000 images in 64 clusters in 4 super-clusters"
    assert said[2:] == [
        "The largest",
        "super 3 · cluster 17", "1,234 images (12 %)", "mean distance 0.512", "38% repeats",
        "blank",
        "The tightest: the smallest mean distance from the centroid",
        "super 0 · cluster 2", "1 image (0.01 %)", "mean distance 0.050",
    ]  # fmt: skip


def test_super_clusters_are_not_named_where_there_is_but_one():
    said = texts(plot_cluster_panel(Images(), chosen(n_clusters=1, n_super_clusters=1)))
    assert said[0] == "10,000 images in 1 cluster"
    assert "cluster 17" in said and "super" not in " ".join(said)


def shown_images(*numbers):
    figure = plot_cluster_panel(Images(), chosen((cluster(0, 0, 9, 0.5, numbers),), ()))
    figure.draw_without_rendering()
    return [image.get_array() for image in figure.axes[0].images], figure


def test_pixels_of_a_small_image_stay_squares():
    (shown,), _ = shown_images(0)
    assert shown.shape == (196, 196, 3)
    np.testing.assert_array_equal(shown[::7, ::7, 0], CHECKERS)
    np.testing.assert_array_equal(shown[6::7, 6::7, 0], CHECKERS)


def test_a_large_image_is_small_and_keeps_its_shape_and_lines():
    (wide, high), figure = shown_images(1, 2)
    assert (wide.shape, high.shape) == ((50, 200, 3), (200, 67, 3))
    assert wide[0, 0].tolist() == [200, 100, 50]
    assert wide[25, :, 0].min() < 20
    for image, ratio in zip(figure.axes[0].images, (4, 1 / 3), strict=True):
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(ratio, rel=0.02)
        assert max(right - left, bottom - top) == pytest.approx(cluster_panel._CELL)


def test_gray_looks_gray_and_blank_ones_are_marked_not_black():
    (gray,), figure = shown_images(4, 3)
    assert np.ptp(gray) == 0 and gray[0, 0].tolist() == [128] * 3
    (mark,) = figure.axes[0].patches
    (written,) = [text for text in figure.axes[0].texts if text.get_text() == "blank"]
    assert mark.get_bbox().contains(*written.get_position())


def test_images_of_odd_sizes():
    shown, _ = shown_images(5, 6)
    assert [image.shape for image in shown] == [(200, 200, 3), (1, 200, 3)]


def test_images_of_a_row_stand_in_order_behind_the_text():
    largest = cluster(15, 319_999, 12_345_678, 0.012345, [0, 3, 0, 3], 0.99)
    figure = plot_cluster_panel(Images(), ChosenClusters((largest,), (), 95_920_149, 320_000, 4))
    (axes,) = figure.axes
    edges = [image.get_extent()[:2] for image in axes.images]
    assert all(left[1] < right[0] for left, right in pairwise(edges))
    assert edges[-1][1] < figure.get_figwidth()
    figure.draw_without_rendering()
    lines = {text.get_text(): text for text in axes.texts}
    for said in ("super 15 · cluster 319999", "12,345,678 images (13 %)", "99% repeats"):
        end = axes.transData.inverted().transform(lines[said].get_window_extent().max)[0]
        assert end < edges[0][0]


def test_where_nothing_is_tight_the_panel_says_so():
    said = texts(plot_cluster_panel(Images(), chosen(tightest=())))
    assert "none: each has one image, or more than half of its images repeat another one" in said


@pytest.mark.parametrize(
    "without, said", [(None, "nothing but rotations"), (chosen((), ()), "no cluster has an image")]
)
def test_without_clusters_there_is_a_figure_that_says_so(without, said):
    assert said in texts(plot_cluster_panel(Images(), without))[0]
