"""What a sweep looks at before its runs begin."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import graph as graph_domain
from lowshot_kedro.blocks import FeatureMatrix
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.methods import METHODS
from lowshot_kedro.pca import describe_features, describe_transform
from lowshot_kedro.protocol import MODES, ExperimentParameters, ImageSelection, choose_images
from lowshot_kedro.sweep.parameters import SweepParameters
from lowshot_kedro.sweep.plan import (
    ImageCounts,
    SweepData,
    SweepSettings,
    possible_images,
    possible_methods,
    unlabeled_images,
)
from lowshot_kedro.sweep.runs import UnlabeledImages, labeled_name

logger = logging.getLogger(__name__)


class Catalog(Protocol):
    """Datasets by name."""

    def load(self, name: str) -> Any:
        """Open a dataset."""
        ...

    def save(self, name: str, data: Any) -> None:
        """Write a dataset."""
        ...


def build_background_graph(catalog: Catalog, parameters: GraphParameters) -> None:
    """Build index and graph over a background, as far as they are not there.

    Args:
        catalog: Its `background_vectors` are those of this background.
        parameters: How they are built.
    """
    vectors = catalog.load("background_vectors")
    if len(vectors) == 0:
        return
    how = (parameters.method, parameters.target_recall, parameters.memory_budget_bytes)
    stored_k = catalog.load("params:graph").stored_k
    catalog.save("background_index", graph_domain.build_index(vectors, *how))
    index = catalog.load("background_index")
    catalog.save("background_graph", graph_domain.background_graph(index, vectors, stored_k, *how))


def describe_data(
    class_split: Mapping[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    pca_transform: faiss.VectorTransform,
    backgrounds: Mapping[int | None, graph_domain.UnlabeledNodes],
    settings: SweepSettings,
) -> SweepData:
    """Sizes and checksums of the data, after a look at which runs are possible.

    Args:
        class_split: Content of the class split file.
        train_features: The training set.
        test_features: The test set.
        pca_transform: The PCA.
        backgrounds: By `graph.n_background`.
        settings: Parameters.

    Raises:
        ValueError: If classes and images do not go together, a stored graph has too few columns, or
            no run is possible.
    """
    sweep = settings.sweep
    counts: dict[tuple[str, int | None], ImageCounts] = {}
    for mode in MODES:
        for n_labeled in sweep.n_labeled:
            selection = _select(class_split, train_features, test_features, mode, n_labeled)
            counts[mode, n_labeled] = ImageCounts(
                len(selection.labeled_positions),
                len(selection.unlabeled_positions),
                len(selection.test_positions),
                selection.n_classes,
            )
    facts = {
        "class_split": _checksum(json.dumps(class_split, sort_keys=True).encode()),
        "train_features": _describe_labeled(train_features),
        "test_features": _describe_labeled(test_features),
        "pca_transform": describe_transform(pca_transform),
    }
    data = SweepData(
        counts,
        {n_background: len(nodes.vectors) for n_background, nodes in backgrounds.items()},
        train_features.n_columns,
        pca_transform.d_out,
        facts,
        {
            n_background: {
                "vectors": graph_domain.describe_vectors(nodes.vectors),
                "index": graph_domain.describe_index(nodes.search_index),
                "graph": graph_domain.describe_vectors(nodes.neighbors.indices),
            }
            for n_background, nodes in backgrounds.items()
        },
    )
    _require_stored_graphs(sweep, data, backgrounds)
    _log_numbers(sweep, data, train_features.n_rows)
    _log_left_out(sweep, data)
    if not possible_methods(sweep, data):
        few = min(min(data.n_images(n_labeled, None)) for n_labeled in sweep.n_labeled)
        left_out = {
            name: METHODS[name].left_out(sweep.grids.get(name), few)[0] for name in sweep.methods
        }
        names = [f"sweep.{name}.{parameter}" for name, parameter in left_out.items() if parameter]
        raise InputError(
            "but there are too few images for the neighbours of each",
            parameter="sweep.methods",
            found=list(sweep.methods),
            expected=f"a smaller {', '.join(names)}",
        )
    return data


def possible_sweep(
    sweep: SweepParameters,
    class_split: Mapping[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    n_background: int,
) -> SweepParameters:
    """The sweep without numbers of images that there are not, which are named in the log.

    Args:
        sweep: The sweep that was asked for.
        class_split: Content of the class split file.
        train_features: The training set.
        test_features: The test set.
        n_background: Images of the whole background.

    Raises:
        ValueError: If no number is left, or nothing can be chosen by `sweep.metric`.
    """
    of_mode = {
        mode: _select(class_split, train_features, test_features, mode, None) for mode in MODES
    }
    _require_telling_metric(of_mode["val"], sweep.metric)
    largest = min(
        int(np.bincount(selection.labeled_classes)[selection.is_novel].max())
        for selection in of_mode.values()
    )
    reason = f"no novel class has more than {largest} labelled image{'' if largest == 1 else 's'}"
    possible = replace(sweep, n_labeled=_up_to(largest, "n_labeled", sweep.n_labeled, reason))
    if list(sweep.unlabeled) != ["train"]:
        reason = f"the background has {n_background} image{'' if n_background == 1 else 's'}"
        sizes = _up_to(n_background, "n_background", sweep.n_background, reason)
        possible = replace(possible, n_background=sizes)
    return possible


def _up_to(
    limit: int, name: str, asked: Sequence[int | None], reason: str
) -> tuple[int | None, ...]:
    """The numbers that are possible, None being all."""
    possible = tuple(number for number in asked if number is None or number <= limit)
    if not possible:
        raise InputError(
            f"sweep.{name}: got {list(asked)}, but {reason}; expected no more, or null = all"
        )
    too_large = [str(number) for number in asked if number not in possible]
    if too_large:
        logger.warning("sweep.%s: %s left out, as %s", name, ", ".join(too_large), reason)
    return possible


def _select(
    class_split: Mapping[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    mode: str,
    n_labeled: int | None,
) -> ImageSelection:
    """Images of a mode; how many there are does not depend on the seed."""
    experiment = ExperimentParameters(mode, n_labeled, 0, "none")
    return choose_images(class_split, train_features, test_features, experiment)


def _require_telling_metric(selection: ImageSelection, metric: str) -> None:
    """Refuse an accuracy by which nothing can be chosen: of nothing, or always 1."""
    top, _, group = metric.partition("_")
    k, n_classes = int(top.removeprefix("top")), selection.n_classes
    if k >= n_classes:
        raise InputError(
            f"sweep.metric: got {metric!r}, but with {n_classes} classes in mode val {k} guesses "
            f"are always right; expected a k below {n_classes}, among evaluation.top_k too"
        )
    is_novel = selection.is_novel[selection.test_classes]
    if not {"": True, "novel": is_novel.any(), "base": not is_novel.all()}[group]:
        raise InputError(
            f"sweep.metric: got {metric!r}, but no test image of mode val is of a {group} class; "
            f"expected {top}"
        )


def _log_numbers(sweep: SweepParameters, data: SweepData, n_train: int) -> None:
    """Say how many labels are used."""
    for mode in MODES:
        numbers = ", ".join(
            f"{data.counts[mode, n_labeled].n_labeled} for {labeled_name(n_labeled)}"
            for n_labeled in sweep.n_labeled
        )
        logger.info(
            "mode %s: of %d labelled images sweep.n_labeled uses %s", mode, n_train, numbers
        )


def _log_left_out(sweep: SweepParameters, data: SweepData) -> None:
    """Log for each part of the grid that needs more images than there are that it is left out."""
    for method in METHODS.values():
        if method.name not in sweep.methods or method.parts:
            continue
        found: dict[tuple[str, str], list[str]] = {}
        for n_labeled in sweep.n_labeled:
            for unlabeled in unlabeled_images(sweep, method):
                n_images = min(data.n_images(n_labeled, unlabeled))
                name, values = method.left_out(sweep.grids.get(method.name), n_images)
                if values:
                    place = f"{n_images} ({_described(n_labeled, unlabeled)})"
                    found.setdefault((name, ", ".join(map(str, values))), []).append(place)
        for name in dict.fromkeys(name for name, _ in found):
            places = [
                f"{values} of {', '.join(of_values)}"
                for (of_name, values), of_values in found.items()
                if of_name == name
            ]
            logger.warning(
                "sweep.%s.%s: left out where there are fewer images: %s",
                method.name,
                name,
                "; ".join(places),
            )


def _described(n_labeled: int | None, unlabeled: UnlabeledImages | None) -> str:
    """Which images a run uses, for a message."""
    labels = "all labels" if n_labeled is None else f"n_labeled {n_labeled}"
    if unlabeled is None:
        return labels
    if unlabeled.kind == "train":
        return f"{labels}, unlabelled training images"
    n_background = unlabeled.n_background
    background = {None: "all the background", 0: "no background"}.get(
        n_background, f"{n_background} of the background"
    )
    more = ", unlabelled training images" if unlabeled.kind == "both" else ""
    return f"{labels}, {background}{more}"


def _require_stored_graphs(
    sweep: SweepParameters,
    data: SweepData,
    backgrounds: Mapping[int | None, graph_domain.UnlabeledNodes],
) -> None:
    """Refuse stored graphs that the methods cannot work with, before the first run."""
    for name in sweep.methods:
        method, grid = METHODS[name], sweep.grids.get(name)
        most = method.max_neighbors(grid)
        if not most:
            continue
        for (n_labeled, unlabeled), mode in product(possible_images(sweep, data, method), MODES):
            if unlabeled is None or unlabeled.kind == "train":
                continue
            counts, nodes = data.counts[mode, n_labeled], backgrounds[unlabeled.n_background]
            n_training = counts.n_labeled + (counts.n_unlabeled if unlabeled.kind == "both" else 0)
            k = max(
                settings["k"]
                for settings in method.candidates(grid, min(data.n_images(n_labeled, unlabeled)))
            )
            graph_domain.require_sizes(n_training, nodes, k=k)


def _describe_labeled(features: FeatureMatrix) -> dict[str, Any]:
    labels: NDArray[np.int32] = np.ascontiguousarray(features.labels)
    return {**describe_features(features), "labels": _checksum(labels.tobytes())}


def _checksum(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"
