"""The pipelines that `kedro run --pipelines` knows."""

from kedro.pipeline import Pipeline

from lowshot_kedro.pipelines import (
    baseline,
    deepercluster,
    demonstration,
    diffusion,
    episodes,
    evaluation,
    features,
    graph,
    labeling,
    pca,
    snca,
    sweep,
)

_EXPERIMENT = (features, pca, graph, baseline, diffusion, evaluation)


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines by name.

    `experiment` is the six pipelines from images to tables. `__default__` begins with the
    demonstration's images; an environment that brings its own leaves them out (see hooks.py).
    `sweep` repeats the experiment with what these have made, and is no part of it. `snca`,
    `deepercluster` and `episodes` need the images alone. `labeling` begins with images too, but
    wants no test set.
    """
    pipelines = {
        module.__name__.rpartition(".")[2]: module.create_pipeline()
        for module in (demonstration, *_EXPERIMENT)
    }
    pipelines["experiment"] = sum(
        (module.create_pipeline() for module in _EXPERIMENT), start=Pipeline([])
    )
    pipelines["__default__"] = pipelines["demonstration"] + pipelines["experiment"]
    pipelines["snca"] = snca.create_pipeline()
    pipelines["deepercluster"] = deepercluster.create_pipeline()
    pipelines["episodes"] = episodes.create_pipeline()
    pipelines["labeling"] = (
        pipelines["features"].filter(
            node_names=[
                f"features.extract_{collection}_features" for collection in ("train", "background")
            ]
        )
        + pipelines["pca"].filter(node_names=["pca.train_pca", "pca.apply_pca"])
        + pipelines["graph"].filter(
            node_names=["graph.build_background_index", "graph.build_background_graph"]
        )
        + labeling.create_pipeline()
    )
    pipelines["sweep"] = sweep.create_pipeline()
    for phase in ("validation", "test", "report"):
        pipelines[f"sweep_{phase}"] = pipelines["sweep"].only_nodes_with_tags(phase)
    return pipelines
