import json

import pytest
from kedro.io import DatasetError

from lowshot_kedro.datasets import JsonArrayDataset
from lowshot_kedro.errors import InputError


def dataset(tmp_path):
    return JsonArrayDataset(filepath=str(tmp_path / "sub" / "list.json"))


@pytest.mark.parametrize("entries", [[], [{}], [1, "é\n", None, {"a": [1.5, {"b": "]\n"}]}]])
def test_entries_come_back(tmp_path, entries):
    array = dataset(tmp_path)
    array.save(iter(entries))
    assert array.load() == entries
    assert json.loads((tmp_path / "sub" / "list.json").read_text("utf-8")) == entries
    array.check()
    assert array.exists()


def test_entries_are_written_one_by_one(tmp_path):
    array = dataset(tmp_path)
    unfinished = tmp_path / "sub" / ".partial-list.json"

    def entries():
        for number in range(2000):
            yield {"number": number, "text": "x" * 100}
        assert unfinished.stat().st_size > 100_000
        assert not (tmp_path / "sub" / "list.json").exists()

    array.save(entries())
    assert len(array.load()) == 2000 and not unfinished.exists()


def test_what_fails_on_the_way_leaves_the_earlier_file(tmp_path):
    array = dataset(tmp_path)
    array.save([1, 2])

    def failing():
        yield 3
        raise RuntimeError("stopped")

    with pytest.raises(DatasetError, match="stopped"):
        array.save(failing())
    with pytest.raises(DatasetError, match="Out of range"):
        array.save([float("nan")])
    assert array.load() == [1, 2]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["list.json"]


@pytest.mark.parametrize("content", ["{}", "", "[1, 2", "x"])
def test_what_is_no_list_is_named(tmp_path, content):
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"list\.json: (found no list|not valid JSON)"):
        JsonArrayDataset(filepath=str(path)).load()


def test_a_check_reads_the_beginning_alone(tmp_path):
    path = tmp_path / "list.json"
    array = JsonArrayDataset(filepath=str(path))
    with pytest.raises(FileNotFoundError):
        array.check()
    path.write_text(' \n["any')
    array.check()
    path.write_text('{"a": []}')
    with pytest.raises(InputError, match="found no list"):
        array.check()


@pytest.mark.parametrize("indent", [None, 2])
def test_a_preview_counts_entries_and_shows_the_first(tmp_path, indent):
    path = tmp_path / "list.json"
    array = JsonArrayDataset(filepath=str(path))
    if indent:
        path.write_text(json.dumps([{"n": n} for n in range(50)], indent=indent))
    else:
        array.save({"n": n} for n in range(50))
    rows = array.preview()["data"]
    assert ["entries", "50"] in [row[:2] for row in rows]
    assert ["row 0", '{"n": 0}'] in [row[:2] for row in rows]
    assert ["row 4", '{"n": 4}'] in [row[:2] for row in rows]
    assert not any("row 5" in row for row in rows)
    assert array.statistics()["file_size"] == path.stat().st_size
