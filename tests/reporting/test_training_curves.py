import numpy as np
import pandas as pd
import pytest

from lowshot_kedro.reporting import plot_training_curves


def table_of(n_epochs, **columns):
    epochs = np.arange(1, n_epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epochs,
            "learning_rate": 0.1 * 0.1 ** np.minimum(epochs // 4, 2),
            "bank_momentum": np.where(epochs < 6, 0.5, 0.8),
            "loss": 1 / epochs,
            "seconds": 7.0,
            **columns,
        }
    )


def drawn(line):
    return [*zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True)]


@pytest.mark.parametrize("n_epochs", [1, 7, 200])
def test_loss_and_accuracies_are_drawn_per_epoch(n_epochs):
    measured = np.linspace(0.2, 0.9, n_epochs)
    table = table_of(n_epochs, bank_top1=measured, bank_top5=np.nan)
    figure = plot_training_curves(table)
    loss, accuracy = figure.axes
    assert drawn(loss.lines[0]) == [*zip(table["epoch"], table["loss"], strict=True)]
    (line,) = [line for line in accuracy.lines if not line.get_label().startswith("_")]
    assert line.get_label() == "bank top-1"
    np.testing.assert_allclose(line.get_ydata(), 100 * measured)
    # A point alone has no line.
    assert (loss.lines[0].get_marker() == "o") is (n_epochs < 100)
    figure.canvas.draw()


def test_epochs_without_a_measurement_are_left_out():
    table = table_of(5, bank_top1=[np.nan, 0.5, np.nan, np.nan, 0.75])
    line = plot_training_curves(table).axes[1].lines[0]
    assert drawn(line) == [(2, 50), (5, 75)]


def test_steps_of_learning_rate_and_bank_momentum_are_marked():
    figure = plot_training_curves(table_of(9, top1=0.5))
    loss, accuracy = figure.axes
    assert loss.get_title() == "Loss; learning rate at first 0.1"
    steps = [(text.xy[0], text.get_text()) for text in loss.texts]
    assert steps == [
        (3.5, "learning rate 0.01"), (5.5, "bank momentum 0.8"), (7.5, "learning rate 0.001"),
    ]  # fmt: skip
    for axes in (loss, accuracy):
        assert [line.get_xdata()[0] for line in axes.lines[1:]] == [3.5, 5.5, 7.5]


def test_a_smooth_learning_rate_is_a_curve_of_its_own():
    rates = np.linspace(0.1, 0.01, 12)
    table = table_of(12, learning_rate=rates).drop(columns="bank_momentum")
    loss, rate = plot_training_curves(table).axes
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), rates)
    assert rate.get_ylabel() == "learning rate"
    assert len(loss.lines) == 1


def test_before_the_first_epoch_the_figure_says_so():
    (axes,) = plot_training_curves(table_of(0)).axes
    assert axes.texts[0].get_text() == "no epoch is done yet"
