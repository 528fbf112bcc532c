import pytest
from kedro.io import DataCatalog

from lowshot_kedro.datasets import LabelFileDataset
from tests.datasets.helpers import refused, refused_by_check_and_load
from tests.datasets.test_previews import pretty, table_of

ROWS = "file,label,group\na.jpg,cat,1\nb.jpg,dog,1\nc.jpg,,\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(ROWS)
    return path


def test_labels_are_loaded(path):
    dataset = LabelFileDataset(filepath=str(path))
    dataset.check()
    table = dataset.load()
    assert table.files == ("a.jpg", "b.jpg", "c.jpg")
    assert table.labels == ("cat", "dog", None)
    assert table.groups == ("1", "1", None)
    assert dataset.files_in_use() == []


def test_an_optional_file_may_be_absent(path):
    path.unlink()
    dataset = LabelFileDataset(filepath=str(path))
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, path)
    optional = LabelFileDataset(filepath=str(path), optional=True)
    assert optional.exists()
    optional.check()
    assert optional.load() is None
    assert "no file" in pretty(optional)
    assert "no file" in optional._repr_html_()
    assert "no file" in str(table_of(optional))
    assert optional.statistics() == {"file_size": 0}


@pytest.mark.parametrize("optional", [True, False])
def test_what_is_wrong_is_said_before_work_begins(path, optional):
    dataset = LabelFileDataset(filepath=str(path), optional=optional)
    path.write_text("file,label\na.jpg,cat\na.jpg,dog\n")
    refused_by_check_and_load(dataset, ValueError, path, "line 3", "line 2")
    path.write_text("file,label,confidence,guess\na.jpg,cat,0.9,cat\n")
    refused_by_check_and_load(dataset, ValueError, path, "computed")


def test_it_is_never_written(path):
    with refused(ValueError, path, "never by a run"):
        LabelFileDataset(filepath=str(path)).save([])
    assert path.read_text() == ROWS
    assert [file.name for file in path.parent.iterdir()] == ["labels.csv"]


def test_what_people_see(path):
    dataset = LabelFileDataset(filepath=str(path))
    shown = table_of(dataset)
    assert [shown[fact][0] for fact in ("rows", "classes", "groups")] == ["3", "2", "1"]
    assert shown["row 1"] == ["b.jpg", "dog", "1"]
    assert shown["row 2"] == ["c.jpg", "", ""]
    assert "rows 3, classes 2, groups 1" in pretty(dataset)
    assert "b.jpg" in dataset._repr_html_()
    path.write_text("file,label\na.jpg,cat\n")
    assert "groups" not in pretty(dataset) and "checked" not in pretty(dataset)
    path.write_text("file,label,checked\na.jpg,cat,yes\nb.jpg,cat,\n")
    assert "checked labels 1" in pretty(dataset)


def test_a_catalog_makes_it(path):
    catalog = DataCatalog.from_config(
        {
            "labels": {
                "type": "lowshot_kedro.datasets.LabelFileDataset",
                "filepath": str(path),
                "optional": True,
                "metadata": {"kedro-viz": {"layer": "raw"}},
            }
        }
    )
    assert len(catalog.load("labels")) == 3
