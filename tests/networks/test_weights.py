import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lowshot_kedro.networks.weights import fit_weights, load_weights, read_weights
from tests.networks.helpers import with_random_state, write_2017_checkpoint

CLASSIFIER = ("head.weight", "head.bias")


def network(seed=None):
    layers = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), body=nn.Conv2d(4, 4, 1, bias=False)
        )
    )
    return layers if seed is None else with_random_state(layers, seed)


def state_of(seed=1):
    return {name: tensor.clone() for name, tensor in network(seed).state_dict().items()}


def prefixed(prefix, state):
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def same(found, expected):
    return list(found) == list(expected) and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def fit(found, classifier=CLASSIFIER):
    target = network()
    fit_weights(target, found, Path("file.pth"), "net", classifier)
    return target.state_dict()


@pytest.mark.parametrize("key", [None, "state", "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_however_it_is_wrapped(tmp_path, key, prefix, is_zip):
    path = tmp_path / "checkpoint.pth"
    stored = prefixed(prefix, state_of())
    content = {"epoch": 3, "loss": torch.tensor(0.5), key: stored} if key else stored
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    assert same(read_weights(path), state_of())


def test_a_prefix_that_not_all_names_have_belongs_to_the_names(tmp_path):
    path = tmp_path / "checkpoint.pth"
    stored = {"module.a": torch.ones(2), "b": torch.zeros(2)}
    torch.save(stored, path)
    assert same(read_weights(path), stored)


def test_a_checkpoint_of_2017(tmp_path):
    path = tmp_path / "checkpoint.tar"
    state = {name: value for name, value in state_of().items() if value.ndim}
    write_2017_checkpoint(path, prefixed("module.", state), epoch=90, arch="resnet")
    assert path.read_bytes()[:2] != b"PK"
    assert same(read_weights(path), state)


def test_a_safetensors_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(prefixed("module.", state_of()), path)
    found = read_weights(path)
    assert same(dict(sorted(found.items())), dict(sorted(state_of().items())))


class MakesFolder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path, is_zip, nested):
    path, folder = tmp_path / "checkpoint.pth", tmp_path / "made"
    code = MakesFolder(folder)
    content = {"state": state_of(), "args": code} if nested else code
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError) as caught:
        read_weights(path)
    expected = f"cannot read {path} (it asks for {os.mkdir.__module__}.mkdir, but only tensors are"
    assert expected in str(caught.value)
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists()


