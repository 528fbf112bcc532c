"""A full small sweep on the demonstration: killed, continued, chosen from, tabulated."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from PIL import Image

from lowshot_kedro.project.config import Project
from tests.projects import run
from tests.quick_kedro import Command

SWEEP: dict[str, Any] = {
    "n_labeled": [1, 3],
    "seeds": [1, 2],
    "validation_seeds": [1, 2],
    "unlabeled": ["background", "both"],
    "n_background": [None],
    "logistic_regression": {
        "lr": [0.1, 0.01], "weight_decay": [0, 0.1], "batch_size": [16, 32],
        "max_iterations": 150, "eval_every": 50,
    },
    "diffusion": {"k": [5, 10], "n_iterations": 4},
    "nearest_neighbors": {"k": [1, 5]},
    "label_spreading": {"alpha": [0.2]},
    "combination_weights": [0, 0.25, 0.5, 1],
}  # fmt: skip
UNLABELED = ("nbgall", "nbgall_train")
FINAL = "top1"


class Sweep(NamedTuple):
    project: Path
    kept: dict[Path, int]  # files there when it was killed, and when they were written
    repeated: str  # what the run after that printed

    @property
    def folder(self) -> Path:
        return self.project / "data" / "08_reporting" / "sweep"

    def metrics(self) -> dict[str, dict[str, Any]]:
        folder = self.folder / "metrics"
        return {
            path.relative_to(folder).as_posix().removesuffix(".json"): json.loads(path.read_text())
            for path in folder.rglob("*.json")
        }

    def chosen(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((self.folder / "hyperparameters.yml").read_text())
        return content


def swept_project(source: Path, folder: Path, **changes: Any) -> Path:
    project = Path(shutil.copytree(source, folder))
    local = project / "conf" / "local" / "parameters_sweep.yml"
    local.write_text(yaml.safe_dump({"sweep": {**SWEEP, **changes}}))
    return project


@pytest.fixture(scope="module")
def sweep(demonstration_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Killed when some runs were there, and run again."""
    project = swept_project(demonstration_project, tmp_path_factory.mktemp("sweep") / "project")
    metrics = project / "data" / "08_reporting" / "sweep" / "metrics"
    command = Command(project, "run", "--pipelines", "sweep")
    deadline = time.monotonic() + 180
    while len(list(metrics.rglob("seed*.json"))) < 5:
        assert command.is_running(), "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(command.pid, signal.SIGKILL)
    assert command.wait()[0] == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in metrics.rglob("seed*.json")}
    # With other workers, which is no reason to repeat anything.
    arguments = ("run", "--pipelines", "sweep", "--params", "sweep.n_workers=1")
    status, printed = Command(project, *arguments).wait()
    printed = " ".join(printed.split())
    assert status == 0, printed
    return Sweep(project, kept, printed)


def test_what_was_done_when_it_was_killed_is_not_repeated(sweep: Sweep) -> None:
    assert len(sweep.kept) >= 5
    assert {path: path.stat().st_mtime_ns for path in sweep.kept} == sweep.kept
    assert f", {len(sweep.kept)} of them are there already" in sweep.repeated
    assert not list(sweep.project.rglob(".partial-*"))


