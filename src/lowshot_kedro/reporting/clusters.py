"""What a clustering of images is like, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def print_clusters(report: Mapping[str, Any]) -> None:
    """Print how many clusters there are, how large they are, and how near images are to them.

    Args:
        report: What :attr:`lowshot_kedro.deepercluster.assignments.Clustering.report` says.
    """
    n_blank = report["n_blank_images"]
    blank = f", {n_blank} of them missing or unreadable" if n_blank else ""
    levels = " in two levels" if report["super_clusters"]["n"] > 1 else ""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{report['n_images']} images{blank}, clustered{levels}:")
    table = Table(box=None)
    for column in ("", "number", "empty", "smallest", "median", "largest"):
        table.add_column(column, justify="left" if not column else "right")
    for name in ("super_clusters", "clusters"):
        level = report[name]
        sizes = (f"{level[which]:.0f}" for which in ("min", "median", "max"))
        table.add_row(name.replace("_", "-"), str(level["n"]), str(level["n_empty"]), *sizes)
    console.print(table)
    nmi = report["normalized_mutual_information"]
    same = "" if nmi is None else f"; mutual information with the clusters learnt last {nmi:.3f}"
    console.print(f"mean squared distance from the centroids {report['objective']:.4f}{same}")
