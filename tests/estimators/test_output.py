"""What importing, fitting and predicting leave on the screen and in the process."""

import io
import logging
import subprocess
import sys

import pytest

import lowshot_kedro
from lowshot_kedro import LabelDiffusion

from .making import clusters, few_labels

LOADED = """
import sys
import lowshot_kedro

def loaded(*names):
    return [name for name in names if name in sys.modules]

print(loaded("torch", "kedro", "sklearn", "faiss", "scipy"))
from lowshot_kedro import LabelDiffusion
LabelDiffusion(2, 1).fit([[0.0], [1.0]], [0, 1]).predict([[0.0]])
print(loaded("kedro", "kedro_datasets", "kedro_viz", "lowshot_kedro.pipelines"))
"""


def test_importing_is_cheap_and_the_estimator_does_without_kedro():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_what_the_package_has_not_is_missed_as_usual():
    with pytest.raises(AttributeError, match=r"lowshot_kedro.*LabelDifusion"):
        lowshot_kedro.LabelDifusion  # noqa: B018


@pytest.fixture
def untouched_logging():
    """As Python begins. Kedro, once loaded, has INFO printed on stdout."""
    before = []
    for logger in (logging.getLogger(), logging.getLogger("lowshot_kedro")):
        before.append((logger, logger.level, logger.handlers[:], logger.propagate))
        logger.handlers[:], logger.propagate = [], True
        logger.setLevel(logging.WARNING if logger.name == "root" else logging.NOTSET)
    yield
    for logger, level, handlers, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def fit_and_predict(**settings):
    X, classes = clusters(200)
    model = LabelDiffusion(5, **settings).fit(X, few_labels(classes, 5))
    model.predict(X)
    model.score(X, classes)


def logging_settings():
    loggers = [logging.getLogger(), logging.getLogger("lowshot_kedro")]
    return [
        (logger.level, list(logger.handlers), logger.propagate, logger.disabled, logger.filters[:])
        for logger in loggers
    ]


@pytest.mark.parametrize("n_iterations", [8, "auto"])
def test_nothing_is_printed_unless_asked_for(untouched_logging, n_iterations, capfd, monkeypatch):
    before = logging_settings()
    fit_and_predict(n_iterations=n_iterations)
    assert capfd.readouterr() == ("", "")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    fit_and_predict(n_iterations=n_iterations)
    assert screen.getvalue() == ""
    assert logging_settings() == before


@pytest.mark.parametrize("n_iterations", [8, "auto"])
def test_verbose_says_on_stderr_what_is_being_done(untouched_logging, n_iterations, capfd):
    before = logging_settings()
    fit_and_predict(n_iterations=n_iterations, verbose=True)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "graph" in printed.err and "diffusion" in printed.err
    lines = [line for line in printed.err.splitlines() if line.strip() and "|" not in line]
    assert len(lines) == len(set(lines)) > 1
    assert logging_settings() == before


def test_verbose_shows_bars_in_a_terminal(untouched_logging, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    fit_and_predict(n_iterations=8, verbose=True)
    assert "%|" in screen.getvalue()


def test_loggers_are_as_before_when_fit_fails(untouched_logging, capfd):
    before = logging_settings()
    X, classes = clusters()
    X[3] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        LabelDiffusion(5, verbose=True).fit(X, few_labels(classes))
    assert logging_settings() == before
    fit_and_predict()
    assert capfd.readouterr().out == ""
