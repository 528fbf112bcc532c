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

from lowshot_kedro.datasets.files import written_whole
from lowshot_kedro.errors import InputError

logger = logging.getLogger(__name__)

# Where kedro-viz looks.
_FILE = Path(".viz") / "stats.json"


def dataset_statistics(catalog: DataCatalog) -> dict[str, dict[str, int]]:
    """What the datasets that are there say of themselves, by name.

    Nothing is read but headers, sizes of files and small tables.
    """
    names = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    found = {}
    for name in sorted(names):
        statistics = getattr(catalog.get(name), "statistics", None)
        try:
            if statistics is not None and catalog.exists(name) and (known := statistics()):
                found[name] = known
        except (OSError, InputError):
            # What is damaged is refused where it is used.
            continue
    return found


class StatisticsHooks:
    """Notes rows, columns and sizes where kedro-viz finds them; itself it counts data frames alone.

    After a run they are those of the run's environment. kedro-viz itself, started with
    `--include-hooks`, has them counted anew for the environment that it shows.
    """

    def __init__(self) -> None:
        self._project_path: Path | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the project is."""
        self._project_path = Path(context.project_path)

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Count for kedro-viz, if this is kedro-viz."""
        if "kedro_viz.server" in sys.modules and self._project_path is not None:
            _write(self._project_path, dataset_statistics(catalog))

    # kedro-viz has a hook that writes the file; this one comes after it.
    @hook_impl(trylast=True)
    def after_pipeline_run(self, run_params: Mapping[str, Any], catalog: DataCatalog) -> None:
        """Count what there is after a run."""
        _write(Path(run_params["project_path"]), dataset_statistics(catalog))


def _write(project_path: Path, statistics: Mapping[str, Mapping[str, int]]) -> None:
    path = project_path / _FILE
    try:
        with written_whole(path) as (unfinished,):
            unfinished.write_text(json.dumps(statistics), encoding="utf-8")
    except (OSError, InputError) as error:
        logger.warning("%s: rows and columns for kedro-viz are not written (%s)", path, error)
