import pickle
from pathlib import Path

import pytest
import torch

from lowshot_kedro.datasets import TorchStateDataset
from tests.datasets.helpers import refused, refused_by_check_and_load

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


class RunsCode:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def same(found, expected):
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_plain_torch_reads_what_is_written(path):
    TorchStateDataset(filepath=str(path)).save(STATE)
    same(torch.load(path, weights_only=True), STATE)


def test_reads_what_plain_torch_writes(path):
    torch.save(STATE, path)
    same(TorchStateDataset(filepath=str(path)).load(), STATE)


def test_missing_file(path):
    dataset = TorchStateDataset(filepath=str(path))
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, path)


@pytest.mark.parametrize("kept", [0, 10, 300, -30])
def test_a_truncated_state(path, kept):
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:kept])
    with refused(ValueError, path, "not a readable PyTorch state"):
        TorchStateDataset(filepath=str(path)).load()


@pytest.mark.parametrize(
    "content",
    [
        b"no state at all",
        b"a.",
        b"X\x01\x00\x00\x00\xff.",
    ],
    ids=["text", "empty stack", "bad text"],
)
def test_a_file_that_is_no_state(path, content):
    path.write_bytes(content)
    with refused(ValueError, path, "not a readable PyTorch state"):
        TorchStateDataset(filepath=str(path)).load()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_code_in_a_file_is_not_executed(path, write):
    trace = path.with_name("executed")
    write({"weight": RunsCode(trace)}, path)
    with refused(ValueError, path, "not a readable PyTorch state"):
        TorchStateDataset(filepath=str(path)).load()
    assert not trace.exists()
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists(), "the file would have executed code"
