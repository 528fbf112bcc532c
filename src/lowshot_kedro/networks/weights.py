"""Where the weights of a network come from, and whether they fit it.

A checkpoint is read as data: a file that brings code is refused.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from lowshot_kedro.errors import InputError, MissingFileError
from lowshot_kedro.input_files import UNPICKLING_ERRORS
from lowshot_kedro.networks.pickled_modules import PickledModule, load_pickled

State = dict[str, torch.Tensor]

_EXPECTED = "none, package:MODULE/FILE or a file; some networks have download or package"

# Names under which training programs store the tensors, beside an epoch or an optimizer.
_STATE_KEYS = (
    "state",
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "params",
)

# Prefixes that DataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")

_MAX_NAMES = 5

# Errors of a download that fails, or brings something else than weights.
_FAILED_TRANSFER = (
    OSError,
    HTTPException,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
# Libraries that transfer or read weights; not all of their errors have a base class in common.
_TRANSPORTS = ("huggingface_hub", "hf_xet", "httpx", "requests", "urllib3", "safetensors")


@contextmanager
def same_random_weights() -> Iterator[None]:
    """Give networks that are built inside the same random weights every time: those of seed 0.

    The caller's random state is neither used nor changed.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds the GPUs as well.
        torch.default_generator.manual_seed(0)
        yield


def load_weights(
    network: nn.Module,
    weights: str,
    name: str,
    *,
    classifier: Collection[str],
    convert: Callable[[State], State] | None = None,
    package: Callable[[], Path] | None = None,
) -> None:
    """Give a network the weights that it is to have, unless it downloads its own.

    Args:
        network: The network, without its classifier. Changed in place.
        weights: `none`: nothing is loaded; `package`: the Python package made for this network;
            `package:MODULE/FILE`: a file inside an installed package; otherwise a file.
        name: Name of the network, for messages.
        classifier: Names of the tensors of its classifier, which a file may hold.
        convert: Turns what the file holds into tensors under the names of the network.
        package: Where the Python package made for this network keeps its file.

    Raises:
        FileNotFoundError: For a file that is not there.
        ValueError: For `download`, for an unknown package, for a file that holds no weights, and as
            :func:`fit_weights`.
    """
    if weights == "none":
        return
    path = find_weights(weights, name, package)
    found = read_weights(path)
    fit_weights(network, convert(found) if convert else found, path, name, classifier)


def load_all_but_head(
    network: nn.Module,
    weights: str,
    name: str,
    head: str,
    convert: Callable[[State], State] | None = None,
) -> None:
    """Give a network the weights that it is to have, except for one layer.

    Args:
        network: The network. Changed in place.
        weights: As for :func:`load_weights`.
        name: Name of the network, for messages.
        head: Name of the layer that keeps its weights. A file may hold it, in any shape.
        convert: Turns what the file holds into tensors under the names of the network.

    Raises:
        FileNotFoundError: For a file that is not there.
        ValueError: As :func:`load_weights`.
    """
    layer = network.get_submodule(head)
    network.set_submodule(head, nn.Identity())
    names = [f"{head}.{tensor}" for tensor in layer.state_dict()]
    load_weights(network, weights, name, classifier=names, convert=convert)
    network.set_submodule(head, layer)


def no_download(name: str) -> InputError:
    """The error for `download` where nothing can be downloaded."""
    return InputError(
        f"but nobody offers weights of {name} for download",
        parameter="weights",
        found="download",
        expected=_EXPECTED,
    )


@contextmanager
def downloading(name: str, *also: type[Exception]) -> Iterator[None]:
    """Report a transfer that fails inside as a failed download of the weights of `name`.

    Args:
        name: Name of the network.
        also: Errors of other kinds that mean the same.

    Raises:
        ValueError: In place of the error of whatever was transferring or reading.
    """
    try:
        yield
    # Whatever else is raised while a network is built is a defect of the network.
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, (*_FAILED_TRANSFER, *also)) and library not in _TRANSPORTS:
            raise
        raise InputError(
            f"cannot download the weights of {name} ({reason(error)}); without a connection, bring "
            "the file to this machine and give its path",
            parameter="weights",
        ) from error


def reason(error: Exception) -> str:
    """The kind of an error and the first sentence of what it says, in one line."""
    sentence = " ".join(str(error).split()).partition(". ")[0]
    return f"{type(error).__name__}: {sentence}" if sentence else type(error).__name__


def find_weights(weights: str, name: str, package: Callable[[], Path] | None = None) -> Path:
    """The file that weights are to come from.

    Args:
        weights: As for :func:`load_weights`, but not `none`.
        name: Name of the network, for messages.
        package: Where the Python package made for this network keeps its file.

    Raises:
        FileNotFoundError: For a file that is not there.
        ValueError: For `download` and for an unknown package.
    """
    if weights == "download":
        raise no_download(name)
    if weights == "package":
        if package is None:
            raise InputError(
                f"but no Python package is known to carry weights of {name}",
                parameter="weights",
                found=weights,
                expected=_EXPECTED,
            )
        return package()
    if weights.startswith("package:"):
        return _packaged_file(weights)
    path = Path(weights)
    if not path.is_file():
        raise MissingFileError(f"no file {path}", parameter="weights", expected=_EXPECTED)
    return path


