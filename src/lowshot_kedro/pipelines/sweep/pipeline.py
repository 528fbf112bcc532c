"""Search on validation classes, choice, test runs over seeds, reports."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.sweep.nodes import (
    choose_combination,
    choose_hyperparameters,
    combine_tests,
    plot_accuracies,
    plot_steps,
    plot_validation_grid,
    prepare_sweep,
    tabulate_resources,
    tabulate_runs,
    test_methods,
    validate_combination,
    validate_methods,
)


def create_pipeline() -> Pipeline:
    """Features, vectors and parameters → hyper-parameters → metrics of all runs → reports.

    The tags validation, test and report are its phases; the preparation belongs to all of them.
    """
    return pipeline(
        [
            node(
                prepare_sweep,
                inputs=[
                    "project",
                    "class_split",
                    "train_features",
                    "test_features",
                    "pca_transform",
                    "background_vectors",
                    "parameters",
                ],
                outputs="prepared_sweep",
                name="prepare_sweep",
                tags=["validation", "test", "report"],
            ),
            pipeline(
                [
                    node(
                        validate_methods,
                        inputs=["prepared_sweep", "run_scores"],
                        outputs="validation_metrics",
                        name="validate_methods",
                    ),
                    node(
                        choose_hyperparameters,
                        inputs=["validation_metrics", "prepared_sweep"],
                        outputs="best_hyperparameters",
                        name="choose_hyperparameters",
                    ),
                    node(
                        validate_combination,
                        inputs=[
                            "prepared_sweep",
                            "best_hyperparameters",
                            "run_scores",
                        ],
                        outputs="combination_metrics",
                        name="validate_combination",
                    ),
                    node(
                        choose_combination,
                        inputs=["best_hyperparameters", "combination_metrics", "prepared_sweep"],
                        outputs="hyperparameters",
                        name="choose_combination",
                    ),
                ],
                tags="validation",
                namespace="validation",
                prefix_datasets_with_namespace=False,
            ),
            pipeline(
                [
                    node(
                        test_methods,
                        inputs=[
                            "prepared_sweep",
                            "hyperparameters",
                            "run_scores",
                        ],
                        outputs="test_metrics",
                        name="test_methods",
                    ),
                    node(
                        combine_tests,
                        inputs=[
                            "prepared_sweep",
                            "hyperparameters",
                            "test_metrics",
                            "run_scores",
                        ],
                        outputs="combined_test_metrics",
                        name="combine_tests",
                    ),
                ],
                tags="test",
                namespace="test",
                prefix_datasets_with_namespace=False,
            ),
            pipeline(
                [
                    node(
                        tabulate_runs,
                        inputs=[
                            "test_metrics",
                            "combined_test_metrics",
                            "hyperparameters",
                            "prepared_sweep",
                        ],
                        outputs=["sweep_table", "sweep_report"],
                        name="tabulate_runs",
                    ),
                    node(
                        tabulate_resources,
                        inputs=[
                            "validation_metrics",
                            "combination_metrics",
                            "test_metrics",
                            "combined_test_metrics",
                            "hyperparameters",
                            "prepared_sweep",
                        ],
                        outputs="sweep_resources",
                        name="tabulate_resources",
                    ),
                    node(
                        plot_accuracies,
                        inputs=["sweep_table", "prepared_sweep"],
                        outputs=[
                            "sweep_accuracy_per_n_labeled_plot",
                            "sweep_accuracy_per_background_plot",
                        ],
                        name="plot_accuracies",
                    ),
                    node(
                        plot_steps,
                        inputs=["test_metrics", "hyperparameters", "prepared_sweep"],
                        outputs="sweep_accuracy_per_step_plot",
                        name="plot_steps",
                    ),
                    node(
                        plot_validation_grid,
                        inputs=["validation_metrics", "hyperparameters", "prepared_sweep"],
                        outputs="sweep_validation_grid_plot",
                        name="plot_validation_grid",
                    ),
                ],
                tags="report",
                namespace="report",
                prefix_datasets_with_namespace=False,
            ),
        ]
    )