@pytest.mark.parametrize("name", ["checkpoint.pth", "checkpoint.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"a.", bytes(1000)])
def test_a_file_of_another_kind(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^weights: cannot read .*{name} \([^\n]*\)$"):
        read_weights(path)


def test_a_file_that_is_cut_off(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(state_of(), path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cannot read .*checkpoint\.pth"):
        read_weights(path)


@pytest.mark.parametrize(
    "content, found",
    [
        (torch.zeros(3), "holds an object of type Tensor; expected tensors by name"),
        ([torch.zeros(3)], "holds an object of type list"),
        ({}, "holds a dictionary of nothing"),
        ({"epoch": 3, "state": {}}, "holds a dictionary of 'epoch', 'state'; expected"),
        ({"a": torch.zeros(3), "b": "text"}, "b is str; expected dense tensors by name"),
        ({"state": {"a": torch.zeros(3), "b": None}}, "b is NoneType; expected dense tensors"),
        ({1: torch.zeros(3)}, "1 is Tensor; expected dense tensors by name"),
        ({"a": torch.zeros(3).to_sparse()}, "a is Tensor; expected dense tensors by name"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
def test_a_file_without_tensors_by_name(tmp_path, content, found):
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    with pytest.raises(ValueError) as caught:
        read_weights(path)
    assert f"weights: {path}" in str(caught.value)
    assert found in str(caught.value)


def test_fitting_weights_are_copied():
    assert same(fit(state_of()), state_of())


@pytest.mark.parametrize("n_classes", [2, 1000])
def test_a_classifier_of_any_size_is_left_out(n_classes):
    head = {"head.weight": torch.zeros(n_classes, 4), "head.bias": torch.zeros(n_classes)}
    assert same(fit({**state_of(), **head}), state_of())
    assert same(fit({**state_of(), "head.weight": head["head.weight"]}), state_of())


def test_counters_of_batches_may_be_missing():
    state = state_of()
    del state["bn.num_batches_tracked"]
    found = fit(state)
    assert found["bn.num_batches_tracked"] == 0
    del found["bn.num_batches_tracked"]
    assert same(found, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state_of().items()}
    found = fit(state)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(found[name], state[name].to(found[name].dtype)) for name in found)


def test_everything_that_does_not_fit_is_said_at_once():
    state = state_of()
    del state["body.weight"]
    state["stem.weight"] = torch.zeros(8, 3, 3, 3)
    state["stem.bias"] = torch.zeros(4, dtype=torch.int8)
    state["extra.weight"] = torch.zeros(2)
    with pytest.raises(ValueError) as caught:
        fit(state)
    assert str(caught.value) == (
        "weights: file.pth does not fit net (8 tensors for 8): "
        "1 missing: body.weight; 1 unexpected: extra.weight; "
        "2 of another shape or type: stem.weight float32 (8, 3, 3, 3) → float32 (4, 3, 3, 3), "
        "stem.bias int8 (4,) → float32 (4,)"
    )


def test_long_lists_are_cut():
    extra = {f"extra{number}": torch.zeros(1) for number in range(7)}
    with pytest.raises(
        ValueError, match=r"7 unexpected: extra0, extra1, extra2, extra3, extra4, …$"
    ):
        fit({**state_of(), **extra})


def test_a_classifier_is_unexpected_in_a_network_that_has_another():
    with pytest.raises(ValueError, match=r"1 unexpected: head\.weight"):
        fit({**state_of(), "head.weight": torch.zeros(2, 4)}, classifier=("fc.weight",))


@pytest.mark.parametrize("name", ["body.weight", "bn.running_var"])
def test_nan_is_refused(name):
    state = state_of()
    state[name].view(-1)[2] = torch.nan
    with pytest.raises(ValueError, match=rf"file\.pth: {name} holds NaN"):
        fit(state)


def test_nan_in_the_classifier_does_not_matter():
    fit({**state_of(), "head.weight": torch.full((2, 4), torch.nan)})


class Renamed(nn.Module):
    """Its second version calls `old` `new`, and knows the version of a file."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.new = nn.Linear(2, 2)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others):
        if local_metadata.get("version") == 1:
            for kind in ("weight", "bias"):
                state_dict[f"{prefix}new.{kind}"] = state_dict.pop(f"{prefix}old.{kind}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


def test_the_versions_of_modules_are_kept(tmp_path):
    # Vision transformers of torchvision rename tensors so, and MNASNet refuses unknown versions.
    old = OrderedDict(
        {"module.in.old.weight": torch.ones(2, 2), "module.in.old.bias": torch.ones(2)}
    )
    old._metadata = OrderedDict({"": {}, "module": {}, "module.in": {"version": 1}})
    torch.save({"state": old}, tmp_path / "old.pth")
    target = nn.ModuleDict({"in": Renamed()})
    fit_weights(target, read_weights(tmp_path / "old.pth"), "old.pth", "net", ())
    assert torch.equal(target["in"].new.weight, torch.ones(2, 2))

    current = {"in.new.weight": torch.zeros(2, 2), "in.new.bias": torch.ones(2)}
    fit_weights(target, current, "new.pth", "net", ())
    assert torch.equal(target["in"].new.weight, torch.zeros(2, 2))


class Refusing(Renamed):
    def _load_from_state_dict(self, *_):
        raise ValueError("version 7\nis unknown. Sorry.")


def test_a_network_that_refuses_a_file_itself():
    with pytest.raises(ValueError) as caught:
        fit_weights(Refusing(), {}, "a.pth", "net", ())
    expected = "weights: a.pth does not fit net (ValueError: version 7 is unknown)"
    assert str(caught.value) == expected


def load(weights, **options):
    target = network(seed=5)
    load_weights(target, str(weights), "net", classifier=CLASSIFIER, **options)
    return target.state_dict()


def test_none_changes_nothing():
    assert same(load("none"), network(seed=5).state_dict())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package that carries weights, and would say so if it were imported."""
    folder = tmp_path / "carries_weights"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    torch.save(state_of(), folder / "weights.pth")
    torch.save(state_of(seed=2), folder / "deep" / "weights.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_file_that_a_package_carries(package):
    assert same(load("package:carries_weights/weights.pth"), state_of())
    assert same(load("package:carries_weights/deep/weights.pth"), state_of(seed=2))
    assert same(load("package", package=lambda: package / "weights.pth"), state_of())


@pytest.mark.parametrize(
    "text",
    ["package:", "package:carries_weights", "package:/weights.pth", "package:carries_weights/"],
)
def test_a_packaged_file_in_another_form(text):
    with pytest.raises(ValueError, match=f"got '{text}', expected package:MODULE/FILE"):
        load(text)


@pytest.mark.parametrize("module", ["no_such_package", "os.path", "json.decoder", "no_such.deeper"])
def test_a_package_that_is_not_installed(module):
    with pytest.raises(ValueError, match=f"but no package {module} is installed"):
        load(f"package:{module}/weights.pth")


def test_a_file_that_the_package_does_not_carry(package):
    with pytest.raises(FileNotFoundError) as caught:
        load("package:carries_weights/absent.pth")
    assert f"weights: no file {package / 'absent.pth'}" in str(caught.value)


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        load(tmp_path / name)
    assert f"weights: no file {tmp_path / name}; expected none, package:MODULE/FILE or" in str(
        caught.value
    )


def test_a_file_is_converted_before_it_is_compared(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(prefixed("net.", state_of()), path)
    with pytest.raises(ValueError, match="does not fit"):
        load(path)
    found = load(path, convert=lambda found: {k.removeprefix("net."): v for k, v in found.items()})
    assert same(found, state_of())
