"""Whole modules in a file: their tensors are read, and nothing else."""

import io
import pickle
import warnings

import pytest
import torch
from torch import nn

from lowshot_kedro.networks.weights import read_weights

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {}}


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))


def saved(content, path, is_zip):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    return path


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel, lambda net: {"model": net}])
def test_tensors_of_a_module_have_the_names_of_its_state(tmp_path, is_zip, wrap):
    network = layers()
    network.double()
    found = read_weights(saved(wrap(network), tmp_path / "net.pt", is_zip))
    expected = network.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_types_and_views(tmp_path, is_zip, dtype):
    network = nn.Linear(2, 2)
    whole = torch.arange(12).reshape(3, 4).to(dtype)
    network.register_buffer("view", whole[1:, ::2])
    network.register_buffer("nothing", torch.zeros(0, 3, dtype=dtype))
    found = read_weights(saved(network, tmp_path / "net.pt", is_zip))
    assert torch.equal(found["view"], whole[1:, ::2]) and found["view"].dtype == dtype
    assert found["nothing"].shape == (0, 3)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_module_within_itself(tmp_path, is_zip):
    network = layers()
    network[2]._modules["again"] = network
    path = saved(network, tmp_path / "net.pt", is_zip)
    with pytest.raises(ValueError, match=r"net\.pt: 2\.again is a module that occurs twice"):
        read_weights(path)


LINEAR = b"ctorch.nn.modules.linear\nLinear\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor\n"


def old_file(path, content, numbers=(), machine=MACHINE):
    """A file in the format of before 2020, whose content is the operations of a pickle."""
    with path.open("wb") as file:
        for value in (MAGIC, VERSION, machine):
            pickle.dump(value, file, protocol=2)
        file.write(b"\x80\x02(" + LINEAR + content + b"t.")
        pickle.dump(list(numbers), file, protocol=2)
    return path


def operations(value):
    """The operations that build a value."""
    return pickle.dumps(value, protocol=2)[2:-1]


class Storage:
    def __init__(self, *facts):
        self.facts = facts


def storage_operations(*facts):
    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return value.facts if isinstance(value, Storage) else None

    file = io.BytesIO()
    Pickler(file, protocol=2).dump(Storage(*facts))
    return file.getvalue()[2:-1]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (REBUILD + operations({"_call": print}) + b"b", "asks for __builtin__.print"),
        (REBUILD + operations({"_call": 1}) + b"b", "it changes a function"),
        (REBUILD + b"N" + operations({"_call": 1}) + b"\x86b", "it changes a function"),
        (storage_operations("storage", torch.float32, "0", "cpu", 4, None), "asks for torch.float"),
        (
            storage_operations("storage", "float", "0", "cpu", 4, None),
            "its storages is none",
        ),
        (storage_operations("else", 1), "neither a module nor a storage"),
    ],
)
def test_what_an_old_file_may_not_do(tmp_path, content, found):
    path = old_file(tmp_path / "net.pt", content)
    with pytest.raises(ValueError, match=r"^weights: cannot read [^\n]*$") as caught:
        read_weights(path)
    assert found in str(caught.value)


def test_a_storage_larger_than_its_file(tmp_path):
    content = storage_operations("storage", 0, "0", "cpu", 2**50, None).replace(
        operations(0), b"ctorch\nFloatStorage\n"
    )
    with pytest.raises(ValueError, match="a storage is larger than the file"):
        read_weights(old_file(tmp_path / "net.pt", content))


@pytest.mark.parametrize("machine", [{**MACHINE, "little_endian": False}, {}])
def test_a_file_of_another_processor(tmp_path, machine):
    path = old_file(tmp_path / "net.pt", b"N", machine=machine)
    with pytest.raises(ValueError, match=r"no file of torch\.save from a common processor"):
        read_weights(path)


def test_attributes_of_a_dictionary_in_an_old_file_are_not_taken(tmp_path):
    state = operations({"items": 1, "_parameters": 2})
    content = b"ccollections\nOrderedDict\n)R" + state + b"b"
    path = old_file(tmp_path / "net.pt", content)
    with pytest.raises(ValueError, match="holds an object of type tuple"):
        read_weights(path)


@pytest.mark.parametrize(
    "length", [b"\x8d" + b"\xff" * 7 + b"\x7f", b"\x8e" + b"\xff" * 7 + b"\x7f"]
)
def test_a_length_that_no_memory_holds(tmp_path, length):
    path = old_file(tmp_path / "net.pt", length)
    with pytest.raises(ValueError, match=r"cannot read [^\n]*net\.pt \([^\n]*\)"):
        read_weights(path)
