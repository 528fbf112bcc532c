import math

import pandas as pd
import pytest

from lowshot_kedro.sweep import Run, UnlabeledImages, frames
from lowshot_kedro.sweep.choice import Hyperparameters

BACKGROUND = UnlabeledImages("background", None)
MEAN = Run("nearest_class_mean", "test", 2, 1)
NEIGHBORS = Run("nearest_neighbors", "test", 2, 1)
REGRESSION = Run(
    "logistic_regression", "test", 2, 1,
    settings={"lr": 0.1, "weight_decay": 0, "batch_size": 16},
)  # fmt: skip
DIFFUSION = Run("diffusion", "test", 2, 1, BACKGROUND, {"k": 5})
COMBINED = Run("combined", "test", 2, 1, BACKGROUND)
RUNS = [MEAN, NEIGHBORS, REGRESSION, DIFFUSION, COMBINED]


def accuracies(number):
    """Six accuracies that nobody else has."""
    names = ("top1", "top5", "top1_novel", "top5_novel", "top1_base", "top5_base")
    return {name: number / 10 + position / 100 for position, name in enumerate(names)}


def metrics_of(axis, places, first, n_background=None, **seconds):
    entries = [
        {**({axis: place} if axis else {}), **accuracies(first + position)}
        for position, place in enumerate(places)
    ]
    experiment = {"mode": "test", "n_labeled": 2, "seed": 1}
    if n_background is not None:
        experiment |= {"unlabeled": "background", "n_background": n_background}
    content = {
        "experiment": experiment,
        "final": entries[-1],
        "seconds": seconds,
        "peak_rss_bytes": 1000 + first,
    }
    return content | ({f"per_{axis}": entries} if axis else {})


@pytest.fixture
def metrics():
    content = {
        MEAN.key: metrics_of(None, [None], 1, classification=0.5),
        NEIGHBORS.key: metrics_of("k", [1, 3, 10], 2, classification=0.25),
        REGRESSION.key: metrics_of("iteration", [40, 80, 100], 3, reading=1, training=2.5),
        DIFFUSION.key: metrics_of("iteration", [0, 1, 2], 4, 200, reading=1, graph=2, diffusion=4),
        COMBINED.key: metrics_of("weight", [0, 0.5, 1], 5, 200, combination=0.125),
    }
    return {key: lambda metrics=metrics: metrics for key, metrics in content.items()}


CHOSEN = Hyperparameters(
    {
        "nearest_neighbors": {"nl2": {"k": 3, "top1": 0.9}},
        "logistic_regression": {
            "nl2": {"lr": 0.1, "weight_decay": 0, "batch_size": 16, "max_iterations": 100}
        },
        "diffusion": {"nl2": {"nbgall": {"k": 5, "edge_weight": "constant", "n_iterations": 0}}},
        "combined": {"nl2": {"nbgall": {"combination_weight": 0.5}}},
    }
)

# Method, and which accuracies with what was chosen.
FINAL = [
    ("nearest_class_mean", 1), ("nearest_neighbors", 3), ("logistic_regression", 5),
    ("diffusion", 4), ("combined", 6),
]  # fmt: skip


def test_the_accuracies_of_a_run_are_those_of_what_was_chosen(metrics):
    frame = frames.final_accuracies(RUNS, metrics, CHOSEN)
    expected = pd.DataFrame(
        [
            {
                "method": method, "mode": "test", "unlabeled": unlabeled,
                "n_background": n_background, "n_labeled": 2, "seed": 1, **accuracies(number),
                "seconds": seconds, "peak_rss_bytes": peak, "key": run.key,
            }
            for run, (method, number), unlabeled, n_background, seconds, peak in zip(
                RUNS, FINAL, ["", "", "", "nbgall", "nbgall"],
                [math.nan, math.nan, math.nan, 200.0, 200.0], [0.5, 0.25, 3.5, 7.0, 0.125],
                [1001, 1002, 1003, 1004, 1005], strict=True,
            )
        ]
    )  # fmt: skip
    pd.testing.assert_frame_equal(frame, expected)


def test_every_step_has_a_row_and_the_chosen_one_a_mark(metrics):
    frame = frames.accuracies_per_step([DIFFUSION], metrics, CHOSEN)
    assert frame["iteration"].tolist() == [0, 1, 2]
    assert frame["chosen"].tolist() == [True, False, False]
    assert frame["top5_novel"].tolist() == [
        accuracies(number)["top5_novel"] for number in (4, 5, 6)
    ]
    assert set(frame["unlabeled"]) == {"nbgall"}
    assert set(frame["n_background"]) == {200.0}
    assert {"method", "mode", "n_labeled", "seed", "top1", "top1_base"} <= set(frame)


def test_all_given_labels_are_called_so(metrics):
    run = Run("nearest_class_mean", "test", None, 1)
    frame = frames.final_accuracies([run], {run.key: metrics[MEAN.key]}, CHOSEN)
    assert frame["n_labeled"].tolist() == ["all"]
    run = Run("nearest_neighbors", "val", None, 1)
    chosen = Hyperparameters({"nearest_neighbors": {"nlall": {"k": 3, "top1": 0.9}}})
    assert frames.chosen_settings([run], chosen)["n_labeled"].tolist() == ["all"]


