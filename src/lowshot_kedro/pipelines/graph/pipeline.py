"""The k-NN graph over the background."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.graph.nodes import (
    build_background_graph,
    build_background_index,
    measure_background_graph,
)


def create_pipeline() -> Pipeline:
    """Background vectors → index → graph → its recall."""
    return pipeline(
        [
            node(
                build_background_index,
                inputs=["background_vectors", "params:graph"],
                outputs="background_index",
                name="build_background_index",
            ),
            node(
                build_background_graph,
                inputs=["background_index", "background_vectors", "params:graph"],
                outputs="background_graph",
                name="build_background_graph",
            ),
            node(
                measure_background_graph,
                inputs=["background_graph", "background_vectors", "params:graph"],
                outputs="background_graph_quality",
                name="measure_background_graph",
            ),
        ],
        namespace="graph",
        prefix_datasets_with_namespace=False,
    )
