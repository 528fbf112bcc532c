"""Where the files of a catalog lie."""

from __future__ import annotations

from typing import Any

from kedro.io import DataCatalog


def place_of(catalog: DataCatalog, name: str) -> Any:
    """The path of a dataset; None for one that is not kept on disk."""
    dataset = catalog.get(name)
    return None if dataset is None else dataset._describe().get("filepath")
