"""Rows, columns and sizes of the datasets on disk, which kedro-viz shows beside their previews."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import DataCatalog

from lowshot_kedro.datasets import ImagesDataset
from lowshot_kedro.datasets.files import written_whole
from lowshot_kedro.errors import InputError

logger = logging.getLogger(__name__)

# The file that kedro-viz reads.
_FILE = Path(".viz") / "stats.json"
_IN_JUPYTER = "kedro_viz.launchers.jupyter"


def dataset_statistics(
    catalog: DataCatalog, n_images: Mapping[str, int] | None = None
) -> dict[str, dict[str, int]]:
    """What the datasets that are there say of themselves, by name.

    Nothing is read but headers, sizes of files and small tables, and, to count images, lists and
    folders.

    Args:
        catalog: The catalog.
        n_images: Numbers of images of collections that have been counted, by name; others are not
            looked at. None: all are counted.
    """
    names = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    registered, matches = set(catalog), catalog.config_resolver.match_dataset_pattern
    found: dict[str, dict[str, int]] = {}
    # Asking for another name would add a dataset in memory to the catalog.
    has_entry = {name: name in registered or matches(name) is not None for name in names}
    for name in sorted(filter(has_entry.get, names)):
        dataset = catalog.get(name)
        try:
            if isinstance(dataset, ImagesDataset):
                if n_images is None:
                    found[name] = {"rows": dataset.count_images()}
                elif name in n_images:
                    found[name] = {"rows": n_images[name]}
            elif dataset is not None and hasattr(dataset, "statistics") and catalog.exists(name):
                found[name] = dataset.statistics()
        except (OSError, InputError):
            # What is damaged is refused where it is used.
            continue
    return found


class StatisticsHooks:
    """Writes rows, columns and sizes where kedro-viz looks; kedro-viz counts data frames alone.

    After a run they are those of the run's environment. kedro-viz, started with
    `--include-hooks`, has them counted anew for the environment that it shows.
    """

    def __init__(self) -> None:
        self._project_path: Path | None = None
        self._catalog: DataCatalog | None = None
        self._n_images: dict[str, int] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the project is."""
        self._project_path = Path(context.project_path)

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Count for kedro-viz, if this is kedro-viz."""
        # Jupyter has it loaded too, to start it.
        is_kedro_viz = "kedro_viz.server" in sys.modules and _IN_JUPYTER not in sys.modules
        if is_kedro_viz and self._project_path is not None:
            _write(self._project_path, dataset_statistics(catalog))

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Begin a new run."""
        self._catalog = catalog
        self._n_images.clear()

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Count images that are open anyway."""
        if self._catalog is not None and isinstance(self._catalog.get(dataset_name), ImagesDataset):
            self._n_images[dataset_name] = len(data)

    # kedro-viz has a hook that writes the file; this one comes after it.
    @hook_impl(trylast=True)
    def after_pipeline_run(self, run_params: Mapping[str, Any], catalog: DataCatalog) -> None:
        """Count what there is after a run."""
        _write(Path(run_params["project_path"]), dataset_statistics(catalog, self._n_images))


def _write(project_path: Path, statistics: Mapping[str, Mapping[str, int]]) -> None:
    path = project_path / _FILE
    try:
        with written_whole(path) as (unfinished,):
            unfinished.write_text(json.dumps(statistics), encoding="utf-8")
    except (OSError, InputError) as error:
        logger.warning("%s: rows and columns for kedro-viz are not written (%s)", path, error)
