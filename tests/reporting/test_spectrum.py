import faiss
import numpy as np
import pytest

from lowshot_kedro.reporting import plot_spectrum


def pca_of(variances, n_components):
    transform = faiss.PCAMatrix(len(variances), n_components)
    faiss.copy_array_to_vector(np.array(variances, np.float32), transform.eigenvalues)
    return transform


def test_the_spectrum_shows_each_variance_their_sum_and_what_is_kept():
    figure = plot_spectrum(pca_of([500, 250, 150, 100, 0], 2))
    axes, cumulative = figure.axes
    of_each, limit = axes.lines
    (together,) = cumulative.lines
    np.testing.assert_array_equal(of_each.get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_allclose(of_each.get_ydata(), [50, 25, 15, 10, np.nan])
    np.testing.assert_allclose(together.get_ydata(), [50, 75, 90, 100, 100])
    assert set(limit.get_xdata()) == {2}
    assert (axes.get_yscale(), cumulative.get_yscale()) == ("log", "linear")
    assert axes.get_title() == "2 of 5 dimensions keep 75.0 % of the variance"
    figure.canvas.draw()


def test_the_spectrum_leaves_out_what_is_only_rounding():
    axes, _ = plot_spectrum(pca_of([1, 1e-6, 1e-8, -1e-8], 2)).axes
    shown = np.isfinite(axes.lines[0].get_ydata())
    np.testing.assert_array_equal(shown, [True, True, False, False])


@pytest.mark.parametrize("transform", [faiss.OPQMatrix(8, 2), faiss.PCAMatrix(8, 2)])
def test_a_transform_without_a_spectrum_says_so(transform):
    figure = plot_spectrum(transform)
    (axes,) = figure.axes
    assert axes.texts[0].get_text() == f"{type(transform).__name__}: spectrum not known"
    figure.canvas.draw()


def test_equal_rows_have_no_spectrum():
    figure = plot_spectrum(pca_of([0, 0, 0], 2))
    assert figure.axes[0].texts[0].get_text() == "no variance: all rows are equal"
    figure.canvas.draw()
