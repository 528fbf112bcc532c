"""Colours and words that the tables and plots have in common."""

from __future__ import annotations

from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with colour-blindness tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
SKY_BLUE, VERMILLION, PURPLE = "#56B4E9", "#D55E00", "#CC79A7"

# The groups of test images that accuracies are computed for, as the names of columns end.
GROUP_NAMES = {"": "all classes", "_novel": "novel classes", "_base": "base classes"}
GROUP_COLORS = {"": BLUE, "_novel": ORANGE, "_base": GREEN}


def empty_figure(message: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.text(0.5, 0.5, message, ha="center")
    return figure
