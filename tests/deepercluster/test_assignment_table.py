"""The table of which cluster each image is in."""

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.deepercluster import assignment_table as module
from lowshot_kedro.deepercluster.assignment_table import COLUMNS, assignment_table
from lowshot_kedro.images import (
    ImageFolder,
    ImageSubset,
    JoinedImages,
    NumberedZipShards,
    file_namer,
)
from tests.deepercluster.test_panel import clustered
from tests.images.helpers import flat_jpeg, write_shard


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/1.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    return ImageFolder(tmp_path)


CLUSTERING = clustered((1, 5, 0.25), (0, 0, 0.5), (-1, -1, 0.0))


def joined(table):
    parts = list(table.checked("table"))
    return {name: [value for part in parts for value in part[name]] for name in table.columns}


@pytest.mark.parametrize("block_rows", [1, 2, 100])
def test_a_row_for_each_image(folder, monkeypatch, block_rows):
    monkeypatch.setattr(module, "_BLOCK_ROWS", block_rows)
    table = assignment_table(folder, CLUSTERING)
    assert (table.n_rows, table.columns) == (3, COLUMNS)
    assert joined(table) == {
        "image": [0, 1, 2],
        "file": ["a/1.png", "b.png", "c.png"],
        "super_cluster": [1, 0, -1],
        "cluster": [5, 0, -1],
        "distance": [0.25, 0.5, 0.0],
    }


def test_labels_of_other_images_are_refused(folder):
    with pytest.raises(ValueError, match="2 images, but labels of 3"):
        assignment_table(ImageSubset(folder, np.arange(2)), CLUSTERING)


class Nameless:
    def __len__(self):
        return 3


def test_images_are_called_what_people_call_them(folder, tmp_path):
    write_shard(tmp_path / "shards", "12", "345", {"678.jpg": flat_jpeg(1)})
    shards = NumberedZipShards(tmp_path / "shards", 12_345_678)
    assert file_namer(shards)(0) == "12/345.zip/678.jpg"
    assert file_namer(ImageSubset(folder, np.array([2, 0])))(0) == "c.png"
    assert file_namer(JoinedImages([shards, folder]))(2) == "b.png"
    assert file_namer(Nameless()) is None
    assert joined(assignment_table(Nameless(), CLUSTERING))["file"] == [""] * 3
