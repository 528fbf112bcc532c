"""What kedro-viz, Jupyter and IPython show."""

import base64
import inspect
import io
import json
import re

import numpy as np
import pytest
from kedro.io import DataCatalog
from PIL import Image

from lowshot_kedro.blocks import Blocks, LabeledBlock
from lowshot_kedro.datasets import (
    ClassSplitDataset,
    HDF5ArraysDataset,
    HDF5FeaturesDataset,
    LabeledImagesDataset,
    WholeFileDataset,
    ZipShardImagesDataset,
)
from tests.datasets.writers import WRITERS, nothing

# The facts of the preview's table, and its first row of numbers.
TABLES = {
    "raw matrix": ({"shape": "(6, 4)", "dtype": "float32"}, ["3"] * 4),
    "graph": ({"shape": "(6, 4)", "dtype": "int32 neighbours, float32"}, ["3 (3.000)"] * 4),
    "features": ({"shape": "(6, 4)", "dtype": "float32", "labels": "3..3"}, ["3"] * 4),
    "feature blocks": ({"files": "2", "shape": "(6, 4)", "dtype": "float32"}, ["3"] * 4),
    "arrays": ({"scores": "float32 (6, 4)"}, ["3"] * 4),
    "index": ({"shape": "(6, 4)", "dtype": "float32", "kind": "IndexFlat"}, ["3"] * 4),
    "transform": ({"shape": "4 → 2", "dtype": "float32", "kind": "PCAMatrix"}, None),
}
IMAGES = ["zip shards", "labelled list"]


class Printer:
    """What IPython hands to _repr_pretty_."""

    def __init__(self):
        self.printed = ""

    def text(self, text):
        self.printed += text


def pretty(dataset, cycle=False):
    printer = Printer()
    dataset._repr_pretty_(printer, cycle)
    return printer.printed


def annotation(dataset):
    """The kind of preview, found as kedro-viz finds it."""
    found = inspect.signature(dataset.preview).return_annotation
    return getattr(found, "__name__", str(found))


def saved(name, folder):
    writer = WRITERS[name]
    dataset = writer.make(folder)
    writer.save(dataset, 3, nothing)
    return dataset


def image_of(encoded):
    return Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))


def centre_of_place(number):
    """Where the middle of an image is on a contact sheet."""
    row, column = divmod(number, 5)
    return column * 150 + 75, 30 + row * (128 + 28) + 64


def table_of(dataset):
    preview = dataset.preview()
    assert preview.keys() == {"index", "columns", "data"}
    json.dumps(preview)
    assert all(len(row) == len(preview["columns"]) for row in preview["data"])
    return {row[0]: row[1:] for row in preview["data"]}


@pytest.mark.parametrize("name", TABLES)
def test_the_table_shows_shape_type_size_and_first_rows(tmp_path, name):
    dataset = saved(name, tmp_path)
    assert annotation(dataset) == "TablePreview"
    table = table_of(dataset)
    facts, row = TABLES[name]
    for fact, value in facts.items():
        assert table[fact][0].startswith(value)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    shown = f"{size} B" if size < 1024 else f"{size / 1024:.1f} KiB"
    assert table["size on disk"][0] == shown
    assert [name for name in table if name.startswith("row ")] == [
        f"row {number}" for number in range(2 if name == "transform" else 5)
    ]
    assert row is None or table["row 0"][:4] == row


def test_only_the_first_columns_are_shown(tmp_path):
    wide = saved("raw matrix", tmp_path).__class__(
        filepath=str(tmp_path / "wide.raw"), n_columns=100
    )
    wide.save(np.arange(200, dtype=np.float32).reshape(2, 100))
    table = table_of(wide)
    assert table["column"] == [str(number) for number in range(10)]
    assert table["row 1"] == [str(number) for number in range(100, 110)]
    assert "row 2" not in table


def test_the_table_of_a_state_names_its_tensors(tmp_path):
    import torch

    dataset = WRITERS["state"].make(tmp_path)
    dataset.save({"weight": torch.full((3, 2), 0.5), "bias": torch.zeros(3, dtype=torch.float64)})
    assert annotation(dataset) == "TablePreview"
    table = table_of(dataset)
    assert (table["weight"][0], table["bias"][0]) == ("float32 (3, 2)", "float64 (3,)")
    assert table["row 2"][:2] == ["0.5", "0.5"]
    assert table["size on disk"][0].endswith("KiB")


