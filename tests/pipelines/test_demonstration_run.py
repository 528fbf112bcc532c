"""One whole `kedro run` on the demonstration, and each pipeline alone on what it left."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from kedro.framework.project import pipelines, settings
from kedro.framework.session import KedroSession
from kedro.runner import ParallelRunner
from PIL import Image

from lowshot_kedro.project.config import UserError
from tests.projects import configure_kedro, read_arrays, read_metrics, run

ACCURACIES = {f"top{k}{group}" for k in (1, 5) for group in ("", "_novel", "_base")}
PIPELINES = ("features", "pca", "graph", "baseline", "diffusion", "evaluation")


def test_metrics_have_the_fields_of_the_contract(demonstration_project: Path) -> None:
    for name in ("diffusion", "baseline", "combined"):
        metrics = read_metrics(demonstration_project, name)
        assert set(metrics) == {
            "experiment", "n_classes", "n_novel", "n_test", "n_nodes", "per_iteration", "final",
            "method", "seconds", "peak_rss_bytes", *(["chosen"] if name == "diffusion" else []),
        }  # fmt: skip
        assert metrics["final"] == metrics["per_iteration"][-1]
        assert all(set(entry) == {"iteration", *ACCURACIES} for entry in metrics["per_iteration"])
        assert (metrics["n_classes"], metrics["n_novel"], metrics["n_test"]) == (10, 5, 599)
        assert metrics["experiment"]["seed"] == 1
        assert metrics["peak_rss_bytes"] > 2**20
    diffusion = read_metrics(demonstration_project, "diffusion")
    chosen = diffusion["chosen"]
    assert set(chosen) == {
        "k", "n_iterations", "validation_accuracy", "validation_accuracy_per_k",
    }  # fmt: skip
    steps = [entry["iteration"] for entry in diffusion["per_iteration"]]
    assert steps == list(range(chosen["n_iterations"] + 1))
    assert len(chosen["validation_accuracy"]) > chosen["n_iterations"]
    assert set(chosen["validation_accuracy_per_k"]) == {"5", "10", "20", "30"}
    # What was asked for is kept.
    assert diffusion["experiment"]["graph"]["k"] == "auto"
    assert diffusion["experiment"]["diffusion"]["n_iterations"] == "auto"
    assert set(diffusion["seconds"]) == {"graph", "diffusion"}
    labels = read_arrays(demonstration_project / "data" / "04_feature" / "train.hdf5")["all_labels"]
    assert diffusion["n_nodes"] == np.count_nonzero(labels <= 4) + 5 * 2 + 599


def test_metrics_follow_from_the_scores(demonstration_project: Path) -> None:
    outputs = demonstration_project / "data" / "07_model_output"
    for name in ("diffusion", "baseline"):
        arrays = read_arrays(outputs / f"{name}_scores.hdf5")
        guesses, truth = arrays["scores"].argmax(axis=1), arrays["test_classes"]
        novel = arrays["is_novel"][truth]
        final = read_metrics(demonstration_project, name)["final"]
        assert final["top1"] == pytest.approx((guesses == truth).mean())
        assert final["top1_novel"] == pytest.approx((guesses == truth)[novel].mean())
        assert final["top1_base"] == pytest.approx((guesses == truth)[~novel].mean())


def test_the_methods_recognise_digits(demonstration_project: Path) -> None:
    # Ten classes: guessing gives 0.1. Two labelled images of each novel class are far better.
    for name in ("diffusion", "baseline", "combined"):
        final = read_metrics(demonstration_project, name)["final"]
        assert final["top1"] > 0.6
        assert final["top1_novel"] > 0.35
        assert final["top1_base"] > 0.8


def test_table_and_plots(demonstration_project: Path) -> None:
    reports = demonstration_project / "data" / "08_reporting"
    with (reports / "metrics_table.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    names = {
        "logistic regression": "baseline", "diffusion": "diffusion", "combined": "combined",
    }  # fmt: skip
    assert set(rows) == set(names)
    for method, name in names.items():
        final = read_metrics(demonstration_project, name)["final"]
        assert {key: float(rows[method][key]) for key in ACCURACIES} == pytest.approx(
            {key: final[key] for key in ACCURACIES}
        )
    for plot in ("pca_spectrum", "accuracy_per_step", "methods", "neighbors"):
        with Image.open(reports / f"{plot}.png") as image:
            assert min(image.size) > 400
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_the_log_names_every_node_its_time_and_memory(demonstration_project: Path) -> None:
    log = (demonstration_project / "log.txt").read_text()
    for node in (
        "write_digits",
        "extract_train_features",
        "train_pca",
        "diffuse",
        "plot_neighbors",
    ):
        assert f"{node}: " in log
    # The result is the last that is said, and nothing warns: a person cannot do anything about it.
    end = log[log.rindex("INFO") :]
    assert "2 labelled images per novel class, seed 1" in end
    assert end.rindex("data/08_reporting") > end.index("combined")
    assert "Time and memory" not in log
    assert "WARNING" not in log and "ERROR" not in log
    assert "deprecated" not in log


@pytest.fixture(scope="module")
def copy_of_the_run(demonstration_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(
        shutil.copytree(demonstration_project, tmp_path_factory.mktemp("copies") / "project")
    )


# Results that stay while nothing changes that they were made from.
MADE_ONCE = {
    "features": ["04_feature/*.hdf5*", "04_feature/f100m/*.hdf5*"],
    "pca": ["04_feature/*.vt*", "04_feature/f100m/*.raw*"],
    "graph": ["05_model_input/knngraph/*"],
}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_each_pipeline_runs_alone_and_gives_the_same(copy_of_the_run: Path, pipeline: str) -> None:
    def digests() -> dict[str, str]:
        binary = (".raw", ".vt", ".int32", ".float32", ".index")
        files = [path for path in (copy_of_the_run / "data").rglob("*") if path.suffix in binary]
        arrays = {
            f"{path.name}/{name}": hashlib.sha256(array.tobytes()).hexdigest()
            for path in (copy_of_the_run / "data").rglob("*.hdf5")
            for name, array in read_arrays(path).items()
        }
        whole = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        return {**arrays, **whole}

    before = digests()
    # What is there already would be kept.
    for pattern in MADE_ONCE.get(pipeline, ()):
        for path in (copy_of_the_run / "data").glob(pattern):
            path.unlink()
    run(copy_of_the_run, pipeline)
    assert digests() == before


def test_several_processes_evaluate(copy_of_the_run: Path) -> None:
    """Nothing that evaluation makes stays in the memory of a process."""
    configure_kedro()
    table = copy_of_the_run / "data" / "08_reporting" / "metrics_table.csv"
    before = table.read_text()
    table.unlink()
    with KedroSession.create(copy_of_the_run) as session:
        session.run(pipeline_names=["evaluation"], runner=ParallelRunner(max_workers=2))
    assert table.read_text() == before


def test_the_default_is_not_visibly_worse_than_its_neighbors(demonstration_project: Path) -> None:
    """The last step is the one chosen: the curve does not fall to it."""
    for name in ("diffusion", "baseline"):
        *before, last = [
            entry["top1"] for entry in read_metrics(demonstration_project, name)["per_iteration"]
        ]
        assert last > max(before) - 0.01
        assert last > before[0]


def test_numbers_give_what_they_gave_when_they_were_chosen(
    demonstration_project: Path, copy_of_the_run: Path
) -> None:
    chosen = read_metrics(demonstration_project, "diffusion")["chosen"]
    k, n_iterations = chosen["k"], chosen["n_iterations"]
    run(copy_of_the_run, "diffusion", graph={"k": k}, diffusion={"n_iterations": n_iterations})
    numbers = read_metrics(copy_of_the_run, "diffusion")["chosen"]
    assert (numbers["k"], numbers["n_iterations"]) == (k, n_iterations)
    assert numbers["validation_accuracy"] is None
    first, second = (
        read_arrays(project / "data" / "07_model_output" / "diffusion_scores.hdf5")
        for project in (demonstration_project, copy_of_the_run)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_other_class_set_and_number_of_labels(copy_of_the_run: Path) -> None:
    run(copy_of_the_run, "diffusion", experiment={"mode": "val", "n_labeled": 5, "seed": 3})
    metrics = read_metrics(copy_of_the_run, "diffusion")
    assert metrics["experiment"]["mode"] == "val"
    scores = read_arrays(copy_of_the_run / "data" / "07_model_output" / "diffusion_scores.hdf5")
    np.testing.assert_array_equal(scores["is_novel"], np.arange(10) <= 4)


def test_half_the_memory_gives_the_same_accuracy(
    demonstration_project: Path, copy_of_the_run: Path
) -> None:
    run(copy_of_the_run, "diffusion", diffusion={"precision": "bfloat16"})
    exact, rounded = (
        read_metrics(project, "diffusion")["per_iteration"]
        for project in (demonstration_project, copy_of_the_run)
    )
    assert len(exact) == len(rounded)
    for expected, found in zip(exact, rounded, strict=True):
        assert found == pytest.approx(expected, abs=0.002)


def test_the_registry_lists_the_pipelines() -> None:
    configure_kedro()
    assert {*PIPELINES, "demonstration"} <= set(pipelines)


def test_every_pipeline_is_a_namespace_of_its_nodes_alone() -> None:
    configure_kedro()
    for name in (*PIPELINES, "demonstration"):
        assert {node.namespace for node in pipelines[name].nodes} == {name}
        assert all(node.name.startswith(f"{name}.") for node in pipelines[name].nodes)
    prefixed = {name for name in pipelines["__default__"].datasets() if "." in name}
    assert prefixed == {"baseline.image_selection", "diffusion.image_selection"}
    # The preparation belongs to all phases.
    phases = {node.namespace for node in pipelines["sweep"].nodes}
    assert phases == {None, "validation", "test", "report"}
    for phase in ("validation", "test", "report"):
        assert {node.namespace for node in pipelines[f"sweep_{phase}"].nodes} == {None, phase}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"node_names": ["pca.train_pca", "pca.apply_pca"]}, {"pca.train_pca", "pca.apply_pca"}),
        ({"from_nodes": ["evaluation.compare_methods"]},
         {"evaluation.compare_methods", "evaluation.plot_methods"}),
        ({"from_nodes": ["diffusion.select_images"], "to_nodes": ["diffusion.diffuse"]},
         {"diffusion.select_images", "diffusion.reduce_features",
          "diffusion.choose_unlabeled_images", "diffusion.insert_labeled_nodes",
          "diffusion.diffuse"}),
        ({"node_namespaces": ["baseline"]},
         {"baseline.select_images", "baseline.train_baseline"}),
    ],
)  # fmt: skip
def test_parts_of_the_pipeline_are_named_by_nodes_and_namespaces(
    copy_of_the_run: Path, choice: dict[str, list[str]], expected: set[str]
) -> None:
    configure_kedro()
    chosen = {node.name for node in pipelines["__default__"].filter(**choice).nodes}
    assert chosen == expected
    namespaces = choice.pop("node_namespaces", None)
    with KedroSession.create(project_path=copy_of_the_run) as session:
        session.run(**choice, namespaces=namespaces)


def test_a_run_from_a_selection_on_finds_all_else_on_disk(copy_of_the_run: Path) -> None:
    configure_kedro()
    with KedroSession.create(project_path=copy_of_the_run) as session:
        session.run(from_nodes=["diffusion.select_images"])


def test_a_run_without_background_leaves_the_stored_graph_alone(copy_of_the_run: Path) -> None:
    graphs = copy_of_the_run / "data" / "05_model_input" / "knngraph"
    before = {path.name: path.read_bytes() for path in graphs.iterdir()}
    for pipeline in ("graph", "diffusion"):
        run(copy_of_the_run, pipeline, experiment={"unlabeled": "train"})
    assert {name: (graphs / name).read_bytes() for name in before} == before
    n_nodes = read_metrics(copy_of_the_run, "diffusion")["n_nodes"]
    assert n_nodes == read_arrays(copy_of_the_run / "data/04_feature/train.hdf5")["count"][0]


@pytest.mark.parametrize(
    ("asked_for", "message"),
    [
        ({"pipeline_names": ["nonsense"]},
         "--pipelines: got 'nonsense', expected one of: demonstration, features, pca"),
        ({"from_nodes": ["diffus"]}, "--from-nodes: got 'diffus', .*: diffusion.diffuse"),
        ({"node_names": ["select_images"]},
         "--nodes: 'select_images' may be any of: baseline.select_images, diffusion.select_images"),
        ({"to_nodes": ["pca.diffuse"]}, "--to-nodes: got 'pca.diffuse', expected for instance"),
        ({"pipeline_names": ["pca"], "namespaces": ["graph"]},
         "--namespaces: got 'graph', expected one of: pca"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_line(
    copy_of_the_run: Path, asked_for: dict[str, list[str]], message: str
) -> None:
    configure_kedro()
    with (
        settings.SESSION_CLASS.create(copy_of_the_run) as session,
        pytest.raises(UserError, match=f"^{message}") as caught,
    ):
        session.run(**asked_for)
    assert "\n" not in str(caught.value)


def test_a_name_that_one_node_only_has_may_be_short(copy_of_the_run: Path) -> None:
    configure_kedro()
    plot = copy_of_the_run / "data" / "08_reporting" / "pca_spectrum.png"
    before = plot.read_bytes()
    plot.unlink()
    with settings.SESSION_CLASS.create(copy_of_the_run) as session:
        session.run(node_names=["plot_pca_spectrum"])
    assert plot.read_bytes() == before
