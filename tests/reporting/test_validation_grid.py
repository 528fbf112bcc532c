import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from lowshot_kedro.reporting import plot_validation_grid


def regression_row(n_labeled, seed, lr, weight_decay, batch_size, iteration, metric):
    return {
        "method": "logistic_regression", "unlabeled": "", "n_labeled": n_labeled, "seed": seed,
        "lr": lr, "weight_decay": weight_decay, "batch_size": batch_size, "k": math.nan,
        "edge_weight": None, "iteration": iteration, "weight": math.nan, "metric": metric,
        "metric_name": "top5_novel",
    }  # fmt: skip


def diffusion_row(n_labeled, seed, unlabeled, k, iteration, metric, edge_weight="constant"):
    return {
        "method": "diffusion", "unlabeled": unlabeled, "n_labeled": n_labeled, "seed": seed,
        "lr": math.nan, "weight_decay": math.nan, "batch_size": math.nan, "k": k,
        "edge_weight": edge_weight, "iteration": iteration, "weight": math.nan, "metric": metric,
        "metric_name": "top5_novel",
    }  # fmt: skip


def chosen_of(*rows):
    """What was chosen: rows of the validation without seed and metric."""
    return pd.DataFrame(rows).drop(columns=["seed", "metric", "metric_name"])


def regression(n_labeled=(1,), batch_sizes=(16, 64)):
    """Seeds 1 and 2, 100 and 200 iterations. Mean over the seeds, in percent:

    lr 0.1: 20 and 20, lr 0.01: 30 and 40; with weight decay 2 less, with batch 64 1 more, 5 more
    for every further labelled image.
    """
    means = {(0.1, 100): 20, (0.1, 200): 20, (0.01, 100): 30, (0.01, 200): 40}
    return [
        regression_row(
            n, seed, lr, decay, size, iteration,
            (mean + (3 if seed == 1 else -3) - 2 * (decay > 0) + (size == 64) + 5 * (n - 1)) / 100,
        )
        for (lr, iteration), mean in means.items()
        for n in n_labeled
        for decay in (0, 0.01)
        for size in batch_sizes
        for seed in (1, 2)
    ]  # fmt: skip


def diffusion(n_labeled=(1,), unlabeled=("nbgall", "nbg0"), k=(30,), n_steps=3):
    """Seeds 1 and 2, mean 10 percent, 10 more with background, 1 per step, 2 less for k = 10."""
    return [
        diffusion_row(
            n, seed, name, neighbors, step,
            (10 + 10 * (name == "nbgall") + step - 2 * (neighbors == 10) + (2 * seed - 3)) / 100,
        )
        for n in n_labeled
        for name in unlabeled
        for neighbors in k
        for step in range(n_steps)
        for seed in (1, 2)
    ]  # fmt: skip


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.images}


def values_of(axes):
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def texts_of(axes):
    """By (row, column)."""
    return {(text.get_position()[1], text.get_position()[0]): text for text in axes.texts}


def framed_cells(axes):
    """(row, column) of the cells with a frame."""
    for frame in axes.patches:
        assert (frame.get_width(), frame.get_height(), frame.get_fill()) == (1, 1, False)
    return [(frame.get_y() + 0.5, frame.get_x() + 0.5) for frame in axes.patches]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_cell_holds_the_best_mean_over_the_seeds_and_its_iterations():
    chosen = chosen_of(regression_row(1, 0, 0.01, 0, 64, 200, 0))
    found = panels(plot_validation_grid(pd.DataFrame(regression()), chosen))
    assert list(found) == [
        "logistic regression, n=1, batch 16",
        "logistic regression, n=1, batch 64",
    ]
    for (title, axes), more in zip(found.items(), (0, 1), strict=True):
        assert tick_labels(axes.yaxis) == ["0.01", "0.1"], title
        assert tick_labels(axes.xaxis) == ["0", "0.01"]
        assert (axes.get_ylabel(), axes.get_xlabel()) == ("learning rate", "weight decay")
        np.testing.assert_allclose(
            values_of(axes), [[40 + more, 38 + more], [20 + more, 18 + more]]
        )
        texts = {place: text.get_text() for place, text in texts_of(axes).items()}
        # The best seed alone would have 43; of equal accuracies, the fewest iterations.
        assert texts[0, 0] == f"{40 + more}.0\nafter 200"
        assert texts[1, 1] == f"{18 + more}.0\nafter 100"
        assert len(texts) == 4
    first, second = found.values()
    assert (framed_cells(first), framed_cells(second)) == ([], [(0, 0)])


