import pytest

from lowshot_kedro.errors import MAX_SHOWN, shown


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
