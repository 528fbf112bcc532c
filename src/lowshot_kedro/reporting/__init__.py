"""Tables and plots: single runs, their pictures, and what a sweep found."""

from lowshot_kedro.reporting.broken_pictures import describe_broken_pictures
from lowshot_kedro.reporting.comparison import (
    compare_methods,
    plot_accuracy_per_step,
    plot_methods,
    print_comparison,
)
from lowshot_kedro.reporting.neighbors import (
    NeighborRow,
    NodePictures,
    frame_color,
    neighbor_rows,
    pictures_worth_showing,
    plot_neighbors,
)
from lowshot_kedro.reporting.spectrum import plot_spectrum
from lowshot_kedro.reporting.sweep_plots import (
    plot_accuracy_per_background,
    plot_accuracy_per_n_labeled,
    plot_accuracy_per_step_over_seeds,
)
from lowshot_kedro.reporting.sweep_tables import (
    comparison_table,
    print_resources,
    print_summary,
    run_resources,
    summarize,
    to_markdown,
)
from lowshot_kedro.reporting.validation_grid import plot_validation_grid

__all__ = [
    "NeighborRow",
    "NodePictures",
    "compare_methods",
    "comparison_table",
    "describe_broken_pictures",
    "frame_color",
    "neighbor_rows",
    "pictures_worth_showing",
    "plot_accuracy_per_background",
    "plot_accuracy_per_n_labeled",
    "plot_accuracy_per_step",
    "plot_accuracy_per_step_over_seeds",
    "plot_methods",
    "plot_neighbors",
    "plot_spectrum",
    "plot_validation_grid",
    "print_comparison",
    "print_resources",
    "print_summary",
    "run_resources",
    "summarize",
    "to_markdown",
]
