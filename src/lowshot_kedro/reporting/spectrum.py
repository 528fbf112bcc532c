"""How a PCA spreads the variance."""

from __future__ import annotations

import faiss
import numpy as np
from matplotlib.figure import Figure

from lowshot_kedro.methods.palette import BLUE, GREY, ORANGE
from lowshot_kedro.pca import spectrum_of, variance_kept
from lowshot_kedro.reporting.style import empty_figure

# Smaller variances, beside the largest, are what float32 has rounded.
_MIN_VARIANCE = 1e-7


def plot_spectrum(transform: faiss.VectorTransform) -> Figure:
    """How the variance is spread over the directions of a PCA, and how much of it is kept.

    A transform that does not know that, such as an OPQ, gives a figure that says so, and so does
    one that was trained on equal rows.
    """
    variances, kept = spectrum_of(transform), variance_kept(transform)
    if kept is None and len(variances):
        return empty_figure("no variance: all rows are equal")
    if kept is None:
        return empty_figure(f"{type(transform).__name__}: spectrum not known")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    parts = 100 * variances / variances.sum()
    numbers = np.arange(1, len(parts) + 1)
    shown = np.where(parts > _MIN_VARIANCE * parts.max(), parts, np.nan)
    (of_each,) = axes.plot(numbers, shown, color=BLUE, label="of each direction")
    cumulative = axes.twinx()
    (together,) = cumulative.plot(
        numbers, np.cumsum(parts), color=ORANGE, label="of all up to here"
    )
    limit = axes.axvline(
        transform.d_out, color=GREY, linestyle="--", label=f"{transform.d_out} are kept"
    )
    axes.set(
        xlabel="direction", ylabel="variance (%, logarithmic)", yscale="log",
        title=f"{transform.d_out} of {transform.d_in} dimensions keep {100 * kept:.1f} % "
        "of the variance",
    )  # fmt: skip
    cumulative.set(ylabel="sum of the variances (%)", ylim=(0, 105))
    axes.grid(alpha=0.3)
    figure.legend(
        handles=[of_each, together, limit], fontsize=8, ncols=3, loc="outside lower center"
    )
    return figure
