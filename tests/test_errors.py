import copy
import pickle
from pathlib import Path

import pytest

from lowshot_kedro.errors import (
    MAX_SHOWN,
    InputError,
    MissingFileError,
    NotEnoughMemoryError,
    did_you_mean,
    shown,
)
from lowshot_kedro.locks import ResultInUseError
from lowshot_kedro.parameters import require_integer
from lowshot_kedro.project.config import UserError


def repeated(depth):
    """A list of as many lists as YAML writes with a line for each, and 2 ** depth of them."""
    value = ["x"]
    for _ in range(depth):
        value = [value, value]
    return value


def circle():
    value = {}
    value["again"] = value
    return value


@pytest.mark.parametrize(
    "value, text",
    [
        (3, "3"),
        (1e300, "1e+300"),
        ("cat", "'cat'"),
        ([1, 2.5, "x"], "[1, 2.5, 'x']"),
        (list(range(19)), str(list(range(19)))),
        ({"k": [1, {"deep": (2, 3)}]}, "{'k': [1, {'deep': (2, 3)}]}"),
        (10**30, str(10**30)),
        ([10**5000], "a huge list"),
    ],
)
def test_what_is_short_is_shown_as_it_is(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    "value", ["x" * 10**6, list(range(10**6)), repeated(60), circle(), 10**4000, {1: "a\nb" * 99}]
)
def test_what_is_long_or_without_end_is_shown_in_part(value):
    text = shown(value)
    assert len(text) <= MAX_SHOWN
    assert "\n" not in text


@pytest.mark.parametrize(
    "message, facts, text",
    [
        ("a.hdf5: is cut off", {}, "a.hdf5: is cut off"),
        ("", {"parameter": "k", "found": 0, "expected": "1..9"}, "k: got 0, expected 1..9"),
        ("", {"parameter": "k", "found": None, "expected": "1..9"}, "k: got None, expected 1..9"),
        ("but there are 3", {"parameter": "k", "found": 5}, "k: got 5, but there are 3"),
        (
            "but there are 3",
            {"parameter": "k", "found": 5, "expected": "at most 3"},
            "k: got 5, but there are 3; expected at most 3",
        ),
        ("a.pth holds NaN", {"parameter": "weights"}, "weights: a.pth holds NaN"),
        (
            "no file a",
            {"parameter": "weights", "expected": "a file"},
            "weights: no file a; expected a file",
        ),
        ("", {"parameter": "k", "found": 5, "where": Path("x.raw")}, "x.raw: k: got 5"),
        # An amount of memory is said as people type it.
        (
            "",
            {"parameter": "memory_budget_bytes", "found": 2_500_000_000, "expected": "more"},
            "memory_budget_bytes: got 2.5 GB, expected more",
        ),
        (
            "",
            {"parameter": "memory_budget_bytes", "found": True, "expected": "more"},
            "memory_budget_bytes: got True, expected more",
        ),
        ("x.yml is missing", {"made_by": "sweep"}, "x.yml is missing; the pipeline sweep makes it"),
    ],
)
def test_the_text_of_an_error(message, facts, text):
    error = InputError(message, **facts)
    assert str(error) == text
    assert (error.parameter, error.found, error.expected, error.made_by) == tuple(
        facts.get(name) for name in ("parameter", "found", "expected", "made_by")
    )


def refuse(kind=InputError):
    return kind("but it is small", parameter="graph_size", found={"n": 3}, expected="more")


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    "kind", [InputError, MissingFileError, NotEnoughMemoryError, ResultInUseError]
)
def test_an_error_that_is_copied_or_sent_says_the_same(kind, again):
    error = refuse(kind)
    other = again(error)
    assert type(other) is kind
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert other.origin == __name__


def test_an_error_at_the_surface_can_be_sent():
    error = UserError("graph.k: got 0")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == error.message


def test_what_cannot_be_sent_is_sent_as_a_text():
    error = InputError(parameter="k", found=lambda: 3, expected="a number")
    other = pickle.loads(pickle.dumps(error))
    assert str(other) == str(error)
    assert other.found.startswith("<function")
    assert callable(error.found)


def test_a_text_does_not_follow_what_is_changed_later():
    found = [1]
    error = InputError(parameter="k", found=found)
    found.append(2)
    assert str(error) == "k: got [1]"


def test_another_name_for_the_parameter():
    found = object()
    error = NotEnoughMemoryError("but it is small", parameter="size_bytes", found=found)
    other = error.renamed("size_gb")
    assert type(other) is NotEnoughMemoryError
    assert str(other) == f"size_gb: got {shown(found)}, but it is small"
    assert other.found is found
    assert error.parameter == "size_bytes"


def test_an_error_that_sums_up_others_words_them_too():
    details = {"a/1": refuse(), "b/2": OSError("disk\nfull"), "c": RuntimeError()}
    error = InputError("3 of 4 failed", details=details)
    expected = "3 of 4 failed: a/1: {}: got {{'n': 3}}, but it is small; expected more; "
    expected += "b/2: disk full; c: RuntimeError"
    assert str(error) == expected.format("graph_size")
    assert error.worded(lambda error: error.parameter.upper()) == expected.format("GRAPH_SIZE")
    assert str(InputError("4 of 4 failed", details={**details, "d": refuse()})).endswith("or; …")


def test_a_missing_file_is_one_for_whoever_expects_that():
    with pytest.raises(FileNotFoundError, match=r"^weights: no file a\.pth$"):
        raise MissingFileError("no file a.pth", parameter="weights")
    with pytest.raises(InputError):
        raise MissingFileError("no file a.pth", parameter="weights")


@pytest.mark.parametrize("value", [0, 11, 1.0, "3", True, None])
def test_what_is_no_integer_of_a_range(value):
    with pytest.raises(InputError) as caught:
        require_integer("k", value, 1, 10, where="x.raw")
    assert str(caught.value) == f"x.raw: k: got {value!r}, expected an integer from 1 to 10"
    assert (caught.value.parameter, caught.value.found) == ("k", value)
    # Whoever asked is the one who refuses.
    assert caught.value.origin == __name__


@pytest.mark.parametrize(
    ("found", "known", "n", "hint"),
    [
        ("cosin", ["step", "cosine"], 1, " (did you mean cosine?)"),
        ("COSINE", ["step", "Cosine"], 1, " (did you mean Cosine?)"),
        ("resnet", {"resnet18": None}, 1, " (did you mean resnet18?)"),
        ("abcd", ["abce", "abcf", "xyz"], 2, " (did you mean abcf or abce?)"),
        ("nothing", ["step", "cosine"], 1, ""),
        (3, ["3", "33"], 1, ""),
        ("step", [], 1, ""),
    ],
)
def test_the_word_that_is_probably_meant(found, known, n, hint):
    assert did_you_mean(found, known, n) == hint
    assert did_you_mean("sted", ["step"], shown_as="snca.{}".format) == " (did you mean snca.step?)"