def test_every_run_has_metrics_under_its_name(sweep: Sweep) -> None:
    keys = set(sweep.metrics())
    seeds = range(1, 3)
    expected = set()
    for n_labeled in (1, 3):
        for seed in seeds:
            end = f"nl{n_labeled}/", f"/seed{seed}"
            expected |= {f"nearest_neighbors/{mode}/nl{n_labeled}/seed{seed}"
                         for mode in ("val", "test")}  # fmt: skip
            expected |= {f"nearest_class_mean/test/nl{n_labeled}/seed{seed}"}
            expected |= {
                f"logistic_regression/val/{end[0]}lr{lr}/wd{decay}/bs{size}{end[1]}"
                for lr in (0.1, 0.01) for decay in (0, 0.1) for size in (16, 32)
            }  # fmt: skip
            for unlabeled in UNLABELED:
                expected |= {f"diffusion/val/{end[0]}{unlabeled}/k{k}{end[1]}" for k in (5, 10)}
                expected |= {
                    f"label_spreading/val/{end[0]}{unlabeled}/alpha{alpha}{end[1]}"
                    for alpha in (0.2,)
                }
    assert {key for key in keys if "/val/" in key and not key.startswith("combined")} == {
        key for key in expected if "/val/" in key
    }
    n_test = {
        method: len([key for key in keys if key.startswith(f"{method}/test/")])
        for method in ("nearest_class_mean", "nearest_neighbors", "label_spreading",
                       "logistic_regression", "diffusion", "combined")
    }  # fmt: skip
    assert n_test == {
        "nearest_class_mean": 4, "nearest_neighbors": 4, "label_spreading": 8,
        "logistic_regression": 4, "diffusion": 8, "combined": 8,
    }  # fmt: skip


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_what_is_chosen_is_the_best_of_everything(sweep: Sweep) -> None:
    metrics, chosen = sweep.metrics(), sweep.chosen()

    def per_seed(name: str, list_name: str) -> list[list[dict[str, Any]]]:
        return [metrics[f"{name}/seed{seed}"][list_name] for seed in (1, 2)]

    for n_labeled in (1, 3):
        nl = f"nl{n_labeled}"
        candidates = {}
        for lr in (0.1, 0.01):
            for decay in (0, 0.1):
                for size in (16, 32):
                    name = f"logistic_regression/val/{nl}/lr{lr}/wd{decay}/bs{size}"
                    runs = per_seed(name, "per_iteration")
                    for entries in zip(*runs, strict=True):
                        assert len({entry["iteration"] for entry in entries}) == 1
                        place = (lr, decay, size, entries[0]["iteration"])
                        candidates[place] = mean([entry[FINAL] for entry in entries])
        assert {place[3] for place in candidates} == {50, 100, 150}
        found = chosen["logistic_regression"][nl]
        place = found["lr"], found["weight_decay"], found["batch_size"], found["max_iterations"]
        assert candidates[place] == pytest.approx(max(candidates.values()))
        assert found[FINAL] == pytest.approx(candidates[place], abs=1e-6)

        neighbors = {}
        for entries in zip(*per_seed(f"nearest_neighbors/val/{nl}", "per_k"), strict=True):
            neighbors[entries[0]["k"]] = mean([entry[FINAL] for entry in entries])
        best = pytest.approx(max(neighbors.values()))
        assert neighbors[chosen["nearest_neighbors"][nl]["k"]] == best

        for unlabeled in UNLABELED:
            steps = {}
            for k in (5, 10):
                name = f"diffusion/val/{nl}/{unlabeled}/k{k}"
                for entries in zip(*per_seed(name, "per_iteration"), strict=True):
                    accuracy = mean([entry[FINAL] for entry in entries])
                    steps[k, entries[0]["iteration"]] = accuracy
            assert len(steps) == 2 * 5
            found = chosen["diffusion"][nl][unlabeled]
            best = pytest.approx(max(steps.values()))
            assert steps[found["k"], found["n_iterations"]] == best

            weights = {}
            name = f"combined/val/{nl}/{unlabeled}/k{found['k']}"
            for entries in zip(*per_seed(name, "per_weight"), strict=True):
                weights[entries[0]["weight"]] = mean([entry[FINAL] for entry in entries])
            assert list(weights) == SWEEP["combination_weights"]
            weight = chosen["combined"][nl][unlabeled]["combination_weight"]
            assert weights[weight] == pytest.approx(max(weights.values()))
            # With all the weight on one method it is that method.
            assert weights[1] == pytest.approx(steps[found["k"], found["n_iterations"]], abs=0.01)
            assert weights[0] == pytest.approx(chosen["logistic_regression"][nl][FINAL], abs=0.01)


def test_the_table_is_mean_and_deviation_of_the_test_runs(sweep: Sweep) -> None:
    metrics, chosen = sweep.metrics(), sweep.chosen()
    with (sweep.folder / "table.csv").open() as file:
        table = {
            (row["method"], row["unlabeled"], int(row["n_labeled"])): row
            for row in csv.DictReader(file)
        }
    assert len(table) == 2 * (3 + 3 * len(UNLABELED))
    for n_labeled in (1, 3):
        nl = f"nl{n_labeled}"
        of_diffusion = chosen["diffusion"][nl]["nbgall"]
        of_regression = chosen["logistic_regression"][nl]
        lr, decay, size = (of_regression[name] for name in ("lr", "weight_decay", "batch_size"))
        places = {
            ("diffusion", "nbgall"): (
                f"diffusion/test/{nl}/nbgall/k{of_diffusion['k']}",
                "per_iteration", "iteration", of_diffusion["n_iterations"],
            ),
            ("combined", "nbgall"): (
                f"combined/test/{nl}/nbgall/k{of_diffusion['k']}",
                "per_weight", "weight", chosen["combined"][nl]["nbgall"]["combination_weight"],
            ),
            ("logistic_regression", ""): (
                f"logistic_regression/test/{nl}/lr{lr}/wd{decay}/bs{size}",
                "per_iteration", "iteration", of_regression["max_iterations"],
            ),
            ("nearest_neighbors", ""): (
                f"nearest_neighbors/test/{nl}", "per_k", "k", chosen["nearest_neighbors"][nl]["k"],
            ),
        }  # fmt: skip
        for (method, unlabeled), (name, list_name, axis, place) in places.items():
            row = table[method, unlabeled, n_labeled]
            for accuracy in ("top1", "top1_novel", "top5"):
                first, second = (
                    entry[accuracy]
                    for seed in (1, 2)
                    for entry in metrics[f"{name}/seed{seed}"][list_name]
                    if entry[axis] == place
                )
                assert float(row[f"{accuracy}_mean"]) == pytest.approx((first + second) / 2)
                # Of two numbers: |a - b| / √2.
                deviation = abs(first - second) / math.sqrt(2)
                assert float(row[f"{accuracy}_std"]) == pytest.approx(deviation, abs=1e-12)
        shown = table["diffusion", "nbgall", n_labeled]
        cell = f"{100 * float(shown['top1_mean']):.1f} ± {100 * float(shown['top1_std']):.1f}"
        assert cell in (sweep.folder / "table.md").read_text()