def test_every_n_labeled_has_a_row_of_panels_and_all_share_their_colours():
    rows = regression(n_labeled=(1, 2, 5)) + diffusion(n_labeled=(1, 2, 5))
    chosen = chosen_of(
        regression_row(1, 0, 0.01, 0, 64, 200, 0),
        regression_row(2, 0, 0.1, 0.01, 16, 100, 0),
        diffusion_row(5, 0, "nbg0", 30, 2, 0),
        diffusion_row(5, 0, "nbgall", 30, 1, 0),
    )
    figure = plot_validation_grid(pd.DataFrame(rows), chosen)
    found = panels(figure)
    assert list(found) == [
        *(f"logistic regression, n={n}, batch {size}" for n in (1, 2, 5) for size in (16, 64)),
        *(f"diffusion, n={n}" for n in (1, 2, 5)),
    ]
    FigureCanvasAgg(figure).draw()
    boxes = {title: axes.get_window_extent() for title, axes in found.items()}
    heights = [boxes[f"logistic regression, n={n}, batch 16"].y0 for n in (1, 2, 5)]
    assert heights == sorted(heights, reverse=True)
    left, right = (boxes[f"logistic regression, n=2, batch {size}"] for size in (16, 64))
    assert left.y0 == pytest.approx(right.y0)
    assert left.x1 < right.x0
    (limits,) = {axes.images[0].get_clim() for axes in found.values()}
    # The worst is diffusion without background before the first step, the best n=5 at 41 + 20.
    assert limits == pytest.approx((10, 61))
    assert {axes.images[0].get_cmap().name for axes in found.values()} == {"cividis"}
    frames = {title: framed_cells(axes) for title, axes in found.items() if axes.patches}
    assert frames == {
        "logistic regression, n=1, batch 64": [(0, 0)],
        "logistic regression, n=2, batch 16": [(1, 1)],
        "diffusion, n=5": [(0, 2), (1, 1)],
    }


def test_panels_of_one_batch_size_stand_in_one_row():
    rows = regression(n_labeled=(1, 2), batch_sizes=(64,))
    figure = plot_validation_grid(pd.DataFrame(rows), pd.DataFrame())
    FigureCanvasAgg(figure).draw()
    left, right = (axes.get_window_extent() for axes in panels(figure).values())
    assert left.y0 == pytest.approx(right.y0)
    assert left.x1 < right.x0


@pytest.mark.parametrize(
    ("unlabeled", "k", "names", "values"),
    [
        (
            ("nbgall", "nbg0"), (30,), ["no background", "all background"],
            [[10, 11, 12], [20, 21, 22]],
        ),
        (("nbg0",), (30, 10), ["k=10", "k=30"], [[8, 9, 10], [10, 11, 12]]),
        (("nbg0",), (30,), ["no background"], [[10, 11, 12]]),
        (
            ("nbgall", "nbg0"), (10, 30),
            [
                "no background, k=10", "no background, k=30", "all background, k=10",
                "all background, k=30",
            ],
            [[8, 9, 10], [10, 11, 12], [18, 19, 20], [20, 21, 22]],
        ),
    ],
)  # fmt: skip
def test_rows_of_the_diffusion_are_what_differs_and_columns_the_steps(unlabeled, k, names, values):
    rows = diffusion(unlabeled=unlabeled, k=k)
    chosen = chosen_of(diffusion_row(1, 0, unlabeled[0], k[0], 1, 0))
    (axes,) = panels(plot_validation_grid(pd.DataFrame(rows), chosen)).values()
    assert tick_labels(axes.yaxis) == names
    assert tick_labels(axes.xaxis) == ["0", "1", "2"]
    np.testing.assert_allclose(values_of(axes), values)
    ((row, column),) = framed_cells(axes)
    assert values[int(row)][int(column)] == 10 * len(unlabeled) + 1 - 2 * (k[0] == 10)
    texts = texts_of(axes)
    assert {place: text.get_text() for place, text in texts.items()} == {
        place: f"{value}.0" for place, value in np.ndenumerate(np.array(values))
    }


