"""Which cluster each image is in, written in blocks and read by any program."""

import csv
import inspect

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro.blocks import TableBlocks
from lowshot_kedro.datasets import ClusterAssignmentsDataset
from tests.datasets.helpers import refused, refused_by_check_and_load
from tests.datasets.test_previews import annotation, pretty

COLUMNS = ("image", "file", "super_cluster", "cluster", "distance")
FILES = ["12/345.zip/678.jpg", 'a, "b".png', "NA", "nan", "", "zwei\nZeilen.png", "null", "ä€.png"]


def block(first, files, distances=None):
    n = len(files)
    return {
        "image": np.arange(first, first + n),
        "file": files,
        "super_cluster": np.arange(n, dtype=np.int32) % 3 - 1,
        "cluster": np.arange(n, dtype=np.int32) * 7,
        "distance": np.linspace(0, 2, n, dtype=np.float32) if distances is None else distances,
    }


def table(*blocks, n_rows=None):
    made = sum(len(part["image"]) for part in blocks) if n_rows is None else n_rows
    return TableBlocks(made, COLUMNS, lambda: iter(blocks))


@pytest.fixture
def dataset(tmp_path):
    return ClusterAssignmentsDataset(filepath=str(tmp_path / "new folder" / "assignments.csv"))


def test_what_is_written_in_blocks_is_loaded_as_one_table(dataset):
    dataset.save(table(block(0, FILES[:3]), block(3, FILES[3:])))
    dataset.check()
    found = dataset.load()
    assert [str(kind) for name, kind in found.dtypes.items() if name != "file"] == [
        "int32", "int32", "int32", "float32",
    ]  # fmt: skip
    assert tuple(found.columns) == COLUMNS
    assert found["file"].tolist() == FILES
    assert found["image"].tolist() == [*range(8)]
    expected = pd.concat([pd.DataFrame(block(0, FILES[:3])), pd.DataFrame(block(3, FILES[3:]))])
    for name in ("super_cluster", "cluster", "distance"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_any_program_can_read_it(dataset):
    dataset.save(table(block(0, FILES)))
    with dataset._filepath.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == [*COLUMNS]
    assert [row[1] for row in rows[1:]] == FILES
    assert rows[1] == ["0", FILES[0], "-1", "0", "0.0"]
    assert rows[2][4] == "0.2857143"
    assert b"\r" not in dataset._filepath.read_bytes()


def test_a_name_with_a_carriage_return_is_one_field(dataset):
    names = ["Icon\r.png", "\r", "a\r\nb", "plain.png"]
    dataset.save(table(block(0, names), block(4, FILES)))
    assert dataset.load()["file"].tolist() == names + FILES
    with dataset._filepath.open(encoding="utf-8", newline="") as file:
        assert [row[1] for row in csv.reader(file)][1:] == names + FILES


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_distances_come_back_as_they_were(tmp_path_factory, distances):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    dataset = ClusterAssignmentsDataset(filepath=str(path))
    distances = np.array(distances, np.float32)
    dataset.save(table(block(0, [""] * len(distances), distances)))
    assert dataset.load()["distance"].to_numpy().tobytes() == distances.tobytes()


def test_names_that_are_no_text_are_written(dataset):
    dataset.save(table(block(0, ["b\udcff.png"])))
    assert dataset.load()["file"].tolist() == ["b\\udcff.png"]


def test_one_block_is_in_memory_and_the_file_appears_when_it_is_whole(dataset):
    seen = []

    def make():
        for first in range(0, 6, 2):
            seen.append(dataset.exists())
            yield block(first, ["a", "b"])
        raise OSError("gone")

    with refused(OSError, "gone"):
        dataset.save(TableBlocks(8, COLUMNS, make))
    assert seen == [False] * 3
    assert [path for path in dataset._filepath.parent.iterdir() if path.suffix == ".csv"] == []


@pytest.mark.parametrize("n_rows, found", [(3, "blocks of 4 rows"), (9, "more than 9")])
def test_other_rows_than_announced_are_refused(dataset, n_rows, found):
    data = table(*[block(0, ["a"] * 4)] * (1 if n_rows == 3 else 3), n_rows=n_rows)
    found = "more than 3" if n_rows == 3 else found
    with refused(ValueError, "assignments.csv", found, f"expected {n_rows}"):
        dataset.save(data)
    assert not dataset.exists()


def test_too_few_rows_are_refused(dataset):
    with refused(ValueError, "got blocks of 4 rows; expected 5"):
        dataset.save(table(block(0, ["a"] * 4), n_rows=5))


@pytest.mark.parametrize("change", ["missing", "more", "longer"])
def test_other_columns_than_announced_are_refused(dataset, change):
    rows = block(0, ["a", "b"])
    if change == "missing":
        del rows["file"]
    elif change == "more":
        rows["other"] = [1, 2]
    else:
        rows["file"] = ["a", "b", "c"]
    with refused(ValueError, "a block after row 0", "expected image, file"):
        dataset.save(table(rows))
    with refused(ValueError, "got columns image; expected image, file"):
        dataset.save(TableBlocks(0, ("image",), lambda: ()))


def test_no_image_makes_a_table_without_rows(dataset):
    dataset.save(table())
    assert dataset.load().empty
    assert dataset.preview()["data"] == []
    assert dataset.statistics()["rows"] == 0


def test_some_columns_are_loaded(tmp_path):
    path = str(tmp_path / "a.csv")
    ClusterAssignmentsDataset(filepath=path).save(table(block(0, FILES)))
    found = ClusterAssignmentsDataset(filepath=path, columns=["cluster", "image"]).load()
    assert [*found.columns] == ["cluster", "image"]
    assert found["cluster"].tolist() == [7 * n for n in range(8)]
    with refused(ValueError, "columns: got 'clusters', expected some of: image"):
        ClusterAssignmentsDataset(filepath=path, columns=["clusters"])


def test_the_preview_reads_the_head_alone(dataset, monkeypatch):
    dataset.save(table(block(0, FILES), block(8, ["x"] * 1000)))
    assert annotation(dataset) == "TablePreview"
    assert inspect.signature(dataset.preview).parameters["nrows"].default == 40
    read_csv, read = pd.read_csv, []
    monkeypatch.setattr(
        pd, "read_csv", lambda *a, **k: read.append(k["nrows"]) or read_csv(*a, **k)
    )
    shown = dataset.preview(nrows=3)
    assert read == [3]
    assert shown["columns"] == [*COLUMNS]
    assert shown["data"] == [
        [0, FILES[0], -1, 0, 0.0], [1, FILES[1], 0, 7, 0.2857], [2, FILES[2], 1, 14, 0.5714],
    ]  # fmt: skip
    assert dataset.statistics()["rows"] == 1_008
    assert read == [3]


def test_a_person_sees_how_much_there_is(dataset):
    assert "not there yet" in pretty(dataset)
    dataset.save(table(block(0, FILES)))
    assert "images 8" in pretty(dataset)
    assert "12/345.zip/678.jpg" in dataset._repr_html_()
    # The number of the last image is not at the beginning of the last line.
    dataset.save(table(block(0, ["a\nb"])))
    assert "images" not in pretty(dataset) and "rows" not in dataset.statistics()


WRONG = {
    "absent": (None, FileNotFoundError, "no such file"),
    "empty": ("", ValueError, "begins with ''"),
    "another table": ("image;file\n1;a\n", ValueError, "begins with 'image;file'"),
    "cut off": (",".join(COLUMNS) + "\n1,a,0,0,0.", ValueError, "is it cut off?"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_such_table_is_named(dataset, kind):
    content, error, said = WRONG[kind]
    dataset._filepath.parent.mkdir()
    if content is not None:
        dataset._filepath.write_text(content)
    refused_by_check_and_load(dataset, error, "assignments.csv", said)


@pytest.mark.parametrize("row", ["1,a,x,0,0.5", "1,a,0,0,", "1,a,0,0,0,5", f"{2**40},a,0,0,0.5"])
def test_a_row_that_is_none_is_named(dataset, row):
    dataset._filepath.parent.mkdir()
    dataset._filepath.write_text(",".join(COLUMNS) + "\n0,a,0,0,0.5\n" + row + "\n")
    with refused(ValueError, "assignments.csv: cannot be read as a table of image, file"):
        dataset.load()


def test_a_table_that_another_program_has_saved(dataset):
    dataset._filepath.parent.mkdir()
    names = ["distance", *COLUMNS[:-1]]
    dataset._filepath.write_bytes(
        b"\xef\xbb\xbf" + f"{','.join(names)}\r\n0.5,7,b.png,1,2\r\n".encode()
    )
    assert dataset.load().to_numpy().tolist() == [[7, "b.png", 1, 2, 0.5]]
