"""Labels for all images, a page to look at them, and files for other tools."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.labeling.nodes import (
    export_labels,
    find_images_to_look_at,
    find_labels,
    join_images,
    link_images,
    make_labels_page,
    plot_labels,
    report_labels,
    sort_images,
    tabulate_labels,
)


def create_pipeline() -> Pipeline:
    """Images, their features and graph → labels → tables, plots, a page, and other tools' files."""
    return pipeline(
        [
            node(
                join_images,
                inputs=["train_images", "background_images", "label_file"],
                outputs=["all_images", "given_labels"],
                name="join_images",
            ),
            node(
                link_images,
                inputs=[
                    "train_features",
                    "background_features",
                    "pca_transform",
                    "background_vectors",
                    "background_index",
                    "background_graph",
                    "all_images",
                    "params:graph",
                ],
                outputs=["labeling_graph", "labeling_features"],
                name="link_images",
            ),
            node(
                find_labels,
                inputs=[
                    "labeling_graph",
                    "labeling_features",
                    "given_labels",
                    "params:labeling",
                    "params:logistic_regression",
                ],
                outputs="found_labels",
                name="find_labels",
            ),
            node(
                find_images_to_look_at,
                inputs=["labeling_graph", "found_labels", "params:labeling"],
                outputs=["next_images", "suspicious_images", "duplicate_images"],
                name="find_images_to_look_at",
            ),
            node(
                report_labels,
                inputs=[
                    "found_labels",
                    "next_images",
                    "suspicious_images",
                    "duplicate_images",
                ],
                outputs="labels_report",
                name="report_labels",
            ),
            node(
                tabulate_labels,
                inputs=[
                    "all_images",
                    "found_labels",
                    "next_images",
                    "suspicious_images",
                    "duplicate_images",
                    "params:labeling",
                ],
                outputs=["labels", "next_to_label", "suspicious_labels", "duplicates"],
                name="tabulate_labels",
            ),
            node(
                plot_labels,
                inputs=["labeling_graph", "found_labels", "params:labeling"],
                outputs=[
                    "labels_reliability_plot",
                    "labels_confusion_plot",
                    "labels_map_plot",
                    "labels_plots",
                ],
                name="plot_labels",
            ),
            node(
                export_labels,
                inputs=["all_images", "found_labels", "params:labeling"],
                outputs=[
                    "label_studio_tasks",
                    "label_studio_config",
                    "fiftyone_labels",
                    "fiftyone_table",
                ],
                name="export_labels",
            ),
            node(
                sort_images,
                inputs=["all_images", "found_labels", "labeled_folders", "params:labeling"],
                outputs="sorted_images",
                name="sort_images",
            ),
            node(
                make_labels_page,
                inputs=[
                    "all_images",
                    "labeling_features",
                    "found_labels",
                    "next_images",
                    "suspicious_images",
                    "duplicate_images",
                    "labels_plots",
                    "params:labeling",
                ],
                outputs="labels_page",
                name="make_labels_page",
            ),
        ],
        namespace="labeling",
        prefix_datasets_with_namespace=False,
    )
