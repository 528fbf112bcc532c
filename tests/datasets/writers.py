"""Every dataset that writes, with data whose writing stops half-way to call a function."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np
import torch
from PIL import Image

from lowshot_kedro.blocks import Blocks, KnnGraph, LabeledBlock
from lowshot_kedro.datasets import (
    FaissIndexDataset,
    FaissTransformDataset,
    HDF5ArraysDataset,
    HDF5FeatureBlocksDataset,
    HDF5FeaturesDataset,
    KnnGraphDataset,
    LabeledImagesDataset,
    RawMatrixDataset,
    SafetensorsDataset,
    TorchStateDataset,
    WholeFileDataset,
    ZipShardImagesDataset,
    safetensors_file,
)

Midway = Callable[[], None]
N_ROWS, N_COLUMNS = 6, 4


def nothing() -> None:
    pass


@dataclass(frozen=True)
class Writer:
    """A dataset that writes into a folder.

    Attributes:
        make: The dataset, for a folder.
        save: Saves data that differ by the number given; calls the function half-way.
        finals: Names that stand for a complete result.
    """

    make: Callable[[Path], Any]
    save: Callable[[Any, int, Midway], None]
    finals: tuple[str, ...]


def save_tensors(dataset: Any, number: int, midway: Midway) -> None:
    sorted_header = safetensors_file._sorted_header

    def after_midway(text: bytes) -> bytes:
        midway()
        return sorted_header(text)

    with mock.patch.object(safetensors_file, "_sorted_header", after_midway):
        dataset.save(({"weight": torch.full((3, 2), float(number))}, {"made": "here"}))


class CallsWhenPickled:
    def __init__(self, midway: Midway) -> None:
        self.midway = midway

    def __reduce__(self) -> Any:
        self.midway()
        return int, (1,)


class CallsWhenRead:
    """An array that calls a function when its numbers are asked for."""

    nbytes = 8

    def __init__(self, midway: Midway) -> None:
        self.midway = midway

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self.midway()
        return np.ones(1)


def matrix(value: int) -> np.ndarray:
    return np.full((N_ROWS, N_COLUMNS), value, dtype=np.float32)


def in_two_blocks(parts: Callable[[slice], Any], midway: Midway) -> Blocks:
    def blocks() -> Any:
        yield parts(slice(0, N_ROWS // 2))
        midway()
        yield parts(slice(N_ROWS // 2, N_ROWS))

    return Blocks(N_ROWS, N_COLUMNS, blocks)


def save_rows(dataset: Any, value: int, midway: Midway) -> None:
    dataset.save(in_two_blocks(lambda rows: matrix(value)[rows], midway))


def save_graph(dataset: Any, value: int, midway: Midway) -> None:
    graph = KnnGraph(matrix(value).astype(np.int32), matrix(value))
    dataset.save(in_two_blocks(lambda rows: KnnGraph(*(part[rows] for part in graph)), midway))


def save_features(dataset: Any, value: int, midway: Midway) -> None:
    labels = np.full(N_ROWS, value, dtype=np.int32)
    parts = in_two_blocks(lambda rows: LabeledBlock(matrix(value)[rows], labels[rows]), midway)
    dataset.save(parts)


def save_arrays(dataset: Any, value: int, midway: Midway) -> None:
    dataset.save({"scores": matrix(value), "last": CallsWhenRead(midway)})


def save_with_faiss(function: str, make: Callable[[int], Any]) -> Callable[..., None]:
    def save(dataset: Any, value: int, midway: Midway) -> None:
        if midway is nothing:
            dataset.save(make(value))
            return
        write = getattr(faiss, function)

        def interrupted(data: Any, writer: Any) -> None:
            midway()
            write(data, writer)

        with mock.patch.object(faiss, function, interrupted):
            dataset.save(make(value))

    return save


def make_index(value: int) -> faiss.Index:
    index = faiss.IndexFlatIP(N_COLUMNS)
    index.add(matrix(value))
    return index


def make_transform(value: int) -> faiss.VectorTransform:
    transform = faiss.PCAMatrix(N_COLUMNS, 2)
    transform.train(np.random.default_rng(value).random((20, N_COLUMNS), dtype=np.float32))
    return transform


def save_state(dataset: Any, value: int, midway: Midway) -> None:
    dataset.save({"weight": torch.full((3, 2), float(value)), "last": CallsWhenPickled(midway)})


def save_object(dataset: Any, value: int, midway: Midway) -> None:
    dataset.save({"value": value, "last": CallsWhenPickled(midway)})


def save_images(wrap: Callable[[Image.Image], Any]) -> Callable[..., None]:
    def save(dataset: Any, value: int, midway: Midway) -> None:
        def images() -> Any:
            for number in range(2):
                yield wrap(Image.new("L", (8, 8), 10 * value + number))
                if number == 0:
                    midway()

        dataset.save(images())

    return save


def at(name: str, dataset_class: Any, **settings: Any) -> Callable[[Path], Any]:
    return lambda folder: dataset_class(filepath=str(folder / name), **settings)


def whole_file(name: str, kind: str, **settings: Any) -> Callable[[Path], Any]:
    def make(folder: Path) -> WholeFileDataset:
        config = {"type": kind, "filepath": str(folder / name), **settings}
        return WholeFileDataset(dataset=config)

    return make


WRITERS = {
    "raw matrix": Writer(
        at("vectors.raw", RawMatrixDataset, n_columns=N_COLUMNS), save_rows, ("vectors.raw",)
    ),
    "graph": Writer(
        at("ndis6_k4", KnnGraphDataset, k=N_COLUMNS),
        save_graph,
        ("ndis6_k4_I_11.int32", "ndis6_k4_D_11.float32"),
    ),
    "features": Writer(at("train.hdf5", HDF5FeaturesDataset), save_features, ("train.hdf5",)),
    "feature blocks": Writer(
        at("f100m", HDF5FeatureBlocksDataset, rows_per_file=4),
        save_features,
        ("f100m/block0.hdf5", "f100m/block1.hdf5"),
    ),
    "arrays": Writer(at("scores.hdf5", HDF5ArraysDataset), save_arrays, ("scores.hdf5",)),
    "index": Writer(
        at("ndis6.index", FaissIndexDataset, n_columns=N_COLUMNS),
        save_with_faiss("write_index", make_index),
        ("ndis6.index",),
    ),
    "transform": Writer(
        at("PCAR2.vt", FaissTransformDataset),
        save_with_faiss("write_VectorTransform", make_transform),
        ("PCAR2.vt",),
    ),
    "state": Writer(at("model.pt", TorchStateDataset), save_state, ("model.pt",)),
    "tensors": Writer(
        at("network.safetensors", SafetensorsDataset), save_tensors, ("network.safetensors",)
    ),
    "whole file": Writer(
        whole_file("object.pickle", "pickle.PickleDataset"), save_object, ("object.pickle",)
    ),
    "zip shards": Writer(
        at("yfcc100m", ZipShardImagesDataset), save_images(lambda image: image), ("yfcc100m",)
    ),
    "labelled list": Writer(
        at("train.json", LabeledImagesDataset, root="train"),
        save_images(lambda image: (image, 1)),
        ("train.json",),
    ),
}
