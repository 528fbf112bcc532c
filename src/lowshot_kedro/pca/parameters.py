"""The parameters of the PCA: section `pca`."""

from __future__ import annotations

from dataclasses import dataclass

from lowshot_kedro.parameters import refuse, require_boolean, require_integer


@dataclass(frozen=True)
class PcaParameters:
    """Reduction of the features to the vectors of the graph."""

    n_components: int
    random_rotation: bool
    max_train_rows: int | None

    def __post_init__(self) -> None:
        require_integer("n_components", self.n_components, 1)
        require_boolean("random_rotation", self.random_rotation)
        require_integer("max_train_rows", self.max_train_rows, 1, null="all")
        if self.max_train_rows is not None and self.max_train_rows <= self.n_components:
            expected = f"more than n_components = {self.n_components}"
            raise refuse("max_train_rows", self.max_train_rows, expected)
