"""Two runs on the same files: one works, the other says in one line why it does not."""

import os
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import settings
from kedro.runner import SequentialRunner

from lowshot_kedro.locks import lock_path
from lowshot_kedro.project.config import UserError
from tests.other_processes import another_process, claimed, read
from tests.projects import N_COMPONENTS, configure_kedro, read_metrics, run

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

PARAMETERS: dict[str, Any] = {
    "pca": {"n_components": N_COMPONENTS},
    "graph": {"k": 5, "n_background": 500},
    "logistic_regression": {"max_iterations": 20},
}


def files_of(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("pipeline", "result"),
    [
        ("graph", "knngraph/ndis500_k32_quality.json"),
        ("baseline", "08_reporting/baseline_metrics.json"),
        ("baseline", "06_models/logistic_regression.pt"),
        ("sweep", "08_reporting/sweep/metrics"),
        ("sweep", "08_reporting/sweep/hyperparameters.yml"),
    ],
)
def test_what_another_run_writes_is_named_before_any_work(
    project: Path, published: Path, pipeline: str, result: str
) -> None:
    results = published if result.startswith("knngraph") else project / "data" / "imagenet"
    before = files_of(published, project / "data")
    with another_process(claimed, results / result) as pid:
        message = rf": {results / result}: process {pid} \(.*\) has been writing it since 20"
        with pytest.raises(UserError, match=message) as caught:
            run(project, pipeline, env="imagenet", **PARAMETERS)
        assert "\n" not in str(caught.value)
        left = files_of(published, project / "data") - before
        assert {path.suffix for path in left} == {".lock"}
    assert files_of(published, project / "data") == before


def test_what_another_run_computes_is_not_read(project: Path, published: Path) -> None:
    features = published / "features" / "train.hdf5"
    with another_process(claimed, features) as pid:
        message = rf"train_features: {features}: process {pid} .* has been writing it since"
        with pytest.raises(UserError, match=message):
            run(project, "baseline", env="imagenet", **PARAMETERS)


def test_several_runs_read_the_same(project: Path, published: Path) -> None:
    with another_process(read, published / "features" / "train.hdf5"):
        run(project, "baseline", env="imagenet", **PARAMETERS)
        run(project, "graph", env="imagenet", **PARAMETERS)
    assert read_metrics(project, "baseline", "imagenet")["n_test"] > 0
    assert not [path for path in files_of(published, project) if "partial" in path.name]


def test_a_result_that_others_read_is_kept_but_not_computed_anew(
    project: Path, published: Path
) -> None:
    run(project, "graph", env="imagenet", **PARAMETERS)
    index = published / "knngraph" / "ndis500.index"
    graph = index.with_name("ndis500_k32_I_11.int32")
    made = (index.stat().st_mtime_ns, graph.stat().st_mtime_ns)
    with another_process(read, graph) as pid:
        run(project, "graph", env="imagenet", **PARAMETERS)
        with pytest.raises(UserError, match=rf"{graph}: process {pid} .* has been reading it"):
            run(
                project,
                "graph",
                env="imagenet",
                **{**PARAMETERS, "graph": {**PARAMETERS["graph"], "method": "ivf"}},
            )
        assert graph.stat().st_mtime_ns == made[1]
    assert not [path for path in files_of(published, project) if path.suffix == ".lock"]


def test_a_run_that_fails_lets_others_go_on(project: Path, published: Path) -> None:
    class_split = published / "label_idx.json"
    split = class_split.read_text()
    class_split.write_text(split.replace("8", "88"))
    with pytest.raises(UserError, match="88"):
        run(project, "baseline", env="imagenet", **PARAMETERS)
    class_split.write_text(split)
    with another_process(claimed, project / "data/imagenet/08_reporting/baseline_metrics.json"):
        pass
    run(project, "baseline", env="imagenet", **PARAMETERS)


def test_a_run_that_is_interrupted_lets_others_go_on(project: Path, published: Path) -> None:
    """Ctrl-C in a notebook, whose process goes on."""
    configure_kedro()
    metrics = project / "data" / "imagenet" / "08_reporting" / "baseline_metrics.json"

    class Interrupted(SequentialRunner):
        def run(self, *arguments: Any, **options: Any) -> Any:
            assert lock_path(metrics).exists()
            raise KeyboardInterrupt

    with (
        settings.SESSION_CLASS.create(
            project, env="imagenet", runtime_params=PARAMETERS
        ) as session,
        pytest.raises(KeyboardInterrupt),
    ):
        session.run(pipeline_names=["baseline"], runner=Interrupted())
    assert not lock_path(metrics).exists()
    with another_process(claimed, metrics):
        pass