def test_resources_list_every_run(sweep: Sweep) -> None:
    with (sweep.folder / "resources.csv").open() as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(sweep.metrics())
    assert all(float(row["seconds"]) > 0 and float(row["peak_mib"]) > 50 for row in rows.values())


def test_kedro_viz_has_something_to_show(sweep: Sweep) -> None:
    catalog = Project(sweep.project, None, {}).catalog({})
    previews = {
        name: catalog.get(name).preview()
        for name in (
            "validation_metrics", "combination_metrics", "test_metrics", "combined_test_metrics",
            "run_scores", "sweep_table", "sweep_resources", "hyperparameters",
        )
    }  # fmt: skip
    assert all(preview["data"] for preview in list(previews.values())[:-1])
    assert "logistic_regression" in previews["hyperparameters"]
    for plot in ("accuracy_per_n_labeled", "accuracy_per_background", "accuracy_per_step",
                 "validation_grid"):  # fmt: skip
        assert catalog.get(f"sweep_{plot}_plot").preview()
        with Image.open(sweep.folder / f"{plot}.png") as image:
            darkest, brightest = image.convert("L").getextrema()
        assert darkest < brightest


def test_the_same_comes_out_in_one_process_without_a_stop(
    sweep: Sweep, demonstration_project: Path, tmp_path: Path
) -> None:
    project = swept_project(
        demonstration_project, tmp_path / "project", n_workers=0, n_labeled=[1],
        unlabeled=["background"],
    )  # fmt: skip
    run(project, "sweep")
    alone = Sweep(project, {}, "").metrics()
    together = sweep.metrics()

    def accuracies(metrics: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in metrics.items()
                if name.startswith("per_") or name == "final"}  # fmt: skip

    assert len(alone) == 38
    for key, metrics in alone.items():
        assert accuracies(metrics) == accuracies(together[key]), key


def test_a_choice_that_was_changed_by_hand_is_followed_and_kept(
    sweep: Sweep, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(sweep.project, tmp_path / "project"))
    changed = Sweep(project, {}, "")
    path = changed.folder / "hyperparameters.yml"
    before = changed.metrics()
    chosen = changed.chosen()
    n_iterations = chosen["diffusion"]["nl1"]["nbgall"]["n_iterations"]
    chosen["diffusion"]["nl1"]["nbgall"]["n_iterations"] = (n_iterations + 1) % 5
    chosen["logistic_regression"]["nl3"]["max_iterations"] = 40
    path.write_text(yaml.safe_dump(chosen))
    text = path.read_text()
    # In this process: nothing here needs processes.
    run(project, "sweep", sweep={"n_workers": 0})
    assert path.read_text() == text
    after = changed.metrics()
    different = {key for key in after if after[key] != before[key]}
    regression = {key for key in after if key.startswith("logistic_regression/test/nl3/")}
    assert regression <= different
    assert all(after[key]["final"]["iteration"] == 40 for key in regression)
    combined = {key for key in different if key.startswith("combined/")}
    assert {key for key in combined if "/test/nl1/" in key and "/nbgall/" in key}
    assert {key for key in combined if "/test/nl1/" in key and "/nbgall_train/" in key} == set()
    # All numbers of steps were there already.
    assert not {key for key in different if key.startswith("diffusion/")}


def test_a_run_that_is_missing_is_named_by_the_report(sweep: Sweep, tmp_path: Path) -> None:
    project = Path(shutil.copytree(sweep.project, tmp_path / "project"))
    metrics = project / "data" / "08_reporting" / "sweep" / "metrics"
    (metrics / "nearest_class_mean" / "test" / "nl1" / "seed2.json").unlink()
    with pytest.raises(Exception, match="nearest_class_mean/test/nl1/seed2: this run is missing"):
        run(project, "sweep_report")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_labeled": [500]}, r"sweep.n_labeled: got \[500\], but no novel class has more than"),
        (
            {"diffusion": {"k": [1000]}, "n_background": [0], "methods": ["diffusion"]},
            r"sweep.methods: got \['diffusion'\], but there are too few images",
        ),
        ({"n_background": [600]}, r"sweep.n_background: got \[600\], but the background has 599"),
        ({"metric": "top3"}, "sweep.metric: got 'top3', but evaluation.top_k"),
        ({"scheduler": "nobody"}, "sweep.scheduler: got 'nobody'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_run(
    demonstration_project: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    project = swept_project(demonstration_project, tmp_path / "project", **changes)
    with pytest.raises(Exception, match=message):
        run(project, "sweep")
    assert not list((project / "data" / "08_reporting").glob("sweep/metrics/*"))