def test_no_background_is_told_from_a_method_that_uses_none(metrics):
    train = Run("diffusion", "test", 2, 1, UnlabeledImages("train", 0), {"k": 5})
    content = metrics_of("iteration", [0], 1, 0)
    chosen = {"diffusion": {"nl2": {"train": {"k": 5, "edge_weight": "x", "n_iterations": 0}}}}
    frame = frames.final_accuracies(
        [train, MEAN], {**metrics, train.key: lambda: content}, Hyperparameters(chosen)
    )
    assert frame["n_background"].tolist()[0] == 0
    assert math.isnan(frame["n_background"].tolist()[1])
    assert frame["unlabeled"].tolist() == ["train", ""]


def test_the_grid_has_a_row_for_every_entry_with_its_settings(metrics):
    frame = frames.validation_grid(
        [NEIGHBORS, REGRESSION, DIFFUSION, COMBINED], metrics, "top1_novel"
    )
    assert len(frame) == 12
    assert set(frame["metric_name"]) == {"top1_novel"}
    expected = [
        accuracies(number)["top1_novel"]
        for first in (2, 3, 4, 5)
        for number in range(first, first + 3)
    ]
    assert frame["metric"].tolist() == expected
    by_method = dict(list(frame.groupby("method", sort=False)))
    assert by_method["nearest_neighbors"]["k"].tolist() == [1, 3, 10]
    assert by_method["logistic_regression"]["iteration"].tolist() == [40, 80, 100]
    assert by_method["diffusion"]["iteration"].tolist() == [0, 1, 2]
    assert by_method["combined"]["weight"].tolist() == [0, 0.5, 1]
    assert set(by_method["diffusion"]["k"]) == {5}
    assert set(by_method["diffusion"]["edge_weight"]) == {"constant"}
    settings = by_method["logistic_regression"][["lr", "weight_decay", "batch_size"]]
    assert set(settings.itertuples(index=False, name=None)) == {(0.1, 0, 16)}
    # What does not apply is empty.
    for method, empty in (
        ("nearest_neighbors", ["lr", "weight_decay", "batch_size", "alpha", "iteration", "weight"]),
        ("logistic_regression", ["alpha", "k", "edge_weight", "weight"]),
        ("diffusion", ["lr", "weight_decay", "batch_size", "alpha", "weight"]),
        ("combined", ["lr", "alpha", "k", "edge_weight", "iteration"]),
    ):
        assert by_method[method][empty].isna().all(axis=None), method


def test_what_was_chosen_is_called_as_in_the_grid(metrics):
    frame = frames.chosen_settings(RUNS[1:] + RUNS[1:], CHOSEN)
    columns = ["method", "unlabeled", "n_labeled", "lr", "k", "edge_weight", "iteration", "weight"]
    found = frame[columns].astype(object).where(frame[columns].notna(), None)
    assert found.values.tolist() == [
        ["nearest_neighbors", "", 2, None, 3, None, None, None],
        ["logistic_regression", "", 2, 0.1, None, None, 100, None],
        ["diffusion", "nbgall", 2, None, 5, "constant", 0, None],
        ["combined", "nbgall", 2, None, None, None, None, 0.5],
    ]
    grid = frames.validation_grid(RUNS[1:], metrics, "top1")
    assert set(frame) <= set(grid)


def test_time_and_memory_of_every_run(metrics):
    frame = frames.resources([REGRESSION, DIFFUSION], metrics)
    assert frame.to_dict("list") == {
        "key": [REGRESSION.key, DIFFUSION.key],
        "method": ["logistic_regression", "diffusion"],
        "mode": ["test", "test"],
        "seconds": [3.5, 7],
        "peak_rss_bytes": [1003, 1004],
    }


@pytest.mark.parametrize(("mode", "phase"), [("val", "sweep_validation"), ("test", "sweep_test")])
@pytest.mark.parametrize(
    "make",
    [
        lambda runs, metrics: frames.final_accuracies(runs, metrics, CHOSEN),
        lambda runs, metrics: frames.accuracies_per_step(runs, metrics, CHOSEN),
        lambda runs, metrics: frames.validation_grid(runs, metrics, "top1"),
        frames.resources,
    ],
    ids=["final", "steps", "grid", "resources"],
)
def test_a_run_that_is_missing_is_named_with_the_command_that_makes_it(metrics, make, mode, phase):
    absent = Run("diffusion", mode, 5, 9, BACKGROUND, {"k": 5})
    with pytest.raises(ValueError, match=f"^{absent.key}: .* pipeline {phase} makes it$"):
        make([DIFFUSION, absent], metrics)


def test_runs_that_nobody_asked_for_are_left_alone(metrics):
    def unreadable():
        raise AssertionError

    more = {**metrics, "diffusion/test/nl2/nbgall/k77/seed1": unreadable}
    assert len(frames.final_accuracies([DIFFUSION], more, CHOSEN)) == 1


def test_without_runs_there_are_no_rows():
    assert frames.validation_grid([], {}, "top1").empty
    assert frames.accuracies_per_step([], {}, CHOSEN).empty
    assert frames.chosen_settings([], CHOSEN).empty
