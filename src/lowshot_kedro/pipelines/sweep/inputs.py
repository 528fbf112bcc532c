"""The data of a sweep as its workers open them: through the catalog of the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faiss
from kedro.io import DataCatalog

from lowshot_kedro import graph as graph_domain
from lowshot_kedro.blocks import FeatureMatrix
from lowshot_kedro.locks import files_in_use, of_this_run
from lowshot_kedro.project.config import Project


@dataclass(frozen=True)
class CatalogInputs:
    """The data of a sweep, each part opened in the process that asks for it.

    Attributes:
        project: The project; on a cluster its folder is seen under the same path.
    """

    project: Project

    @property
    def class_split(self) -> Mapping[str, Any]:
        """Content of the class split file."""
        content: Mapping[str, Any] = self._load("class_split")
        return content

    @property
    def train_features(self) -> FeatureMatrix:
        """Features and labels of the training set."""
        features: FeatureMatrix = self._load("train_features")
        return features

    @property
    def test_features(self) -> FeatureMatrix:
        """Features and labels of the test set."""
        features: FeatureMatrix = self._load("test_features")
        return features

    @property
    def pca_transform(self) -> faiss.VectorTransform:
        """The PCA that turns features into vectors."""
        transform: faiss.VectorTransform = self._load("pca_transform")
        return transform

    def background(self, n_background: int | None, k: int) -> graph_domain.UnlabeledNodes:
        """The first n_background background images, None being all, with index and graph."""
        catalog = self.background_catalog(n_background, k)
        return graph_domain.UnlabeledNodes(
            *(catalog.load(f"background_{part}") for part in ("vectors", "index", "graph"))
        )

    def background_catalog(self, n_background: int | None, k: int) -> DataCatalog:
        """A catalog whose background has n_background images, and its graph k columns or more."""
        return _catalog(self.project, n_background, k)

    def claim_background(self, n_background: int | None, k: int) -> None:
        """Keep other processes from writing index and graph until this run ends.

        Raises:
            ValueError: Naming the file, and what writes it.
        """
        catalog = self.background_catalog(n_background, k)
        for part in ("index", "graph"):
            of_this_run.to_read(files_in_use(catalog.get(f"background_{part}")))

    def _load(self, name: str) -> Any:
        return _catalog(self.project, 0, 1).load(name)


# A project cannot be a key as it is: what the command line changed is a mapping.
_catalogs: dict[tuple[str, int | None, int], DataCatalog] = {}


def _catalog(project: Project, n_background: int | None, k: int) -> DataCatalog:
    key = (repr(project), n_background, k)
    if key not in _catalogs:
        changes: dict[str, dict[str, Any]] = {
            "graph": {"n_background": n_background, "k": k},
            "experiment": {"unlabeled": "background"},
        }
        _catalogs[key] = project.catalog(changes)
    return _catalogs[key]