def _packaged_file(weights: str) -> Path:
    module, _, file = weights.removeprefix("package:").partition("/")
    if not module or not file:
        raise InputError(parameter="weights", found=weights, expected="package:MODULE/FILE")
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"but no package {module} is installed", parameter="weights", found=weights
        )
    candidates = [Path(folder) / file for folder in spec.submodule_search_locations]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise MissingFileError(
            f"no file {candidates[0]}",
            parameter="weights",
            expected=f"one that package {module} carries",
        )
    return path


def read_weights(path: Path) -> State:
    """Read the named tensors of a checkpoint.

    They may be nested under a name such as `state` or `state_dict`, be those of a whole pickled
    module, and carry the prefix `module.` of a network that was trained on several GPUs.

    Args:
        path: A file as torch.save writes it, today or in 2017, or one that ends in .safetensors.

    Returns:
        Name → tensor, on the CPU. All of them are in memory.

    Raises:
        ValueError: For a file of another kind, one that would execute code, or one with anything
            but tensors where the tensors should be.
    """
    return plain_state(state_of(read_checkpoint(path), path), path)


def read_checkpoint(path: Path) -> Any:
    """All that a checkpoint holds, on the CPU.

    Raises:
        ValueError: For a file of another kind, or one that would execute code.
    """
    try:
        return _read(path)
    except (*UNPICKLING_ERRORS, SafetensorError) as error:
        # PyTorch would advise to execute what the file asks for.
        code = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it asks for {code[1]}, but only tensors are loaded" if code else reason(error)
        raise InputError(f"cannot read {path} ({found})", parameter="weights") from error


def plain_state(state: State, path: Path) -> State:
    """Tensors under the names of the network itself, without what was put in front of all names.

    Args:
        state: Name → tensor. Changed in place.
        path: The file, for messages.

    Raises:
        InputError: For anything but dense tensors by name.
    """
    for name, tensor in state.items():
        if not isinstance(name, str) or not _is_plain(tensor):
            raise InputError(
                f"{path}: {name} is {type(tensor).__name__}",
                parameter="weights",
                expected="dense tensors by name",
            )
    for prefix in (*_PREFIXES, *_PREFIXES):
        if all(name.startswith(prefix) for name in state):
            consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return load_pickled(path)


def state_of(loaded: Any, path: Path) -> State:
    """The tensors of a network in what a file holds, under the names that the file has for them.

    Args:
        loaded: What :func:`~lowshot_kedro.networks.pickled_modules.load_pickled` returns.
        path: The file, for messages.

    Raises:
        InputError: If there are none.
    """
    if isinstance(loaded, PickledModule):
        return loaded.tensors(path)
    if isinstance(loaded, dict):
        for candidate in (*(loaded.get(key) for key in _STATE_KEYS), loaded):
            if isinstance(candidate, PickledModule):
                return candidate.tensors(path)
            if isinstance(candidate, dict) and any(
                isinstance(value, torch.Tensor) for value in candidate.values()
            ):
                return candidate
        found = f"a dictionary of {', '.join(map(repr, list(loaded)[:_MAX_NAMES])) or 'nothing'}"
    else:
        found = f"an object of type {type(loaded).__name__}"
    raise InputError(
        f"{path} holds {found}",
        parameter="weights",
        expected=f"tensors by name, or such a dictionary under one of: {', '.join(_STATE_KEYS)}",
    )


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and not value.is_meta
    )


def fit_weights(
    network: nn.Module,
    found: State,
    source: Path | str,
    name: str,
    classifier: Collection[str],
) -> None:
    """Copy tensors into a network, and see that it gets all it has and nothing else.

    Counters of batches, which files from before PyTorch 0.4.1 lack, may be missing: only training
    uses them. Other precisions are converted.

    Args:
        network: The network, without its classifier. Changed in place.
        found: Its tensors by name.
        source: Where they come from, for messages.
        name: Name of the network, for messages.
        classifier: Names of tensors that `found` may have beyond those of the network.

    Raises:
        ValueError: If tensors are missing, unexpected, of another shape, or hold NaN. The network
            is then of no use.
    """
    expected = network.state_dict()
    wanted = {key: tensor for key, tensor in found.items() if key not in classifier}
    unlike = [
        key for key, tensor in wanted.items() if key in expected and _unlike(tensor, expected[key])
    ]
    fitting = OrderedDict((key, tensor) for key, tensor in wanted.items() if key not in unlike)
    # While they load, networks rename the tensors of an earlier version, which the file states. A
    # file that states none is taken for the current version.
    fitting._metadata = getattr(found, "_metadata", None) or getattr(expected, "_metadata", None)  # type: ignore[attr-defined]
    try:
        missing, unexpected = network.load_state_dict(fitting, strict=False)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{source} does not fit {name} ({reason(error)})", parameter="weights"
        ) from error
    missing = [
        key for key in missing if key not in unlike and not key.endswith("num_batches_tracked")
    ]
    problems = [
        f"{len(names)} {kind}: {listed(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            (
                "of another shape or type",
                [f"{key} {_facts(found[key])} → {_facts(expected[key])}" for key in unlike],
            ),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{source} does not fit {name} ({len(found)} tensors for {len(expected)}): "
            f"{'; '.join(problems)}",
            parameter="weights",
        )
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise InputError(f"{source}: {key} holds NaN", parameter="weights", expected="numbers")


def _unlike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return (
        found.shape != expected.shape or found.is_floating_point() != expected.is_floating_point()
    )


def _facts(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def listed(names: list[str]) -> str:
    """The first of some names of tensors, for a message."""
    return ", ".join([*names[:_MAX_NAMES], "…"] if len(names) > _MAX_NAMES else names)