@pytest.mark.parametrize("name", ["raw matrix", "graph", "index"])
def test_the_table_of_no_rows_needs_no_file(tmp_path, name):
    dataset = WRITERS[name].make(tmp_path)
    dataset._n_rows = 0
    table = table_of(dataset)
    assert table["shape"][0] == "(0, 4)"
    assert table["size on disk"][0] == "0 B"


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_preview_is_a_png(tmp_path, name):
    dataset = saved(name, tmp_path)
    assert annotation(dataset) == "ImagePreview"
    sheet = image_of(dataset.preview())
    assert (sheet.format, sheet.width) == ("PNG", 5 * 150)
    # The first image is all 30, the second all 31; there is no third one.
    assert sheet.getpixel(centre_of_place(0)) == pytest.approx((30, 30, 30), abs=2)
    assert sheet.getpixel(centre_of_place(1)) == pytest.approx((31, 31, 31), abs=2)
    assert sheet.getpixel(centre_of_place(2)) == (255, 255, 255)


@pytest.mark.parametrize("dataset_class", [ZipShardImagesDataset, LabeledImagesDataset])
def test_the_image_preview_of_an_absent_collection(tmp_path, dataset_class):
    dataset = dataset_class(filepath=str(tmp_path / "absent"), optional=True)
    assert image_of(dataset.preview()).format == "PNG"


def test_the_image_preview_shows_blank_images(tmp_path):
    dataset = ZipShardImagesDataset(filepath=str(tmp_path), i1=30)
    sheet = image_of(dataset.preview())
    assert sheet.height == 30 + 3 * (128 + 28)
    assert sheet.getpixel(centre_of_place(0)) == (0, 0, 0)


@pytest.mark.parametrize("name", [*TABLES, "state", *IMAGES])
def test_jupyter_and_ipython_show_a_dataset_that_is_there_or_not(tmp_path, name):
    absent = WRITERS[name].make(tmp_path)
    path = str(absent._filepath)
    for text in (absent._repr_html_(), pretty(absent)):
        assert path in text
        assert "not there yet" in text
    if name == "state":
        return
    there = saved(name, tmp_path)
    assert "<table" in there._repr_html_() or "data:image/png;base64," in there._repr_html_()
    assert path in there._repr_html_()
    facts = ["2 images"] if name in IMAGES else TABLES[name][0].values()
    for fact in facts:
        assert fact in pretty(there)
    assert "not there yet" not in pretty(there) + there._repr_html_()


def test_ipython_does_not_open_a_dataset_again_in_a_cycle(tmp_path):
    assert "float32" not in pretty(saved("raw matrix", tmp_path), cycle=True)


@pytest.mark.parametrize("name", [*TABLES, "state"])
def test_checking_and_showing_a_missing_file_names_it(tmp_path, name):
    dataset = WRITERS[name].make(tmp_path)
    for action in (dataset.check, dataset.preview):
        with pytest.raises(FileNotFoundError, match=re.escape(str(dataset._filepath))):
            action()


@pytest.mark.parametrize(
    "kind, data, expected",
    [
        ("pandas.CSVDataset", [[1, 2]], "TablePreview"),
        ("json.JSONDataset", {"top1": 0.5}, "JSONPreview"),
        ("matplotlib.MatplotlibDataset", None, "ImagePreview"),
    ],
)
def test_a_wrapped_dataset_keeps_its_preview(tmp_path, kind, data, expected):
    import matplotlib.figure
    import pandas as pd

    dataset = WholeFileDataset(dataset={"type": kind, "filepath": str(tmp_path / "results.png")})
    if kind.startswith("pandas"):
        data = pd.DataFrame(data, columns=["a", "b"])
    dataset.save(matplotlib.figure.Figure() if data is None else data)
    assert annotation(dataset) == expected
    preview = dataset.preview()
    if expected == "TablePreview":
        assert preview["data"] == [[1, 2]]
    elif expected == "JSONPreview":
        assert json.loads(preview) == {"top1": 0.5}
    else:
        assert image_of(preview).format == "PNG"


def test_numbers_of_a_wrapped_dataset_are_rounded(tmp_path):
    import pandas as pd

    wrapped = {"type": "pandas.CSVDataset", "filepath": str(tmp_path / "table.csv")}
    table = WholeFileDataset(dataset={**wrapped, "save_args": {"index": False}})
    frame = pd.DataFrame({"a": [0.7283333333333334, np.nan], "b": [123456789, 2], "c": ["x", "y"]})
    table.save(frame)
    assert table.preview()["data"] == [[0.7283, 123456789, "x"], ["", 2, "y"]]
    assert len(table.preview(nrows=1)["data"]) == 1
    assert table.statistics()["rows"] == 2 and table.statistics()["columns"] == 3
    pd.testing.assert_frame_equal(table.load(), frame)

    wrapped = {"type": "json.JSONDataset", "filepath": str(tmp_path / "metrics.json")}
    metrics = WholeFileDataset(dataset=wrapped)
    metrics.save({"deep": [{"top1": 1 / 3, "n": 12345678, "none": None, "nan": np.nan}]})
    assert json.loads(metrics.preview()) == {
        "deep": [{"top1": 0.3333, "n": 12345678, "none": "null", "nan": "nan"}]
    }
    assert metrics.statistics() == {"file_size": (tmp_path / "metrics.json").stat().st_size}


