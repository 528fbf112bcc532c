import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lowshot_kedro.datasets import SafetensorsDataset
from tests.datasets.helpers import refused, refused_by_check_and_load

TENSORS = {"bias": torch.tensor([1.0, -1.0]), "weight": torch.arange(6.0).reshape(2, 3)}
HEADER = {"network": '"small"', "note": 'ä "quoted" \\ \n', "dimension": "3", "a": "", "z": "\x7f"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


@pytest.fixture
def dataset(path):
    return SafetensorsDataset(filepath=str(path))


def same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype


def test_what_is_written_is_what_safetensors_reads(path, dataset):
    dataset.save((TENSORS, HEADER))
    same(load_file(path), TENSORS)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == HEADER
    tensors, header = dataset.load()
    same(tensors, TENSORS)
    assert header == HEADER


def test_reads_what_others_write(path, dataset):
    save_file(TENSORS, path)
    tensors, header = dataset.load()
    same(tensors, TENSORS)
    assert header == {}


def test_views_parameters_and_shared_memory(dataset):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "view": whole[1:, ::2],
        "whole": whole,
        "parameter": torch.nn.Parameter(whole.T),
        "half": whole.bfloat16(),
        "number": torch.tensor(3),
        "none": torch.zeros(0, 2),
    }
    dataset.save((tensors, {}))
    found, _ = dataset.load()
    same(found, {name: tensor.detach() for name, tensor in tensors.items()})


def test_the_same_content_makes_the_same_bytes_in_any_process(tmp_path):
    code = (
        "import sys, torch; from lowshot_kedro.datasets import SafetensorsDataset;"
        "header = {str(n): str(n) for n in range(50)};"
        "data = {'b': torch.ones(2), 'a': torch.zeros(3)}, header;"
        "SafetensorsDataset(filepath=sys.argv[1]).save(data)"
    )
    paths = [tmp_path / name for name in ("first", "second")]
    processes = [subprocess.Popen([sys.executable, "-c", code, path]) for path in paths]
    assert [process.wait() for process in processes] == [0, 0]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    n_bytes = int.from_bytes(first[:8], "little")
    metadata = json.loads(first[8 : 8 + n_bytes])["__metadata__"]
    assert list(metadata) == sorted(metadata)


def test_what_people_see(path, dataset):
    dataset.save((TENSORS, {"network": '"small"'}))
    assert dataset.statistics() == {"file_size": path.stat().st_size}
    cells = [cell for row in dataset.preview()["data"] for cell in row]
    for fact in ("header: network", '"small"', "F32 (2, 3)", "F32 (2,)", "row 1", "5"):
        assert fact in cells
    dataset.save(({"weight": TENSORS["weight"]}, {str(n): "" for n in range(20)}))
    facts = [row[0] for row in dataset.preview()["data"] if row[0].startswith("header")]
    assert facts == sorted(facts)
    assert dataset.statistics() == {"rows": 2, "columns": 3, "file_size": path.stat().st_size}
    dataset.save(({"bias": torch.ones(2)}, {}))
    assert dataset.statistics() == {"file_size": path.stat().st_size}
    assert "F32 (2,)" in dataset._repr_html_()


def test_missing_file(path, dataset):
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, path)


@pytest.mark.parametrize("kept", [0, 5, 60, -4])
def test_a_file_that_is_cut_off(path, dataset, kept):
    dataset.save((TENSORS, HEADER))
    path.write_bytes(path.read_bytes()[:kept])
    refused_by_check_and_load(dataset, ValueError, path, "not a readable safetensors file")


@pytest.mark.parametrize("content", [b"text", b"\xff" * 100, bytes(100)])
def test_another_kind_of_file(path, dataset, content):
    path.write_bytes(content)
    with refused(ValueError, path, "not a readable safetensors file; is it cut off?"):
        dataset.load()
