"""What the table of a training that clusters looks like."""

import numpy as np
import pandas as pd
import pytest

from lowshot_kedro.reporting import plot_clustering_curves, plot_training_curves

NMI, EMPTY = "normalized_mutual_information", "n_empty_clusters"


def table_of(n_epochs, every=3, **columns):
    """Epochs 1 to n, before every third of which images were clustered."""
    epochs = np.arange(1, n_epochs + 1)
    begins = (epochs - 1) % every == 0
    table = pd.DataFrame(
        {
            "epoch": epochs,
            "learning_rate": 0.1,
            "loss": 3 / epochs,
            "loss_super_class": 1 / epochs,
            "loss_sub_class": 2 / epochs,
            "accuracy": epochs / 200,
            "accuracy_super_class": epochs / 150,
            "accuracy_sub_class": epochs / 110,
            NMI: np.where(begins & (epochs > 1), epochs / 100, np.nan),
            EMPTY: np.where(begins, epochs % 4, np.nan),
            "largest_cluster": np.where(begins, 100.0 + epochs, np.nan),
            "mean_squared_distance": np.where(begins, 1 / epochs, np.nan),
        }
    )
    return table.assign(**columns)


def panels(figure):
    return {axes.get_title().split(";")[0]: axes for axes in figure.axes if axes.get_title()}


def curves(axes):
    return {
        line.get_label(): [*zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True)]
        for line in axes.lines
        if len(line.get_xdata()) != 2 or line.get_xdata()[0] != line.get_xdata()[1]
    }


def test_losses_and_accuracies_are_those_of_both_heads():
    shown = panels(plot_clustering_curves(table_of(7)))
    losses, accuracies = curves(shown["Loss"]), curves(shown["Accuracy of the images trained on"])
    assert {*losses} == {"loss", "of super-classes", "of clusters"}
    assert losses["of clusters"][1] == (2, 1.0)
    assert {*accuracies} == {"both right", "super-class", "cluster"}
    assert accuracies["cluster"][6] == (7, pytest.approx(700 / 110))
    assert shown["Loss"].get_title() == "Loss; learning rate 0.1"


def test_what_is_known_in_some_rows_alone_is_one_curve():
    figure = plot_clustering_curves(table_of(7))
    shown = panels(figure)
    assert curves(shown["Clusters of one round and the next"]) == {
        "of all images": [(4, 0.04), (7, 0.07)]
    }
    assert curves(shown["Distance from the centroid"]) == {
        "clusters": [(1, 1.0), (4, 0.25), (7, 1 / 7)]
    }
    assert curves(shown["Sizes of clusters"]) == {"largest": [(1, 101), (4, 104), (7, 107)]}
    (empty,) = [axes for axes in figure.axes if axes.get_ylabel() == "empty clusters"]
    assert [(bar.get_center()[0], bar.get_height()) for bar in empty.patches] == [
        (pytest.approx(epoch), epoch % 4) for epoch in (1, 4, 7)
    ]
    marks = [line.get_xdata()[0] for line in shown["Loss"].lines if line.get_linestyle() == ":"]
    assert marks == [0.5, 3.5, 6.5]
    figure.canvas.draw()


def test_other_stages_and_sizes_are_drawn_beside_these():
    begins = table_of(7)["mean_squared_distance"].notna()
    columns = {
        "mean_squared_distance_super_clusters": np.where(begins, 2.0, np.nan),
        "median_cluster": np.where(begins, 5.0, np.nan),
        "smallest_cluster": np.where(begins, 0.0, np.nan),
    }
    shown = panels(plot_clustering_curves(table_of(7, **columns)))
    assert {*curves(shown["Distance from the centroid"])} == {"clusters", "super clusters"}
    sizes = shown["Sizes of clusters"]
    assert curves(sizes)["median"] == [(1, 5), (4, 5), (7, 5)]
    assert curves(sizes)["smallest"] == []
    assert sizes.get_yscale() == "log"


@pytest.mark.parametrize("n_epochs", [1, 200])
def test_few_epochs_and_many(n_epochs):
    figure = plot_clustering_curves(table_of(n_epochs))
    shown = panels(figure)
    said = [text.get_text() for text in shown["Clusters of one round and the next"].texts]
    assert said == (["there is one round alone"] if n_epochs == 1 else [])
    marks = [line for line in shown["Loss"].lines if line.get_linestyle() == ":"]
    assert len(marks) == (1 if n_epochs == 1 else 0)
    figure.canvas.draw()


def test_a_clustering_without_an_epoch_is_no_epoch():
    last = {"epoch": 8, NMI: 0.9, EMPTY: 0, "largest_cluster": 7, "mean_squared_distance": 0.1}
    table = pd.concat([table_of(7), pd.DataFrame([last])], ignore_index=True)
    shown = panels(plot_clustering_curves(table))
    assert [epoch for epoch, _ in curves(shown["Loss"])["loss"]] == [*range(1, 8)]
    assert curves(shown["Clusters of one round and the next"])["of all images"][-1] == (8, 0.9)
    assert not shown["Loss"].texts, "a learning rate that is not there takes no step"
    only = panels(plot_clustering_curves(table.tail(1)))
    assert "Loss" not in only and len(only) == 3


def test_of_one_super_class_only_the_clusters_are_drawn():
    """DeepCluster."""
    table = table_of(5).assign(loss_super_class=0.0, accuracy_super_class=1.0)
    table["loss_sub_class"], table["accuracy"] = table["loss"], table["accuracy_sub_class"]
    shown = panels(plot_clustering_curves(table))
    assert "loss" in curves(shown["Loss"])
    assert "of super-classes" not in curves(shown["Loss"])
    accuracies = curves(shown["Accuracy of the images trained on"])
    assert "cluster" in accuracies
    assert not {"super-class", "both right"} & {*accuracies}


def test_without_clusterings_it_is_the_training_alone():
    """RotNet: one head, no clusters."""
    table = table_of(5)[["epoch", "learning_rate", "loss", "loss_super_class", "accuracy"]]
    table = table.assign(
        loss_super_class=table["loss"], loss_sub_class=0.0,
        accuracy_super_class=table["accuracy"], accuracy_sub_class=1.0,
    )  # fmt: skip
    figure = plot_clustering_curves(table)
    shown = panels(figure)
    assert {*curves(shown["Loss"])} == {"loss"}
    # The head of one cluster, which is always right, says nothing.
    assert {*curves(shown["Accuracy of the images trained on"])} == {"super-class"}
    assert len(figure.axes) == 2
    assert plot_clustering_curves(table_of(0)).axes[0].texts[0].get_text() == (
        "no epoch is done yet"
    )


def test_accuracies_of_test_images_come_first():
    table = table_of(5, bank_top1=0.5)
    _, accuracy = plot_training_curves(table).axes
    assert accuracy.get_title() == "Accuracy of test images"
    assert {*curves(accuracy)} == {"bank top-1"}


def test_a_table_that_was_written_and_read(tmp_path):
    table_of(7).to_csv(tmp_path / "a.csv", index=False)
    read = pd.read_csv(tmp_path / "a.csv")
    before, after = (panels(plot_clustering_curves(table)) for table in (table_of(7), read))
    assert {name: curves(axes) for name, axes in before.items()} == {
        name: curves(axes) for name, axes in after.items()
    }
