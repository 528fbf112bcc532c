"""How much a confidence is worth: the accuracy of held-out labels at each confidence."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

from lowshot_kedro.methods.palette import BLUE, GREY
from lowshot_kedro.reporting.style import empty_figure

_MAX_LETTERS = 90


def plot_reliability(report: Mapping[str, Any]) -> Figure:
    """The accuracy of held-out labels at each confidence, with its error, above their number.

    Points on the diagonal say that, of the images labelled with a confidence of 0.8, 80 % are
    right. (DeGroot and Fienberg, The Comparison and Evaluation of Forecasters, 1983.)

    Args:
        report: The report of a labelling.

    Returns:
        The figure; one that says why, where there are too few held-out labels.
    """
    bins = [entry for entry in report.get("reliability") or () if entry["n"]]
    sentence = str(report.get("calibration_sentence") or "")
    if not bins:
        return empty_figure(fill(sentence or "too few labels were held out", _MAX_LETTERS))
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as often right as it says")
    axes.errorbar(
        [entry["confidence"] for entry in bins],
        [entry["accuracy"] for entry in bins],
        yerr=[entry["error"] or 0 for entry in bins],
        color=BLUE, marker="o", linestyle="none", capsize=4, label="held-out labels, ± error",
    )  # fmt: skip
    axes.set(ylabel="part that is right", xlim=(0, 1.02), ylim=(0, 1.05))
    axes.set_title(
        fill(sentence, _MAX_LETTERS) or "Accuracy at each confidence",
        fontsize=10, parse_math=False,
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    bars = counts.bar(
        [entry["lower"] for entry in bins],
        [entry["n"] for entry in bins],
        [entry["upper"] - entry["lower"] for entry in bins],
        align="edge", color=BLUE, edgecolor="white",
    )  # fmt: skip
    counts.bar_label(bars, fontsize=7)
    counts.margins(y=0.3)
    counts.set(xlabel="confidence", ylabel="labels")
    return figure
