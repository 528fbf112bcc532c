"""Few-shot episodes: every method over the same ones."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.episodes.nodes import (
    choose_environment_images,
    choose_few_shot_images,
    classify_episodes,
    extract_episode_features,
    plot_episodes,
    plot_matching,
    tabulate_episodes,
)


def create_pipeline(dataset: str = "environment") -> Pipeline:
    """Images → regions, in one pass of the network → accuracies of every episode → table, plots.

    Args:
        dataset: Where the images come from: the parameter `episodes.dataset`.
    """
    return pipeline(
        [
            (
                node(
                    choose_environment_images,
                    inputs=[
                        "test_images",
                        "class_split",
                        "params:episodes",
                        "params:deepemd",
                        "params:experiment",
                    ],
                    outputs="episode_images",
                    name="choose_episode_images",
                )
                if dataset == "environment"
                else node(
                    choose_few_shot_images,
                    inputs=["few_shot_images", "params:episodes", "params:deepemd"],
                    outputs="episode_images",
                    name="choose_episode_images",
                )
            ),
            node(
                extract_episode_features,
                inputs=["episode_images", "params:episodes", "params:deepemd"],
                outputs="episode_features",
                name="extract_episode_features",
            ),
            node(
                classify_episodes,
                inputs=[
                    "episode_images",
                    "episode_features",
                    "params:episodes",
                    "params:deepemd",
                    "episode_checkpoints",
                ],
                outputs=["episode_accuracies", "episode_seconds"],
                name="classify_episodes",
            ),
            node(
                tabulate_episodes,
                inputs=[
                    "episode_accuracies",
                    "episode_seconds",
                    "params:episodes",
                ],
                outputs=["episodes_table", "episodes_markdown"],
                name="tabulate_episodes",
            ),
            node(
                plot_episodes,
                inputs=["episodes_table", "params:episodes"],
                outputs="episodes_plot",
                name="plot_episodes",
            ),
            node(
                plot_matching,
                inputs=[
                    "episode_images",
                    "episode_features",
                    "params:episodes",
                    "params:deepemd",
                ],
                outputs="matching_plot",
                name="plot_matching",
            ),
        ],
        namespace="episodes",
        prefix_datasets_with_namespace=False,
    )
