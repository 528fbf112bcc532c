"""Nodes of few-shot episodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lowshot_kedro import networks, reporting
from lowshot_kedro.blocks import VIEWS, LabeledBlock, RegionFeatures, Resumable, RowBlocks, View
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.episodes.choice import chosen_methods
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.evaluation import evaluate_episodes
from lowshot_kedro.episodes.images import EpisodeImages, given_images, images_of_classes
from lowshot_kedro.episodes.methods import EpisodeMethod, MethodOptions
from lowshot_kedro.episodes.methods.deepemd_fcn import DeepEMDFCN
from lowshot_kedro.episodes.parameters import EpisodesParameters
from lowshot_kedro.images import FewShotImages, ImageSource
from lowshot_kedro.parameters import AUTO, field_names, in_section
from lowshot_kedro.protocol import ExperimentParameters, read_class_split

# The regions of all images in one form, and their shape (C, H, W).
ViewContent = tuple[Resumable[RowBlocks[LabeledBlock]], tuple[int, int, int]]


def choose_environment_images(
    test_images: ImageSource,
    class_split: dict[str, Any],
    episodes: EpisodesParameters,
    deepemd: DeepEMDParameters,
    experiment: ExperimentParameters,
) -> EpisodeImages:
    """The test images of the environment, of all classes or of the base or novel ones of a mode."""
    split = read_class_split(class_split, experiment.mode)
    chosen = in_section("episodes", lambda: images_of_classes(test_images, split, episodes.classes))
    return _checked(chosen, episodes, deepemd)


def choose_few_shot_images(
    few_shot_images: FewShotImages | RegionFeatures,
    episodes: EpisodesParameters,
    deepemd: DeepEMDParameters,
) -> EpisodeImages:
    """The images of a data set, or features of images that are not at hand."""
    return _checked(given_images(few_shot_images), episodes, deepemd)


def _checked(
    images: EpisodeImages, episodes: EpisodesParameters, deepemd: DeepEMDParameters
) -> EpisodeImages:
    """Refuse, before features are computed, what there are no episodes of, or no method for."""
    in_section("episodes", lambda: episodes.sampler(images.labels, images.class_names))
    _methods(images, images.views, episodes, deepemd)
    return images


def extract_episode_features(
    episode_images: EpisodeImages, episodes: EpisodesParameters, deepemd: DeepEMDParameters
) -> dict[View, ViewContent]:
    """The regions of all images in every form that a method looks at, computed while saved."""
    if episode_images.images is None:
        return {}
    images = episode_images.images
    views = _needed_views(episode_images, episodes, deepemd)

    def begin() -> dict[View, ViewContent]:
        # Whoever runs another pipeline may have no PyTorch.
        from lowshot_kedro.deepemd.regions import images_per_pass, view_extractor

        dense = networks.create_dense_network(
            episodes.backbone, episodes.weights, episodes.image_size
        )
        contents: dict[View, ViewContent] = {}
        for view in views:
            extractor = view_extractor(dense, view, deepemd, episodes.seed)
            rows = networks.extract_features(
                extractor,
                images,
                batch_size=images_per_pass(extractor, view, episodes.batch_size),
                num_workers=None if episodes.num_workers == AUTO else int(episodes.num_workers),
                device=episodes.device,
                precision=episodes.precision,
            )
            contents[view] = rows, extractor.shape
        return contents

    return in_section("episodes", begin)


def classify_episodes(
    episode_images: EpisodeImages,
    episode_features: Mapping[View, RegionFeatures],
    episodes: EpisodesParameters,
    deepemd: DeepEMDParameters,
    episode_checkpoints: Path,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Accuracies of all methods over the same episodes, and seconds for one of them.

    In memory: the images of one episode.
    """
    needed = _needed_views(episode_images, episodes, deepemd)
    views = {view: _views(episode_images, episode_features)[view] for view in needed}
    found = in_section(
        "episodes",
        lambda: evaluate_episodes(
            views,
            episode_images.labels,
            # The others ask for the same methods, of which the log speaks once.
            _methods(episode_images, views, episodes, deepemd, says_why=True),
            episodes,
            folder=episode_checkpoints,
        ),
    )
    return found.episode_accuracies, dict(found.seconds_per_episode)


def tabulate_episodes(
    episode_accuracies: pd.DataFrame,
    episode_seconds: dict[str, float],
    episodes: EpisodesParameters,
) -> tuple[pd.DataFrame, str]:
    """The table of the methods, as a frame and as Markdown; it is printed, too."""
    table = reporting.episodes_table(episode_accuracies, episode_seconds)
    caption = reporting.describe_episodes(episodes)
    reporting.print_episodes(table, caption)
    return table, reporting.episodes_to_markdown(table, caption)


def plot_episodes(episodes_table: pd.DataFrame, episodes: EpisodesParameters) -> Figure:
    """Accuracies of the methods with their intervals."""
    return reporting.plot_episodes(episodes_table, reporting.describe_episodes(episodes))


def plot_matching(
    episode_images: EpisodeImages,
    episode_features: Mapping[View, RegionFeatures],
    episodes: EpisodesParameters,
    deepemd: DeepEMDParameters,
) -> Figure:
    """Which regions of some query images of the first episode flow where, by DeepEMD-FCN."""
    images = episode_images.images
    if images is None:
        return reporting.empty_figure("the images of these features are not at hand")
    _, height, width = episode_features["map"].shape
    if height * width == 1:
        return reporting.empty_figure("the network has one region for an image of this size")
    rows = next(iter(episodes.sampler(episode_images.labels)))
    n_support = episodes.n_way * episodes.n_shot
    views: dict[View, RegionFeatures] = {"map": episode_features["map"]}
    return reporting.plot_episode_matching(
        DeepEMDFCN(MethodOptions(episodes.seed, deepemd)),
        Episode(0, rows[:n_support], rows[n_support:], episodes.n_way, views),
        images,
        networks.create_dense_network(episodes.backbone, episodes.weights, episodes.image_size),
        episode_images.class_name,
        episodes.n_images,
    )


def _views(
    images: EpisodeImages, features: Mapping[View, RegionFeatures]
) -> Mapping[View, RegionFeatures]:
    return images.views or features


def _needed_views(
    images: EpisodeImages, episodes: EpisodesParameters, deepemd: DeepEMDParameters
) -> list[View]:
    """The forms that methods look at; those that another run has left are of other images."""
    looked_at = {method.view for method in _methods(images, images.views, episodes, deepemd)}
    # The map is what the plot of the matching shows, too.
    return [view for view in VIEWS if view == "map" or view in looked_at]


def _methods(
    images: EpisodeImages,
    views: Collection[View],
    episodes: EpisodesParameters,
    deepemd: DeepEMDParameters,
    *,
    says_why: bool = False,
) -> list[EpisodeMethod]:
    """The methods that are compared, ready to classify."""
    at_hand = views or (images.views if images.images is None else VIEWS)
    options = MethodOptions(episodes.seed, deepemd)
    # A solver may lack its library, which is no matter of the section of the methods.
    return in_section(
        "deepemd",
        lambda: in_section(
            "episodes",
            lambda: chosen_methods(episodes.methods, options, at_hand, says_why=says_why),
            ("methods",),
        ),
        field_names(DeepEMDParameters),
    )
