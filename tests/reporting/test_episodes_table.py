import math

import numpy as np
import pandas as pd
import pytest

from lowshot_kedro.episodes.methods import METHODS
from lowshot_kedro.episodes.parameters import EpisodesParameters
from lowshot_kedro.reporting import (
    describe_episodes,
    episodes_table,
    episodes_to_markdown,
    plot_episodes,
    print_episodes,
)

CAPTION = "5-way 1-shot of made-up images"
# Two of each kind. The better inductive one is better by 0.1 in every episode but the last.
ACCURACIES = pd.DataFrame(
    {
        "episode": range(4),
        "label_diffusion": [0.9, 0.8, 0.9, 0.8],
        "nearest_class_mean": [0.5, 0.7, 0.5, 0.7],
        "tim": [0.85, 0.85, 0.85, 0.85],
        "logistic_regression": [0.6, 0.8, 0.6, 0.8],
    }
)
SECONDS = {"nearest_class_mean": 0.00125, "tim": 0.05}


def test_the_table_has_means_and_intervals_from_the_best_of_each_setting_on():
    table = episodes_table(ACCURACIES, SECONDS)
    assert list(table["method"]) == [
        "logistic_regression", "nearest_class_mean", "tim", "label_diffusion"
    ]  # fmt: skip
    assert list(table["setting"]) == ["inductive"] * 2 + ["transductive"] * 2
    assert list(table["title"]) == [METHODS[name].title for name in table["method"]]
    np.testing.assert_allclose(table["accuracy"], [0.7, 0.6, 0.85, 0.85])
    # Deviations of ±0.1 and ±0.05 around the mean, of 4 episodes.
    np.testing.assert_allclose(table["half_width"], [0.098, 0.098, 0, 0.049], atol=1e-9)
    np.testing.assert_allclose(table["seconds_per_episode"], [math.nan, 0.00125, 0.05, math.nan])
    assert (table["n_episodes"] == 4).all()


def test_differences_are_paired():
    table = episodes_table(ACCURACIES).set_index("method")
    # The same in every episode, however far these are from each other.
    assert table.loc["nearest_class_mean", "difference"] == pytest.approx(-0.1)
    assert table.loc["nearest_class_mean", "difference_half_width"] == pytest.approx(0, abs=1e-9)
    # As good as the other on average, but not in the same episodes.
    assert table.loc["label_diffusion", "difference"] == pytest.approx(0, abs=1e-9)
    assert table.loc["label_diffusion", "difference_half_width"] == pytest.approx(0.049)
    best = table.loc[["logistic_regression", "tim"]]
    assert best[["difference", "difference_half_width"]].isna().all(axis=None)


def test_one_episode_has_no_interval():
    table = episodes_table(ACCURACIES[:1])
    assert table[["half_width", "difference_half_width"]].isna().all(axis=None)
    assert table["accuracy"].notna().all()
    assert " 60.00 |" in episodes_to_markdown(table, CAPTION)


def test_a_table_that_was_written_and_read_says_the_same(tmp_path):
    table = episodes_table(ACCURACIES, SECONDS)
    table.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    assert episodes_to_markdown(read, CAPTION) == episodes_to_markdown(table, CAPTION)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_is_in_per_cent_with_two_decimals():
    text = episodes_to_markdown(episodes_table(ACCURACIES, SECONDS), CAPTION)
    assert f"{CAPTION}. 4 episodes." in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert [cells(line) for line in lines if "---" not in line] == [
        ["method", "setting", "accuracy", "to the best", "ms an episode"],
        ["logistic regression", "inductive", "70.00 ± 9.80", "–", "–"],
        ["nearest class mean", "inductive", "60.00 ± 9.80", "−10.00 ± 0.00", "1.25"],
        ["TIM", "transductive", "85.00 ± 0.00", "–", "50"],
        ["label diffusion", "transductive", "85.00 ± 4.90", "0.00 ± 4.90", "–"],
    ]
    assert f"TIM: {METHODS['tim'].notes}" in text
    assert "LaplacianShot" not in text


def test_what_says_nothing_has_no_column():
    alone = episodes_table(ACCURACIES[["episode", "tim"]])
    lines = episodes_to_markdown(alone, CAPTION).splitlines()
    assert cells(next(line for line in lines if line.startswith("|"))) == [
        "method", "setting", "accuracy"
    ]  # fmt: skip
    assert "difference to the best" not in " ".join(lines)
    assert "difference to the best" in episodes_to_markdown(episodes_table(ACCURACIES), CAPTION)


def test_the_printed_table_has_the_same_cells(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table = episodes_table(ACCURACIES, SECONDS)
    print_episodes(table, CAPTION)
    printed = " ".join(capsys.readouterr().out.split())
    for line in episodes_to_markdown(table, CAPTION).splitlines():
        if line.startswith("| ") and "---" not in line and "setting" not in line:
            assert " │ ".join(cells(line)) in printed
    assert CAPTION in printed
    assert "Inductive methods classify every query image by itself" in printed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "5-way 1-shot, 15 query images a class, seed 1: all classes of the test images, "
             "efficientnet_lite0"),
        ({"image_size": 96},
         "5-way 1-shot, 15 query images a class, seed 1: all classes of the test images, "
         "efficientnet_lite0 at 96 pixels"),
        ({"dataset": "miniimagenet", "data_path": "d", "n_query": 1, "weights": "none"},
         "5-way 1-shot, 1 query image a class, seed 1: miniimagenet, test classes, "
         "efficientnet_lite0 with random weights"),
        ({"dataset": "folder", "data_path": "my/images", "weights": "resnet.pt"},
         "5-way 1-shot, 15 query images a class, seed 1: the images in my/images, "
         "efficientnet_lite0 with resnet.pt"),
        ({"dataset": "features", "data_path": "f.npz", "n_way": 3, "n_shot": 5, "order": "loader"},
         "3-way 5-shot, 15 query images a class, seed 1 in the order of loader: "
         "the features in f.npz"),
    ],
)  # fmt: skip
def test_episodes_are_described(changes, expected):
    assert describe_episodes(EpisodesParameters(**changes)) == expected


def test_the_plot_has_a_row_for_every_method_and_a_marker_for_every_setting():
    figure = plot_episodes(episodes_table(ACCURACIES), CAPTION)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "logistic regression", "nearest class mean", "TIM", "label diffusion"
    ]  # fmt: skip
    assert axes.yaxis_inverted()
    drawn = {
        container.get_label(): [
            container[0].get_xdata().tolist(),
            container[0].get_ydata().tolist(),
        ]
        for container in axes.containers
    }
    assert drawn == {
        "inductive": [pytest.approx([70, 60]), [0, 1]],
        "transductive": [pytest.approx([85, 85]), [2, 3]],
    }
    lines = {container.get_label(): container[2][0].get_segments() for container in axes.containers}
    np.testing.assert_allclose(lines["inductive"][0][:, 0], [60.2, 79.8])
    markers = {container[0].get_marker() for container in axes.containers}
    colors = {container[0].get_color() for container in axes.containers}
    assert len(markers) == len(colors) == 2
    assert [text.get_text() for text in axes.texts] == ["70.0", "60.0", "85.0", "85.0"]
    assert "4 episodes" in axes.get_title()
    plot_episodes(episodes_table(ACCURACIES[:1]), CAPTION).canvas.draw()
