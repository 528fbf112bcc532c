"""The pipelines that `kedro run --pipeline` knows."""

from kedro.pipeline import Pipeline

from lowshot_kedro.pipelines import (
    baseline,
    demonstration,
    diffusion,
    evaluation,
    features,
    graph,
    pca,
)

_EXPERIMENT = (features, pca, graph, baseline, diffusion, evaluation)


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines by name.

    `experiment` is the six pipelines from pictures to tables. `__default__` begins with the
    demonstration's pictures; an environment that brings its own leaves them out (see hooks.py).
    """
    pipelines = {
        module.__name__.rpartition(".")[2]: module.create_pipeline()
        for module in (demonstration, *_EXPERIMENT)
    }
    pipelines["experiment"] = sum(
        (module.create_pipeline() for module in _EXPERIMENT), start=Pipeline([])
    )
    pipelines["__default__"] = pipelines["demonstration"] + pipelines["experiment"]
    return pipelines
