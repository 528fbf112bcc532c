import importlib.util
import logging
import sys

import pytest

from lowshot_kedro.blocks import RegionFeatures
from lowshot_kedro.episodes.choice import chosen_methods
from lowshot_kedro.episodes.methods import METHODS, MethodOptions
from lowshot_kedro.episodes.parameters import EpisodesParameters
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import MissingLibraryError
from tests.features import MemoryFeatures

OPTIONS = MethodOptions()
VIEWS = ("map", "grid", "sampling")


@pytest.fixture
def without_easyfsl(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "easyfsl", raising=False)
    monkeypatch.setattr(
        "lowshot_kedro.extras.find_spec",
        lambda name: None if name == "easyfsl" else find_spec(name),
    )


def names(methods):
    return [method.name for method in methods]


def left_out(caplog):
    return {
        record.getMessage().split(": ")[1]: record.getMessage()
        for record in caplog.records
        if record.getMessage().startswith("left out: ")
    }


def test_all_are_those_of_the_table_in_its_order(caplog):
    caplog.set_level(logging.INFO)
    assert names(chosen_methods("all", OPTIONS, VIEWS)) == list(METHODS)
    assert left_out(caplog) == {}


def test_some_are_taken_in_the_order_given_each_once():
    wanted = ["tim", "nearest_class_mean", "tim"]
    assert names(chosen_methods(wanted, OPTIONS, VIEWS)) == ["tim", "nearest_class_mean"]
    assert names(chosen_methods("tim", OPTIONS, VIEWS)) == ["tim"]


def test_an_unknown_name_is_told_with_the_one_that_is_meant():
    with pytest.raises(InputError, match=r"methods: got 'simpel_shot'.*mean simple_shot\?"):
        chosen_methods(["simpel_shot"], OPTIONS, VIEWS)


def test_all_leaves_out_views_that_are_not_there_and_says_so(caplog):
    caplog.set_level(logging.INFO)
    chosen = names(chosen_methods("all", OPTIONS, ("map", "grid")))
    assert set(METHODS) - set(chosen) == {"deepemd_sampling"} == set(left_out(caplog))
    assert "view sampling, but there is map and grid" in left_out(caplog)["deepemd_sampling"]
    with pytest.raises(InputError, match="methods: got 'deepemd_sampling', looks at the view"):
        chosen_methods(["deepemd_sampling"], OPTIONS, ("map",))
    with pytest.raises(InputError, match="methods: got 'all', none of them has what it needs"):
        chosen_methods("all", OPTIONS, ())


def test_all_leaves_out_what_is_not_installed_and_says_what_to_type(caplog, without_easyfsl):
    caplog.set_level(logging.INFO)
    chosen = names(chosen_methods("all", OPTIONS, VIEWS))
    missing = {name for name, method in METHODS.items() if "easyfsl" in method.needs}
    assert set(METHODS) - set(chosen) == missing == set(left_out(caplog))
    assert len(missing) == 9
    assert 'pip install "lowshot-kedro[episodes]"' in left_out(caplog)["tim"]
    caplog.clear()
    assert names(chosen_methods("all", OPTIONS, VIEWS, says_why=False)) == chosen
    assert not left_out(caplog)
    with pytest.raises(MissingLibraryError, match="methods: got 'tim', needs easyfsl"):
        chosen_methods(["tim"], OPTIONS, VIEWS)


def test_deepemd_is_left_out_where_images_have_one_region_unless_it_is_named(caplog):
    caplog.set_level(logging.INFO)
    views = {"map": RegionFeatures(MemoryFeatures([[1.0, 2.0]], "vectors"), (2, 1, 1))}
    assert not [name for name in names(chosen_methods("all", OPTIONS, views)) if "emd" in name]
    assert "one region" in left_out(caplog)["deepemd_fcn"]
    assert names(chosen_methods(["deepemd_fcn"], OPTIONS, views)) == ["deepemd_fcn"]


def test_one_name_is_a_list_of_one():
    assert EpisodesParameters(methods="nearest_class_mean").methods == ("nearest_class_mean",)
    assert EpisodesParameters(methods="all").methods == "all"
