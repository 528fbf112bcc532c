"""Kedro's runners."""

from __future__ import annotations

import pickle
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.runner import ParallelRunner, ThreadRunner

from lowshot_kedro.errors import InputError
from lowshot_kedro.project.config import UserError
from lowshot_kedro.project.hooks import ErrorHooks, keep_causes
from tests.projects import N_COMPONENTS, configure_kedro, read_metrics, run
from tests.quick_kedro import Command

pytestmark = pytest.mark.filterwarnings("ignore:register_new_resolver:UserWarning")

PARAMETERS = {
    "pca": {"n_components": N_COMPONENTS},
    "graph": {"n_background": 500, "k": 10},
    "diffusion": {"n_iterations": 2},
}
OPTIONS = f"pca.n_components={N_COMPONENTS},graph.n_background=500,graph.k=10"


def run_with(runner, project: Path, *pipelines: str, **selection):
    configure_kedro()
    with KedroSession.create(
        project_path=project, env="imagenet", runtime_params=PARAMETERS
    ) as session:
        session.run(pipeline_names=list(pipelines), runner=runner, **selection)


@pytest.mark.parametrize(
    ("pipeline", "selection", "named"),
    [
        ("baseline", {}, "image_selection;"),
        ("diffusion", {}, "diffusion.image_selection, extended_graph, graph_seconds, test_"),
        ("sweep", {}, "best_hyperparameters, prepared_sweep;"),
        ("diffusion", {"to_nodes": ["diffusion.select_images"]}, "image_selection;"),
    ],
)
def test_processes_that_would_have_to_share_memory_are_refused_before_all(
    project: Path, published: Path, pipeline: str, selection: dict[str, list[str]], named: str
) -> None:
    # Nothing is there; but the runner is what has to be changed first.
    with pytest.raises(UserError) as caught:
        run_with(ParallelRunner(max_workers=1), project, pipeline, **selection)
    message = str(caught.value)
    assert message.startswith("ParallelRunner: ") and "\n" not in message
    assert named in message and "SequentialRunner" in message
    assert not (project / "data").exists()


def test_what_is_kept_on_disk_can_be_made_by_several_processes(
    project: Path, published: Path
) -> None:
    arguments = ("run", "--env", "imagenet", "--runner", "ParallelRunner", "--pipelines", "graph")
    status, printed = Command(project, *arguments, "--params", OPTIONS).wait()
    assert status == 0, printed
    # The hooks of nodes, in other processes; and those of the pipeline, here.
    assert "measure_background_graph: " in printed
    assert "recall@10 1.0000" in printed
    assert (published / "knngraph" / "ndis500.index").is_file()


def test_threads_give_the_same(project: Path, published: Path) -> None:
    run(project, "graph", "diffusion", env="imagenet", **PARAMETERS)
    expected = read_metrics(project, "diffusion", "imagenet")["per_iteration"]
    run_with(ThreadRunner(max_workers=3, is_async=True), project, "graph", "diffusion")
    assert read_metrics(project, "diffusion", "imagenet")["per_iteration"] == expected


def shown(error: Exception, project: Path) -> Exception:
    """What the error hook makes of an error."""
    hooks = ErrorHooks()
    given = {"project_path": str(project), "env": "imagenet", "runtime_params": {}}
    try:
        hooks.on_pipeline_error(error, given)
    except UserError as raised:
        return raised
    return error


@pytest.fixture
def causes_are_sent() -> None:
    """Also where another test has used Dask."""
    keep_causes()


def dataset_error(cause: Exception, depth: int = 1) -> DatasetError:
    error: Exception = cause
    for _ in range(depth):
        try:
            raise DatasetError("Failed while saving data") from error
        except DatasetError as raised:
            error = raised
    assert isinstance(error, DatasetError)
    return error


@pytest.mark.usefixtures("causes_are_sent")
@pytest.mark.parametrize("cause", [InputError("too few rows"), FileNotFoundError("no file")])
@pytest.mark.parametrize("depth", [1, 2])
def test_an_error_about_input_is_one_line_from_other_processes_too(
    project: Path, cause: Exception, depth: int
) -> None:
    error = dataset_error(cause, depth)
    assert str(shown(error, project)) == str(cause)
    # As it comes from another process, which may have got it from one itself.
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))
    copy.__cause__ = RuntimeError("a remote traceback")
    assert type(copy) is DatasetError and copy.args == error.args
    assert isinstance(shown(copy, project), UserError)
    assert str(shown(copy, project)) == str(cause)


class Unpicklable(InputError):
    def __reduce__(self):
        raise TypeError("cannot be pickled")


@pytest.mark.usefixtures("causes_are_sent")
@pytest.mark.parametrize("error", [DatasetError("alone"), dataset_error(Unpicklable("x"))])
def test_an_error_without_a_cause_that_can_be_sent_is_sent_alone(error: DatasetError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is DatasetError and copy.args == error.args


def test_a_defect_keeps_its_traceback(project: Path) -> None:
    error = dataset_error(KeyError("x"))
    assert shown(error, project) is error
    assert shown(pickle.loads(pickle.dumps(error)), project) is not None
    assert not isinstance(shown(pickle.loads(pickle.dumps(error)), project), UserError)


def test_a_process_that_died_is_told_of(project: Path) -> None:
    told = shown(BrokenProcessPool("abruptly"), project)
    assert isinstance(told, UserError) and "one of its processes died" in str(told)


def test_commands_in_errors_are_about_the_same_files(project: Path) -> None:
    told = shown(InputError("a is missing", made_by="sweep_test"), project)
    assert str(told).startswith("a is missing; make it with: ")
    assert "kedro run --env imagenet --pipelines sweep_test" in str(told)
