"""Tens of images, and none at all, all the way from files to a graph with labelled nodes."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lowshot_kedro.blocks import take_rows
from lowshot_kedro.datasets import (
    FaissIndexDataset,
    FaissTransformDataset,
    HDF5FeatureBlocksDataset,
    HDF5FeaturesDataset,
    KnnGraphDataset,
    RawMatrixDataset,
)
from lowshot_kedro.graph import (
    UnlabeledNodes,
    background_graph,
    build_index,
    insert_labeled_nodes,
    measure_quality,
    normalize,
)
from lowshot_kedro.images.image_files import ImageFiles
from lowshot_kedro.labeling.nodes import JoinedFeatures, NodeVectors
from lowshot_kedro.networks import Extractor, Preprocessing, extract_features
from lowshot_kedro.pca import apply_pca, apply_transform, train_pca
from lowshot_kedro.reporting import describe_broken_images, plot_spectrum

# More than there are images, but for the largest collection; and numbers of a feature.
N_COMPONENTS, N_COLUMNS = 64, 75
STORED_K = 32


def unchanged(image):
    return image


EXTRACTOR = Extractor(
    "pixels", torch.nn.Flatten(), Preprocessing(unchanged, (0, 0, 0), (1, 1, 1)), N_COLUMNS
)


def images_in(folder: Path, n_images: int, seed: int, equal: bool = False) -> ImageFiles:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n_images, 5, 5, 3), dtype=np.uint8)
    names = [f"{number:03d}.png" for number in range(n_images)]
    for name, values in zip(
        names, pixels[:1].repeat(n_images, 0) if equal else pixels, strict=True
    ):
        Image.fromarray(values).save(folder / name)
    return ImageFiles("images", folder, folder, names, [0] * n_images)


def saved(dataset, result):
    dataset.save(result)
    return dataset.load()


def features_of(dataset, images):
    return saved(
        dataset, extract_features(EXTRACTOR, images, batch_size=8, num_workers=0, device="cpu")
    )


class Chain:
    """Everything from image files to a graph, saved and loaded on the way as a run does."""

    def __init__(self, folder: Path, n_images: int, n_labeled: int, equal: bool = False) -> None:
        self.background = features_of(
            HDF5FeatureBlocksDataset(filepath=str(folder / "f")),
            images_in(folder / "background", n_images, 0, equal),
        )
        self.labeled = features_of(
            HDF5FeaturesDataset(filepath=str(folder / "train.hdf5")),
            images_in(folder / "train", n_labeled, 1),
        )
        self.transform = saved(
            FaissTransformDataset(filepath=str(folder / "pca.vt")),
            train_pca(self.background, N_COMPONENTS, True),
        )
        vectors = saved(
            RawMatrixDataset(filepath=str(folder / "v.raw"), n_columns=N_COMPONENTS),
            apply_pca(self.transform, self.background),
        )
        index = saved(
            FaissIndexDataset(filepath=str(folder / "i.index"), n_columns=N_COMPONENTS),
            build_index(vectors),
        )
        stored = saved(
            KnnGraphDataset(filepath=str(folder / "graph"), k=STORED_K),
            background_graph(index, vectors, STORED_K),
        )
        self.quality = measure_quality(stored, vectors, STORED_K)
        rows = take_rows(
            self.labeled,
            np.arange(n_labeled),
            lambda block: apply_transform(self.transform, block, "train_features"),
        )
        first = normalize(rows, 0, "train_features")
        self.k = min(STORED_K, n_images + n_labeled)
        self.graph = insert_labeled_nodes(
            first,
            np.empty((0, N_COMPONENTS), np.float32),
            UnlabeledNodes(vectors, index, stored),
            self.k,
            keep_similarities=True,
        )
        nodes = NodeVectors(first, vectors)
        self.vectors = nodes.read(0, len(nodes))
        self.stored = stored


def most_similar(vectors, k):
    similarities = vectors.astype(np.float64) @ vectors.T
    return -np.sort(-similarities, axis=1)[:, :k]


@pytest.mark.parametrize("n_labeled", [0, 3])
@pytest.mark.parametrize("n_images", [2, 5, 20, 100])
def test_a_graph_of_few_images_has_all_links_that_there_can_be(tmp_path, n_images, n_labeled):
    chain = Chain(tmp_path, n_images, n_labeled)
    assert chain.graph.neighbors.shape == (n_images + n_labeled, chain.k)
    expected = most_similar(chain.vectors, chain.k)
    np.testing.assert_allclose(chain.graph.similarities, expected, atol=1e-5)
    assert all(len(set(row)) == chain.k for row in chain.graph.neighbors.tolist())
    assert (np.isinf(chain.stored.similarities) == (chain.stored.indices == -1)).all()
    assert ((chain.stored.indices >= 0).sum(axis=1) == min(STORED_K, n_images)).all()
    assert chain.quality["recall"] == 1
    plot_spectrum(chain.transform).canvas.draw()


@pytest.mark.parametrize("n_images", [2, 5, 20, 60])
def test_of_few_images_the_similarities_are_those_of_their_features(tmp_path, n_images):
    chain = Chain(tmp_path, n_images, 0)
    features = chain.background.read(0, n_images).astype(np.float64)
    centred = features - features.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    expected = most_similar(centred, chain.k)
    np.testing.assert_allclose(chain.graph.similarities, expected, atol=1e-5)


@pytest.mark.parametrize("n_images", [2, 3, 100])
def test_copies_of_one_image_are_neighbours_of_each_other(tmp_path, n_images, caplog):
    caplog.set_level(logging.INFO)
    chain = Chain(tmp_path, n_images, 2, equal=True)
    assert "all rows are equal" in caplog.text
    of_copies = chain.vectors[2:]
    np.testing.assert_allclose(of_copies @ of_copies.T, 1, atol=1e-6)
    np.testing.assert_allclose(
        chain.graph.similarities, most_similar(chain.vectors, chain.k), atol=1e-5
    )
    plot_spectrum(chain.transform).canvas.draw()


@pytest.mark.parametrize("blocks", [False, True])
def test_no_image_at_all_is_a_file_without_rows(tmp_path, blocks):
    dataset = (
        HDF5FeatureBlocksDataset(filepath=str(tmp_path / "f"), rows_per_file=4)
        if blocks
        else HDF5FeaturesDataset(filepath=str(tmp_path / "train.hdf5"))
    )
    images = images_in(tmp_path / "images", 0, 0)
    features = features_of(dataset, images)
    assert (features.n_rows, features.n_columns) == (0, N_COLUMNS)
    assert (features.labels.shape, features.labels.dtype) == ((0,), np.int32)
    assert list(features.broken_images) == []
    assert dataset.provenance()["n_rows"] == 0
    dataset.check()
    assert ["shape", f"(0, {N_COLUMNS})"] in [row[:2] for row in dataset.preview()["data"]]
    assert describe_broken_images({"train": features})["train"]["n_broken"] == 0
    # Images that come later are found, and those that go away.
    assert features_of(dataset, images_in(tmp_path / "more", 3, 0)).n_rows == 3
    assert features_of(dataset, images).n_rows == 0


def test_joined_features_of_which_one_part_is_empty(tmp_path):
    chain = Chain(tmp_path, 5, 0)
    joined = JoinedFeatures([chain.labeled, chain.background])
    np.testing.assert_array_equal(joined.read(0, 5), chain.background.read(0, 5))
    assert joined.broken_images == []
    assert joined.name == chain.background.name