def scores_file(folder, **arrays):
    dataset = HDF5ArraysDataset(
        filepath=str(folder / "scores.hdf5"), class_list=str(folder / "classes.csv")
    )
    dataset.save(arrays)
    return dataset


def test_the_table_of_scores_names_classes(tmp_path):
    scores = np.arange(6, dtype=np.float32).reshape(2, 3)
    dataset = scores_file(
        tmp_path, scores=scores, classes=np.array([1, 3, 4]), test_classes=np.array([2, 0])
    )
    assert table_of(dataset)["class"] == ["1", "3", "4"]
    assert "row 0: 4" in table_of(dataset)
    (tmp_path / "classes.csv").write_text("class,role\na,base\nb,novel\nc,base\nd,base\ne,base\n")
    table = table_of(dataset)
    assert table["class"] == ["b", "d", "e"]
    assert table["row 0: e"] == ["0", "1", "2"] and table["row 1: b"] == ["3", "4", "5"]
    assert dataset.statistics()["rows"] == 2 and dataset.statistics()["columns"] == 3
    # Arrays of other kinds have no classes.
    other = scores_file(tmp_path, scores=scores, classes=np.array([1, 3]))
    assert table_of(other)["column"] == ["0", "1", "2"]
    assert "row 0" in table_of(other)


def test_the_table_of_neighbors_shows_links(tmp_path):
    dataset = scores_file(
        tmp_path,
        indices=np.array([[7, 2]], dtype=np.int32),
        similarities=np.array([[0.98765, 0.5]], dtype=np.float32),
    )
    table = table_of(dataset)
    assert table["neighbour (similarity)"] == ["0", "1"]
    assert table["row 0"] == ["7 (0.988)", "2 (0.500)"]


def test_the_table_of_features_names_the_classes_of_rows(tmp_path):
    dataset = HDF5FeaturesDataset(
        filepath=str(tmp_path / "train.hdf5"), class_list=str(tmp_path / "split.json")
    )
    block = LabeledBlock(np.ones((2, 3), np.float32), np.array([1, 0], np.int32))
    dataset.save(Blocks(2, 3, lambda: iter([block])))
    assert {"row 0: 1", "row 1: 0"} <= set(table_of(dataset))
    (tmp_path / "split.json").write_text(json.dumps({"label_names": ["cat", "dog"]}))
    assert {"row 0: dog", "row 1: cat"} <= set(table_of(dataset))


def test_the_table_of_a_class_split_says_who_has_which_role(tmp_path):
    split = {
        "base_classes_1": [3], "novel_classes_1": [1],
        "base_classes_2": [1], "novel_classes_2": [2],
        "label_names": ["a", "b"],
    }  # fmt: skip
    dataset = ClassSplitDataset(filepath=str(tmp_path / "label_idx.json"))
    dataset.save(split)
    assert dataset.load() == split
    assert annotation(dataset) == "TablePreview"
    assert dataset.preview()["columns"] == ["label", "class", "mode val", "mode test"]
    assert dataset.preview()["data"] == [
        [0, "a", "novel", "base"],
        [1, "b", "", "novel"],
        [2, "2", "base", ""],
    ]


@pytest.mark.parametrize("name", TABLES)
def test_statistics_are_those_of_the_files(tmp_path, name):
    dataset = saved(name, tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    n_rows = 2 if name == "transform" else 6
    assert dataset.statistics() == {"rows": n_rows, "columns": 4, "file_size": size}


def test_a_wrapped_dataset_without_a_preview_has_none(tmp_path):
    assert not hasattr(WRITERS["whole file"].make(tmp_path), "preview")


def test_the_catalog_shows_and_loads_what_it_saved(tmp_path):
    catalog = DataCatalog.from_config(
        {
            "vectors": {
                "type": "lowshot_kedro.datasets.RawMatrixDataset",
                "filepath": str(tmp_path / "vectors.raw"),
                "n_columns": 2,
                "metadata": {"kedro-viz": {"layer": "feature"}},
            },
            "metrics": {
                "type": "lowshot_kedro.datasets.WholeFileDataset",
                "dataset": {
                    "type": "json.JSONDataset",
                    "filepath": str(tmp_path / "metrics.json"),
                },
            },
        }
    )
    assert not catalog.exists("vectors")
    catalog.save("vectors", np.ones((3, 2), dtype=np.float32))
    catalog.save("metrics", {"top1": 0.5})
    assert catalog.exists("vectors")
    assert catalog.load("vectors").shape == (3, 2)
    assert catalog.load("metrics") == {"top1": 0.5}
    assert catalog["vectors"].metadata == {"kedro-viz": {"layer": "feature"}}
    assert table_of(catalog["vectors"])["shape"][0] == "(3, 2)"
    assert annotation(catalog["metrics"]) == "JSONPreview"
