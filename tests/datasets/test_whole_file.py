import json

import pandas as pd
import pytest
from kedro.io import DatasetError
from kedro_datasets.json import JSONDataset

from lowshot_kedro.datasets import WholeFileDataset
from lowshot_kedro.errors import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "metrics.json"


@pytest.fixture
def dataset(path):
    return WholeFileDataset(
        dataset={"type": "json.JSONDataset", "filepath": str(path), "save_args": {"indent": 2}},
        metadata={"layer": "reporting"},
    )


def test_writes_what_the_other_dataset_writes(dataset, path):
    dataset.save({"top1": 0.5})
    assert path.read_text() == json.dumps({"top1": 0.5}, indent=2)
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


def test_reads_what_is_there(dataset, path):
    path.parent.mkdir()
    path.write_text('{"top1": 0.25}')
    assert dataset.exists()
    assert dataset.load() == {"top1": 0.25}
    dataset.check()


def test_a_table_survives_a_round_trip(tmp_path):
    path = tmp_path / "table.csv"
    dataset = WholeFileDataset(
        dataset={
            "type": "pandas.CSVDataset",
            "filepath": str(path),
            "save_args": {"index": False},
        }
    )
    table = pd.DataFrame({"method": ["diffusion"], "top5": [0.678]})
    dataset.save(table)
    pd.testing.assert_frame_equal(pd.read_csv(path), table)
    pd.testing.assert_frame_equal(dataset.load(), table)


def test_missing_file(dataset, path):
    assert not dataset.exists()
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        dataset.check()
    with pytest.raises(DatasetError, match=r"metrics\.json"):
        dataset.load()


class DefectiveDataset(JSONDataset):
    def load(self):
        return self.no_such_attribute


def test_a_defect_of_the_other_dataset_is_no_damaged_file(dataset, path):
    dataset.save({"top1": 0.5})
    defective = f"{__name__}.{DefectiveDataset.__name__}"
    other = WholeFileDataset(dataset={"type": defective, "filepath": str(path)})
    with pytest.raises(DatasetError) as caught:
        other.load()
    assert isinstance(caught.value.__cause__, AttributeError)
    path.write_text("{")
    with pytest.raises(DatasetError, match=r"metrics\.json: JSONDataset cannot read it") as caught:
        dataset.load()
    assert isinstance(caught.value.__cause__, InputError)


def test_data_that_cannot_be_written_leave_the_older_file(dataset, path):
    dataset.save({"top1": 0.5})
    with pytest.raises(DatasetError, match="not JSON serializable"):
        dataset.save({"top1": object()})
    assert json.loads(path.read_text()) == {"top1": 0.5}
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


def test_describes_the_other_dataset(dataset, path):
    assert str(path) in str(dataset)
    assert "JSONDataset" in str(dataset)
    assert dataset.metadata == {"layer": "reporting"}
