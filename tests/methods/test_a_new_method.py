"""The method of docs/extend.md: nothing else knows its name."""

import re
import runpy
from importlib.metadata import EntryPoint

import pandas as pd
import pytest

from lowshot_kedro import methods, reporting
from lowshot_kedro.methods import METHODS
from lowshot_kedro.metrics import EvaluationParameters
from lowshot_kedro.pipelines.baseline.nodes import train_baseline
from lowshot_kedro.protocol import ExperimentParameters, choose_images
from lowshot_kedro.sweep import execution, frames, plan
from lowshot_kedro.sweep.choice import Hyperparameters, choose
from lowshot_kedro.sweep.parameters import read_sweep
from lowshot_kedro.sweep.preparation import describe_data
from tests.projects import ROOT
from tests.sweep.data import MemoryInputs, MemoryStore
from tests.sweep.making import make_settings
from tests.test_parameters import VALID

PAGE = ROOT / "docs" / "extend.md"


@pytest.fixture
def method(monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    written = {"__name__": __name__}
    exec(example, written)
    monkeypatch.setitem(METHODS, "nearest_centroid", written["NearestCentroidMethod"]())
    return METHODS["nearest_centroid"]


def computed(runs):
    results = dict(runs.compute(list(runs.provenance)))
    return {key: lambda content=content: content for key, content in results.items()}


def test_it_goes_through_the_sweep_to_tables_and_plots(method):
    settings = make_settings(
        **{"sweep.methods": ["nearest_class_mean", "nearest_centroid"], "sweep.seeds": [1, 2]}
    )
    inputs, store, sweep = MemoryInputs(), MemoryStore(), settings.sweep
    data = describe_data(
        inputs.class_split, inputs.train_features, inputs.test_features, inputs.pca_transform,
        {n: inputs.backgrounds[n] for n in (0, None)}, settings,
    )  # fmt: skip
    prepared = execution.PreparedSweep(inputs, settings, data)

    validated = computed(execution.validation_results(prepared, store))
    assert set(validated) == {
        f"nearest_centroid/val/nl{n}/shrink{shrink}/seed{seed}"
        for n in (1, 2) for shrink in (0.1, 0.5) for seed in (1, 2)
    }  # fmt: skip
    runs = plan.validation_runs(sweep, data)
    chosen = choose(runs, validated, sweep.metric)
    assert chosen["nearest_centroid"].keys() == {"nl1", "nl2"}
    grid = frames.validation_grid(runs, validated, sweep.metric)
    assert set(grid["shrink"]) == {0.1, 0.5}

    hyperparameters = Hyperparameters(chosen)
    tested = computed(execution.test_results(prepared, hyperparameters, store))
    finals = frames.final_accuracies(
        plan.chosen_runs(sweep, data, hyperparameters), tested, hyperparameters
    )
    summary = reporting.summarize(finals, [1])
    table = reporting.comparison_table(summary, 1)
    assert table["method"].tolist() == ["nearest class mean", "nearest centroid"]
    # As it is without a sweep.
    key = f"nearest_centroid/test/nl2/shrink{chosen['nearest_centroid']['nl2']['shrink']}/seed1"
    of_one = finals.set_index("key").loc[key, "top1"]
    assert of_one == tested[key]()["final"]["top1"] > 0.5
    figure = reporting.plot_accuracy_per_n_labeled(summary, 1)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["nearest class mean", "nearest centroid"]
    assert isinstance(reporting.run_resources(frames.resources(runs, validated)), pd.DataFrame)


def test_a_value_that_no_person_could_have_chosen_is_refused(method):
    content = {"nearest_centroid": {"nl2": {"shrink": 7}}}
    expected = "nearest_centroid.nl2.shrink is 7, expected a number above 0 and below 1"
    with pytest.raises(ValueError, match=expected):
        Hyperparameters(content).of("nearest_centroid", 2)


def test_its_grid_may_be_typed_and_is_named_where_it_is_wrong(method):
    given = VALID["sweep"] | {"nearest_centroid": {"shrink": [0.2]}}
    assert read_sweep(given).grids["nearest_centroid"].shrink == [0.2]
    with pytest.raises(ValueError, match=r"^sweep\.nearest_centroid\.shrnk: unknown .*shrink\?"):
        read_sweep(VALID["sweep"] | {"nearest_centroid": {"shrnk": [0.2]}})


def test_a_single_run_trains_it(method):
    """As the baseline pipeline does, whose node knows no method by name."""
    inputs = MemoryInputs()
    experiment = ExperimentParameters("test", 2, 1, "none")
    selection = choose_images(
        inputs.class_split, inputs.train_features, inputs.test_features, experiment
    )
    for name in ("nearest_class_mean", "nearest_neighbors", "nearest_centroid"):
        parameters = VALID | {"baseline": {"method": name}}
        evaluation = EvaluationParameters([1], 0.5, 8)
        _, scores, metrics = train_baseline(
            selection, inputs.train_features, inputs.test_features, experiment, evaluation,
            parameters,
        )  # fmt: skip
        assert metrics["method"] == name
        guesses = scores["scores"].argmax(axis=1)
        assert metrics["final"]["top1"] == (guesses == selection.test_classes).mean() > 0.3
        sums = METHODS[name].probabilities(scores["scores"]).sum(axis=1)
        # None where every class is further than at right angles.
        assert set(sums.round(12)) <= {0.0, 1.0}


def test_a_method_of_another_package_is_an_entry_point(monkeypatch):
    found = EntryPoint("centroid", "lowshot_kedro.methods:Method", "lowshot_kedro.methods")
    monkeypatch.setattr(EntryPoint, "load", lambda entry: lambda: entry.name)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [found])
    again = runpy.run_path(methods.__file__, run_name="lowshot_kedro.methods_again")
    assert again["METHODS"]["centroid"] == "centroid"
    assert set(again["METHODS"]) == {*METHODS, "centroid"}
