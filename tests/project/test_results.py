"""What a run ends with."""

import os
import re
from pathlib import Path

import pytest

from tests.projects import copy_project, run, write_published_files

pytestmark = pytest.mark.filterwarnings("ignore:register_new_resolver:UserWarning")

PARAMETERS = {
    "pca": {"n_components": 16},
    "graph": {"n_background": 500, "k": 10},
    "logistic_regression": {"max_iterations": 10, "eval_every": 10},
    "diffusion": {"n_iterations": 2},
}
LAYERS = "06_models", "07_model_output", "08_reporting"
MODELS, SCORES, REPORTS = (f"data/imagenet/{layer}" for layer in LAYERS)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    """Paths of temporary folders are long."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a graph. Its data lie elsewhere."""
    root = tmp_path_factory.mktemp("results")
    (root / "project").mkdir()
    project = copy_project(root / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDIR", str(write_published_files(root / "published")))
        run(project, "graph", env="imagenet", **PARAMETERS)
        yield project


def printed(capfd, project, *pipelines, **changes):
    """The lines after the last one of the log."""
    capfd.readouterr()
    run(project, *pipelines, env="imagenet", **{**PARAMETERS, **changes})
    out = capfd.readouterr().out
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    last = max(number for number, line in enumerate(lines) if "INFO" in line or "WARNING" in line)
    # A narrow terminal breaks lines of the log.
    broken_off = re.compile("(peak|memory|[0-9.]+| |.iB)+")
    return [line for line in lines[last + 1 :] if not broken_off.fullmatch(line)]


def folders(lines):
    """What is said to be in which folder."""
    text = " ".join(lines[lines.index("Results:") + 1 :])
    found = re.findall(r"(\S+/\S+)((?:\s+[^\s/]+,)*\s+[^\s/]+)", text)
    return {folder: re.split(r",\s+", names.strip()) for folder, names in found}


def test_accuracies_and_their_files_are_the_last_that_is_said(project, capfd):
    lines = printed(capfd, project, "baseline")
    assert "seed 1" in lines[0]
    assert [line for line in lines if "logistic regression" in line]
    assert "peak" not in " ".join(lines)
    assert folders(lines) == {
        MODELS: ["logistic_regression.pt"],
        SCORES: ["baseline_scores.hdf5"],
        REPORTS: ["baseline_metrics.json"],
    }
    for folder, names in folders(lines).items():
        assert all((project / folder / name).is_file() for name in names)


def test_methods_that_ran_together_are_in_one_table(project, capfd):
    lines = printed(capfd, project, "baseline", "diffusion")
    assert sum("Accuracy" in line for line in lines) == 1
    assert sum(line.startswith(("│ logistic", "│ diffusion")) for line in lines) == 2
    assert folders(lines)[SCORES] == ["baseline_scores.hdf5", "diffusion_scores.hdf5"]


def test_a_graph_ends_with_its_recall_and_files_elsewhere_have_whole_paths(project, capfd):
    lines = printed(capfd, project, "graph")
    assert lines[0].startswith("Background graph of 500 images: recall@10 ")
    (folder,) = folders(lines)
    assert folder == str(Path(os.environ["DDIR"]) / "knngraph")
    assert "ndis500.index" in folders(lines)[folder]


def test_time_and_memory_of_the_nodes_on_request(project, capfd):
    lines = printed(capfd, project, "graph", reporting={"show_resources": True})
    table = lines.index("Time and memory")
    assert table < lines.index("Results:")
    for node in ("build_background_index", "build_background_graph", "measure_background_graph"):
        assert sum(node in line for line in lines[table:]) == 1


def test_a_result_that_cannot_be_shown_does_not_spoil_the_run(project, capfd, monkeypatch):
    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr("lowshot_kedro.reporting.print_comparison", fail)
    capfd.readouterr()
    run(project, "baseline", env="imagenet", **PARAMETERS)
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert any("the disk is gone" in line for line in lines)
    assert folders(lines)[MODELS] == ["logistic_regression.pt"]
