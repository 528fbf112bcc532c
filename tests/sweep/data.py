"""A small data set in memory: eight classes, four for each mode."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np

from lowshot_kedro.graph import UnlabeledNodes, unlabeled_nodes
from tests.features import MemoryFeatures

N_CLASSES, N_COLUMNS, N_COMPONENTS = 8, 20, 9
SPLIT = {
    "base_classes_1": [3, 1],
    "novel_classes_1": [8, 6],
    "base_classes_2": [2, 7],
    "novel_classes_2": [4, 5],
    "label_names": [f"class {number}" for number in range(N_CLASSES)],
}


def features_of(n: int, seed: int, name: str) -> MemoryFeatures:
    """Noise around a centre for each class, as many images of each class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % N_CLASSES).astype(np.int32)
    centres = 1.7 * np.eye(N_CLASSES, N_COLUMNS)
    features = MemoryFeatures(centres[labels] + rng.standard_normal((n, N_COLUMNS)), name)
    features.labels = labels
    return features


class MemoryInputs:
    """Follows lowshot_kedro.sweep.work.Inputs and notes which backgrounds are opened."""

    def __init__(self, stored_k: int = 16) -> None:
        self.class_split = SPLIT
        self.train_features = features_of(200, 0, "train_features")
        self.test_features = features_of(160, 1, "test_features")
        self.pca_transform = faiss.PCAMatrix(N_COLUMNS, N_COMPONENTS, 0, True)
        self.pca_transform.train(self.train_features.array)
        everything = self.pca_transform.apply(features_of(110, 2, "background").array)
        self.backgrounds: dict[int | None, UnlabeledNodes] = {
            n: unlabeled_nodes(everything[:n].copy(), stored_k, "exact", "background_vectors")
            for n in (0, 70, None)
        }
        self.opened: list[tuple[int | None, int]] = []

    def background(self, n_background: int | None, k: int) -> UnlabeledNodes:
        self.opened.append((n_background, k))
        return self.backgrounds[n_background]


class MemoryStore:
    """Follows lowshot_kedro.sweep.work.ScoreStore."""

    def __init__(self) -> None:
        self.content: dict[tuple[str, str], np.ndarray] = {}
        self.folder = tempfile.TemporaryDirectory()

    @contextmanager
    def unfinished(self, key):
        yield Path(self.folder.name) / key.replace("/", "_")

    def read(self, key, provenance):
        return self.content.get((key, json.dumps(provenance, sort_keys=True)))

    def has(self, key, provenance):
        return self.read(key, provenance) is not None

    def write(self, key, provenance, scores):
        self.content[key, json.dumps(provenance, sort_keys=True)] = scores.copy()

    def of(self, key):
        """The only scores of a run."""
        (found,) = (scores for (name, _), scores in self.content.items() if name == key)
        return found
