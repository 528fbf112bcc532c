"""Nodes of the training by SNCA, and of its evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lowshot_kedro import networks, reporting
from lowshot_kedro.blocks import (
    Blocks,
    FeatureMatrix,
    LabeledBlock,
    Resumable,
    RowBlocks,
    take_rows,
)
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ImageSource, ImageSubset
from lowshot_kedro.memory import peak_rss_bytes
from lowshot_kedro.networks.embedding_file import EmbeddingDescription, embedding_from_tensors
from lowshot_kedro.parameters import in_section
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.protocol import ExperimentParameters, read_class_split
from lowshot_kedro.snca.classes import trained_positions
from lowshot_kedro.snca.evaluation import (
    EvaluationPlan,
    KnnEvaluation,
    evaluate,
    plan_evaluation,
)
from lowshot_kedro.snca.extractor import extractor_of
from lowshot_kedro.snca.parameters import SNCAParameters
from lowshot_kedro.snca.training import SNCAJob
from lowshot_kedro.snca.training import train_snca as train

# Tensors by name, and the header that says what they are of.
NetworkFile = tuple[dict[str, Any], dict[str, str]]


def train_snca(
    train_images: ImageSource,
    test_images: ImageSource,
    class_split: dict[str, Any],
    snca: SNCAParameters,
    experiment: ExperimentParameters,
    snca_checkpoints: Path,
) -> tuple[NetworkFile, Blocks[LabeledBlock], pd.DataFrame]:
    """Train a network; if that has been stopped before, from the last checkpoint on."""
    # What cannot be judged is refused before it is trained.
    task = _plan(train_images, test_images, class_split, snca, experiment).base
    job = SNCAJob(
        images=ImageSubset(train_images, task.gallery),
        classes=task.gallery_classes.astype(np.int64),
        test_images=ImageSubset(test_images, task.test),
        test_classes=task.test_classes.astype(np.int64),
        parameters=snca,
        folder=snca_checkpoints,
    )
    trained = in_section("snca", lambda: train(job))
    network = (trained.network, trained.description.to_metadata())
    return network, trained.bank, pd.DataFrame(trained.table)


def _plan(
    train_images: ImageSource,
    test_images: ImageSource,
    class_split: dict[str, Any],
    snca: SNCAParameters,
    experiment: ExperimentParameters,
) -> EvaluationPlan:
    """Which images the evaluation compares with which."""
    settings = KnnEvaluation(
        k=snca.eval_k,
        temperature=snca.eval_temperature or snca.temperature,
        n_labeled=snca.eval_n_labeled,
        seeds=snca.eval_seeds,
    )
    split = read_class_split(class_split, experiment.mode) if snca.classes == "base" else None
    trained = in_section("snca", lambda: trained_positions(train_images.labels, split))
    return plan_evaluation(split, train_images.labels, test_images.labels, trained, settings)


def embed_images(
    images: ImageSource, snca_network: NetworkFile, snca: SNCAParameters
) -> Resumable[RowBlocks[LabeledBlock]]:
    """Embeddings of a collection on which nothing is random, computed while they are saved."""
    tensors, metadata = snca_network
    description = EmbeddingDescription.from_metadata(metadata, "snca_network")
    network = embedding_from_tensors(description, tensors, "snca_network")
    return in_section(
        "snca",
        lambda: networks.extract_features(
            extractor_of(network, description),
            images,
            batch_size=snca.batch_size,
            num_workers=snca.workers,
            device=snca.device,
            precision=snca.precision,
            compiled=None,
        ),
    )


def evaluate_snca(
    snca_network: NetworkFile,
    snca_bank: FeatureMatrix,
    snca_train_features: FeatureMatrix,
    snca_test_features: FeatureMatrix,
    train_images: ImageSource,
    test_images: ImageSource,
    class_split: dict[str, Any],
    snca: SNCAParameters,
    experiment: ExperimentParameters,
) -> dict[str, Any]:
    """Accuracy of k-NN classification on the bank and on fresh embeddings.

    In memory: the bank, and the embeddings of training and test images that are compared.

    Raises:
        ValueError: If network and bank are not of these images.
    """
    watch = Stopwatch()
    facts = EmbeddingDescription.from_metadata(snca_network[1], "snca_network").facts
    plan = _plan(train_images, test_images, class_split, snca, experiment)
    trained_on = ImageSubset(train_images, plan.base.gallery)
    if facts.get("images") != json.loads(json.dumps(trained_on.describe())):
        raise InputError(
            "snca_network: was trained on other images than those of the classes that "
            "snca.classes, experiment.mode and the class split name",
            made_by="snca",
        )
    if not np.array_equal(snca_bank.labels, trained_on.labels):
        raise InputError(
            f"{snca_bank.name}: {snca_bank.n_rows} rows, whose labels are not those of the "
            f"{len(trained_on)} images that snca_network was trained on",
            made_by="snca",
        )
    bank = snca_bank.read(0, snca_bank.n_rows)
    found = evaluate(plan, bank, snca_train_features, snca_test_features)
    return {
        "experiment": {"mode": experiment.mode, "snca": asdict(snca)},
        **found,
        "seconds": {"evaluation": watch.seconds},
        "peak_rss_bytes": peak_rss_bytes(),
    }


def plot_snca_curves(snca_training: pd.DataFrame) -> Figure:
    """Loss, learning rate and accuracies of the epochs."""
    return reporting.plot_training_curves(snca_training)


def plot_snca_neighbors(
    snca_train_features: FeatureMatrix,
    snca_test_features: FeatureMatrix,
    train_images: ImageSource,
    test_images: ImageSource,
    class_split: dict[str, Any],
    snca: SNCAParameters,
    experiment: ExperimentParameters,
) -> Figure:
    """Some test images with the training images that are most similar to them.

    Where base classes are trained on, base and novel classes of the mode are shown, these with a
    star. In memory: the embeddings of their images, those of training twice.
    """
    split = read_class_split(class_split, experiment.mode)
    is_base = snca.classes == "base"
    shown = np.union1d(split.base_classes, split.novel_classes) if is_base else None
    queries, gallery = (
        _embedded(images, features, shown)
        for images, features in (
            (test_images, snca_test_features),
            (train_images, snca_train_features),
        )
    )
    rows = reporting.nearest_image_rows(
        queries,
        gallery,
        split.class_names,
        snca.eval_temperature or snca.temperature,
        n_queries=snca.n_images,
        starred=split.novel_classes.tolist() if is_base else (),
    )
    return reporting.plot_nearest_images(rows, "not trained on" if is_base else "")


def _embedded(
    images: ImageSource, features: FeatureMatrix, labels: NDArray[np.int64] | None
) -> reporting.EmbeddedImages:
    """The images of some labels with their embeddings; None: all images."""
    of_labels = np.isin(features.labels, labels) if labels is not None else features.labels >= 0
    positions = np.flatnonzero(of_labels)
    return reporting.EmbeddedImages(ImageSubset(images, positions), take_rows(features, positions))
