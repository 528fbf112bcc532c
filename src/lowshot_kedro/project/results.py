"""The lines that a run ends with: its result, and where all files lie."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from rich.console import Console
from rich.table import Table

from lowshot_kedro import reporting
from lowshot_kedro.errors import InputError
from lowshot_kedro.methods import method_of
from lowshot_kedro.sweep.parameters import read_sweep

logger = logging.getLogger(__name__)


_is_hidden: ContextVar[bool] = ContextVar("is_hidden", default=False)


@contextmanager
def hidden_results() -> Iterator[None]:
    """Let runs print nothing, neither to a terminal nor below the cell of a notebook."""
    token = _is_hidden.set(True)
    try:
        yield
    finally:
        _is_hidden.reset(token)


class ResultHooks:
    """Prints what came out of a run, as the last thing."""

    @hook_impl(trylast=True)
    def after_pipeline_run(
        self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Print the result that the others lead to, and the files of all."""
        if _is_hidden.get():
            return
        outputs = pipeline.all_outputs()
        try:
            for names, show in _SHOWN:
                if names & outputs:
                    show(catalog, outputs)
                    break
        except (DatasetError, OSError, InputError) as error:
            # The run is done, and the files are there.
            logger.warning("the result cannot be shown: %s", error)
        _print_places(pipeline, catalog, Path(run_params["project_path"]))


def _show_sweep(catalog: DataCatalog, outputs: set[str]) -> None:
    summary = catalog.load("sweep_table")
    context = {"mode": "test", "seeds": list(read_sweep(catalog.load("params:sweep")).seeds)}
    for k in _top_k(summary.columns, r"top(\d+)_mean"):
        reporting.print_summary(summary, k, context)


def _show_methods(catalog: DataCatalog, outputs: set[str]) -> None:
    experiment = catalog.load("combined_metrics")["experiment"]
    reporting.print_comparison(catalog.load("metrics_table"), experiment)


def _show_accuracies(catalog: DataCatalog, outputs: set[str]) -> None:
    names = [name for name in ("baseline_metrics", "diffusion_metrics") if name in outputs]
    contents = [catalog.load(name) for name in names]
    last = contents[-1]
    table = reporting.compare_methods(
        {method_of(metrics).title: metrics for metrics in contents},
        _top_k(last["final"], r"top(\d+)"),
    )
    reporting.print_comparison(table, last["experiment"])


def _top_k(names: Iterable[str], pattern: str) -> list[int]:
    return [int(found[1]) for name in names if (found := re.fullmatch(pattern, name))]


def _show_graph(catalog: DataCatalog, outputs: set[str]) -> None:
    quality = catalog.load("background_graph_quality")
    if quality["recall"] is None:
        return
    Console(highlight=False, soft_wrap=True).print(
        f"Background graph of {quality['n_vectors']} images: recall@{quality['k']} "
        f"{quality['recall']:.4f} ± {quality['recall_error']:.4f} (measured for "
        f"{quality['n_sampled']} of them)"
    )


def _show_images(catalog: DataCatalog, outputs: set[str]) -> None:
    for collection, found in catalog.load("broken_images").items():
        Console(highlight=False, soft_wrap=True).print(
            f"{collection}: features of {found['n_pictures']} images, "
            f"{found['n_broken']} of them missing or unreadable"
        )


def _show_snca(catalog: DataCatalog, outputs: set[str]) -> None:
    reporting.print_knn_accuracies(catalog.load("snca_metrics"))


def _show_clusters(catalog: DataCatalog, outputs: set[str]) -> None:
    reporting.print_clusters(catalog.load("cluster_report"))


def _show_labels(catalog: DataCatalog, outputs: set[str]) -> None:
    reporting.print_labeling(catalog.load("labels_report"))


# The first whose outputs are made is the result of a run.
_SHOWN = (
    ({"sweep_table"}, _show_sweep),
    ({"metrics_table"}, _show_methods),
    ({"baseline_metrics", "diffusion_metrics"}, _show_accuracies),
    ({"background_graph_quality"}, _show_graph),
    ({"snca_metrics"}, _show_snca),
    ({"cluster_report"}, _show_clusters),
    ({"labels_report"}, _show_labels),
    ({"broken_images"}, _show_images),
)


def _print_places(pipeline: Pipeline, catalog: DataCatalog, project_path: Path) -> None:
    """A line for every folder with what lies in it."""
    places: dict[str, list[str]] = {}
    for node in pipeline.nodes:
        for name in node.outputs:
            path = _path_of(name, catalog)
            if path is not None:
                names = places.setdefault(_shown(path.parent, project_path), [])
                if path.name not in names:
                    names.append(path.name)
    if not places:
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for folder, names in sorted(places.items()):
        table.add_row(folder, ", ".join(names))
    console = Console(highlight=False)
    console.print("Results:")
    console.print(table)


def _path_of(name: str, catalog: DataCatalog) -> Path | None:
    """The path of a dataset; None in memory, and where nothing was to be written."""
    dataset = catalog.get(name)
    filepath = None if dataset is None else dataset._describe().get("filepath")
    if filepath is None or not Path(filepath).exists():
        return None
    return Path(filepath).absolute()


def _shown(folder: Path, project_path: Path) -> str:
    is_inside = folder.is_relative_to(project_path) and folder != project_path
    return str(folder.relative_to(project_path) if is_inside else folder)
