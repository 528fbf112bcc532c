"""Tables and plots: single runs, their images, and what a sweep found."""

from lowshot_kedro.extras import require

for library in ("matplotlib", "pandas", "rich"):
    require(library, __name__)

from lowshot_kedro.reporting.broken_images import describe_broken_images
from lowshot_kedro.reporting.cluster_panel import plot_cluster_panel
from lowshot_kedro.reporting.clustering_curves import plot_clustering_curves
from lowshot_kedro.reporting.clusters import print_clusters
from lowshot_kedro.reporting.comparison import (
    compare_methods,
    plot_accuracy_per_step,
    plot_methods,
    print_comparison,
)
from lowshot_kedro.reporting.confusion import plot_confusion
from lowshot_kedro.reporting.episodes_plot import plot_episodes
from lowshot_kedro.reporting.episodes_table import (
    describe_episodes,
    episodes_table,
    episodes_to_markdown,
    print_episodes,
)
from lowshot_kedro.reporting.image_map import plot_image_map
from lowshot_kedro.reporting.knn_accuracies import knn_accuracy_rows, print_knn_accuracies
from lowshot_kedro.reporting.labeling import print_labeling
from lowshot_kedro.reporting.matching import plot_episode_matching, plot_matching
from lowshot_kedro.reporting.nearest_images import (
    EmbeddedImages,
    nearest_image_rows,
    plot_nearest_images,
)
from lowshot_kedro.reporting.neighbors import (
    NeighborRow,
    NodeImages,
    frame_color,
    images_worth_showing,
    neighbor_rows,
    plot_neighbors,
)
from lowshot_kedro.reporting.reliability import plot_reliability
from lowshot_kedro.reporting.spectrum import plot_spectrum
from lowshot_kedro.reporting.style import empty_figure, png_of
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
from lowshot_kedro.reporting.training_curves import plot_training_curves
from lowshot_kedro.reporting.validation_grid import plot_validation_grid

__all__ = [
    "EmbeddedImages",
    "NeighborRow",
    "NodeImages",
    "compare_methods",
    "comparison_table",
    "describe_broken_images",
    "describe_episodes",
    "empty_figure",
    "episodes_table",
    "episodes_to_markdown",
    "frame_color",
    "images_worth_showing",
    "knn_accuracy_rows",
    "nearest_image_rows",
    "neighbor_rows",
    "plot_accuracy_per_background",
    "plot_accuracy_per_n_labeled",
    "plot_accuracy_per_step",
    "plot_accuracy_per_step_over_seeds",
    "plot_cluster_panel",
    "plot_clustering_curves",
    "plot_confusion",
    "plot_episode_matching",
    "plot_episodes",
    "plot_image_map",
    "plot_matching",
    "plot_methods",
    "plot_nearest_images",
    "plot_neighbors",
    "plot_reliability",
    "plot_spectrum",
    "plot_training_curves",
    "plot_validation_grid",
    "png_of",
    "print_clusters",
    "print_comparison",
    "print_episodes",
    "print_knn_accuracies",
    "print_labeling",
    "print_resources",
    "print_summary",
    "run_resources",
    "summarize",
    "to_markdown",
]