def test_what_was_not_possible_with_a_number_of_labels_has_no_row():
    rows = [
        *diffusion(n_labeled=(1,), unlabeled=("nbgall",), k=(10,)),
        *diffusion(n_labeled=("all",), k=(10, 30)),
    ]
    drawn = panels(plot_validation_grid(pd.DataFrame(rows), chosen_of(rows[0])))
    assert list(drawn) == ["diffusion, n=1", "diffusion, n=all"]
    assert values_of(drawn["diffusion, n=1"]).shape == (1, 3)
    names = [label.get_text() for label in drawn["diffusion, n=1"].get_yticklabels()]
    assert names == ["all background, k=10"]
    assert values_of(drawn["diffusion, n=all"]).shape == (4, 3)
    for axes in drawn.values():
        assert np.isfinite(values_of(axes)).all()


def test_edge_weights_are_rows_of_their_own():
    rows = [
        diffusion_row(1, 1, "nbg0", 30, step, (percent + step) / 100, edge_weight)
        for edge_weight, percent in (("locally_scaled", 40), ("constant", 30))
        for step in (0, 1)
    ]
    chosen = chosen_of(diffusion_row(1, 0, "nbg0", 30, 1, 0, "locally_scaled"))
    (axes,) = panels(plot_validation_grid(pd.DataFrame(rows), chosen)).values()
    assert tick_labels(axes.yaxis) == ["constant", "locally scaled"]
    np.testing.assert_allclose(values_of(axes), [[30, 31], [40, 41]])
    assert framed_cells(axes) == [(1, 1)]


def contrast(color, background):
    """As the Web Content Accessibility Guidelines define it, from 1 to 21."""

    def luminance(rgb):
        rgb = np.array(rgb)
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    darker, lighter = sorted((luminance(color), luminance(background)))
    return (lighter + 0.05) / (darker + 0.05)


def test_numbers_are_legible_on_dark_and_bright_cells():
    rows = diffusion(n_steps=60, unlabeled=("nbg0",))
    (axes,) = panels(plot_validation_grid(pd.DataFrame(rows), pd.DataFrame())).values()
    image = axes.images[0]
    contrasts = [
        contrast(to_rgb(text.get_color()), image.to_rgba(values_of(axes)[place])[:3])
        for place, text in texts_of(axes).items()
    ]
    assert len(contrasts) == 60
    assert min(contrasts) >= 4.4
    assert len({text.get_color() for text in axes.texts}) == 2


def overlapping(boxes):
    boxes = sorted(boxes, key=lambda box: box.x0)
    return [
        (left, right)
        for left, right in pairwise(boxes)
        if left.x1 > right.x0 and left.y0 < right.y1 and right.y0 < left.y1
    ]


