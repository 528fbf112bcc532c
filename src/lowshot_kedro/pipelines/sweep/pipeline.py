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
                    "params:sweep",
                    "params:graph",
                    "params:diffusion",
                    "params:logistic_regression",
                    "params:evaluation",
                ],
                outputs="prepared_sweep",
                name="prepare_sweep",
                tags=["validation", "test", "report"],
            ),
            node(
                validate_methods,
                inputs=["prepared_sweep", "run_scores"],
                outputs="validation_metrics",
                name="validate_methods",
                tags="validation",
            ),
            node(
                choose_hyperparameters,
                inputs=["validation_metrics", "prepared_sweep"],
                outputs="best_hyperparameters",
                name="choose_hyperparameters",
                tags="validation",
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
                tags="validation",
            ),
            node(
                choose_combination,
                inputs=["best_hyperparameters", "combination_metrics", "prepared_sweep"],
                outputs="hyperparameters",
                name="choose_combination",
                tags="validation",
            ),
            node(
                test_methods,
                inputs=[
                    "prepared_sweep",
                    "hyperparameters",
                    "run_scores",
                ],
                outputs="test_metrics",
                name="test_methods",
                tags="test",
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
                tags="test",
            ),
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
                tags="report",
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
                tags="report",
            ),
            node(
                plot_accuracies,
                inputs=["sweep_table", "prepared_sweep"],
                outputs=[
                    "sweep_accuracy_per_n_labeled_plot",
                    "sweep_accuracy_per_background_plot",
                ],
                name="plot_accuracies",
                tags="report",
            ),
            node(
                plot_steps,
                inputs=["test_metrics", "hyperparameters", "prepared_sweep"],
                outputs="sweep_accuracy_per_step_plot",
                name="plot_steps",
                tags="report",
            ),
            node(
                plot_validation_grid,
                inputs=["validation_metrics", "hyperparameters", "prepared_sweep"],
                outputs="sweep_validation_grid_plot",
                name="plot_validation_grid",
                tags="report",
            ),
        ]
    )
