import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from lowshot_kedro.images import LoadedImage
from lowshot_kedro.reporting import (
    EmbeddedImages,
    frame_color,
    nearest_image_rows,
    nearest_images,
    plot_nearest_images,
)


class Numbered:
    """Image i is all i."""

    def __init__(self, labels):
        self.labels = np.array(labels, np.int32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, number):
        return LoadedImage(Image.new("RGB", (4, 4), (number, 0, 0)), 0, None)


def shade(image):
    return image.getpixel((0, 0))[0]


def embedded(labels, *rows):
    return EmbeddedImages(Numbered(labels), np.array(rows, np.float32))


NAMES = ["ant", "bee", "cat", "a very long name"]
# Classes 1 and 3 along the axes.
GALLERY = embedded([1, 3, 1, 3], [1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8])
QUERIES = embedded([1, 0, 1, 3], [1, 0], [1, 0], [0, 1], [0.28, 0.96])


def test_rows_show_right_and_wrong_images_with_what_is_most_similar():
    rows = nearest_image_rows(QUERIES, GALLERY, NAMES, 0.05, n_neighbors=3)
    # Image 1 is of a class that nothing is compared with.
    assert [shade(row.image) for row in rows] == [2, 0, 3]
    assert [row.title for row in rows] == ["bee\n→ a very long…", "bee", "a very long…"]
    assert [(shade(image), *rest) for image, *rest in rows[0].neighbors] == [
        (1, "✗ 1.00\na very long…", frame_color(3, 1)),
        (3, "✗ 0.80\na very long…", frame_color(3, 1)),
        (2, "✓ 0.60\nbee", frame_color(1, 1)),
    ]
    assert [len(row.neighbors) for row in nearest_image_rows(QUERIES, GALLERY, [], 0.05)] == [4] * 3
    assert nearest_image_rows(QUERIES, GALLERY, [], 0.05)[0].title == "1\n→ 3"


def test_names_of_some_classes_have_a_star_that_the_panel_explains():
    rows = nearest_image_rows(QUERIES, GALLERY, NAMES, 0.05, n_neighbors=3, starred=[3])
    assert [row.title for row in rows] == ["bee\n→ a very long…*", "bee", "a very long…*"]
    assert rows[0].neighbors[0][1] == "✗ 1.00\na very long…*"
    assert "* novel" in plot_nearest_images(rows, "novel").get_suptitle()
    assert "*" not in plot_nearest_images(rows).get_suptitle()


def test_half_of_the_images_are_wrong_ones_and_the_same_each_time(monkeypatch):
    rng = np.random.default_rng(0)
    gallery = embedded(np.arange(60) % 5, *rng.standard_normal((60, 8)))
    queries = embedded(np.arange(200) % 5, *rng.standard_normal((200, 8)))
    rows = nearest_image_rows(queries, gallery, [*NAMES, "eel"], 1.0, n_queries=6)
    assert sum("→" in row.title for row in rows) == 3
    assert all(len(row.neighbors) == 20 for row in rows)
    again = nearest_image_rows(queries, gallery, [*NAMES, "eel"], 1.0, n_queries=6)
    assert [shade(row.image) for row in again] == [shade(row.image) for row in rows]
    monkeypatch.setattr(nearest_images, "_MAX_CLASSIFIED", 10)
    fewer = nearest_image_rows(queries, gallery, [], 1.0, n_queries=50)
    assert sorted(shade(row.image) for row in fewer) == [*range(0, 200, 20)]


def test_without_an_image_of_a_known_class_there_is_nothing_to_show():
    queries = embedded([0], [1, 0])
    assert nearest_image_rows(queries, GALLERY, NAMES, 0.05) == []


@pytest.mark.parametrize("names", [NAMES, ["$5", "$x_1", "東京", "\n"]])
def test_the_panel_shows_similarities_below_the_images(names):
    rows = nearest_image_rows(QUERIES, GALLERY, names, 0.05)
    figure = plot_nearest_images(rows)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 3 * 5
    for row, line in zip(rows, np.array(shown).reshape(3, 5), strict=True):
        assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in line] == [
            shade(row.image), *(shade(image) for image, *_ in row.neighbors),
        ]  # fmt: skip
        for axes, (_, caption, color) in zip(line[1:], row.neighbors, strict=True):
            assert axes.get_title() == ""
            assert axes.get_xlabel().split("\n")[0] == caption.split("\n")[0]
            assert to_hex(axes.spines["left"].get_edgecolor()).upper() == color
    figure.canvas.draw()


def test_a_panel_without_rows_is_empty():
    assert not any(axes.images for axes in plot_nearest_images([]).axes)