def test_the_published_grid_stays_readable():
    numbers = (1, 2, 5, 10, 20)
    rows = [
        regression_row(n, 1, lr, decay, size, 29500, 0.1)
        for n in numbers
        for lr in (0.01, 0.001, 0.0001)
        for decay in (0, 0.01, 0.1)
        for size in (16, 64, 128)
    ]
    sizes = ("nbg0", "nbg100000", "nbg1000000", "nbg10000000", "nbg100000000")
    rows += [
        diffusion_row(n, 1, name, 30, step, 1 - step / 100)
        for n in numbers for name in sizes for step in range(41)
    ]  # fmt: skip
    figure = plot_validation_grid(pd.DataFrame(rows), pd.DataFrame())
    FigureCanvasAgg(figure).draw()
    found = panels(figure)
    assert len(found) == 5 * 3 + 5
    for title in ("logistic regression, n=20, batch 128", "diffusion, n=1"):
        axes = found[title]
        assert len(axes.texts) == (41 * 5 if "diffusion" in title else 9)
        cell = axes.get_window_extent()
        n_rows, n_columns = values_of(axes).shape
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.width < cell.width / n_columns and box.height < cell.height / n_rows
        assert not overlapping([label.get_window_extent() for label in axes.get_xticklabels()])
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert box.x0 >= -1 and box.y0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_more_steps_than_anybody_can_read_have_no_numbers():
    rows = diffusion(n_steps=400)
    (axes,) = panels(plot_validation_grid(pd.DataFrame(rows), pd.DataFrame())).values()
    assert values_of(axes).shape == (2, 400)
    assert not axes.texts
    assert len(axes.get_xticks()) <= 60


def test_a_run_that_is_missing_leaves_its_cell_empty():
    rows = [row for row in regression() if (row["lr"], row["weight_decay"]) != (0.1, 0.01)]
    rows += [row for row in diffusion() if (row["unlabeled"], row["iteration"]) != ("nbg0", 1)]
    found = panels(plot_validation_grid(pd.DataFrame(rows), pd.DataFrame()))
    for title, empty in (
        ("logistic regression, n=1, batch 16", (1, 1)),
        ("diffusion, n=1", (0, 1)),
    ):
        axes = found[title]
        assert np.argwhere(np.isnan(values_of(axes))).tolist() == [list(empty)]
        assert empty not in texts_of(axes)


def test_a_choice_that_is_not_in_the_grid_has_no_frame():
    chosen = chosen_of(
        regression_row(1, 0, 0.05, 0, 16, 200, 0),
        diffusion_row(1, 0, "nbg0", 30, 77, 0),
        diffusion_row(1, 0, "nbg0", 50, 1, 0),
    )
    figure = plot_validation_grid(pd.DataFrame(regression() + diffusion()), chosen)
    assert all(framed_cells(axes) == [] for axes in panels(figure).values())


def test_the_colours_say_which_accuracy_they_are():
    figure = plot_validation_grid(pd.DataFrame(diffusion()), pd.DataFrame())
    label = figure.axes[-1].get_xlabel()
    assert "top-5 novel" in label
    assert "framed: chosen" in label


@pytest.mark.filterwarnings("error")
def test_one_run_is_drawn_and_none_says_so():
    one = plot_validation_grid(
        pd.DataFrame([regression_row(1, 1, 0.1, 0, 16, 100, 0.5)]), pd.DataFrame()
    )
    FigureCanvasAgg(one).draw()
    (axes,) = panels(one).values()
    np.testing.assert_allclose(values_of(axes), [[50]])
    other = diffusion_row(1, 1, "", 5, 1, 0.5) | {"method": "nearest_neighbors"}
    for rows in ([], [other], [regression_row(1, 1, 0.1, 0, 16, 100, math.nan)]):
        figure = plot_validation_grid(pd.DataFrame(rows), pd.DataFrame())
        assert figure.axes[0].texts[0].get_text().startswith("No validation runs")


def test_the_grid_is_the_same_after_a_round_trip_through_csv(tmp_path):
    validation = pd.DataFrame(regression() + diffusion())
    chosen = chosen_of(
        regression_row(1, 0, 0.01, 0, 64, 200, 0), diffusion_row(1, 0, "nbgall", 30, 2, 0)
    )
    validation.to_csv(tmp_path / "validation.csv", index=False)
    chosen.to_csv(tmp_path / "chosen.csv", index=False)
    before = panels(plot_validation_grid(validation, chosen))
    after = panels(
        plot_validation_grid(
            pd.read_csv(tmp_path / "validation.csv"), pd.read_csv(tmp_path / "chosen.csv")
        )
    )
    assert list(before) == list(after)
    for title, axes in before.items():
        np.testing.assert_allclose(values_of(after[title]), values_of(axes))
        assert framed_cells(after[title]) == framed_cells(axes)
