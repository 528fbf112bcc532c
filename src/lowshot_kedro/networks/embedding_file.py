"""The file of a trained network: its tensors, and in the header what they are of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.input_files import require_file
from lowshot_kedro.networks.embedding import (
    MAX_DIMENSION,
    embedding_network,
    require_embedding_network,
)
from lowshot_kedro.networks.embedding_module import EmbeddingNetwork
from lowshot_kedro.networks.preprocessing import Colors, Preprocessing, resize_and_crop
from lowshot_kedro.networks.weights import fit_weights, same_random_weights
from lowshot_kedro.parameters import is_integer, is_number

FORMAT = "lowshot-kedro embedding network"
_VERSION = "1"
_MAX_SIDE = 2**14
_MAX_COLOR = 1e6
_INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class EmbeddingDescription:
    """What a trained network is, and what images it expects.

    Attributes:
        network: Its name, as for :func:`~lowshot_kedro.networks.embedding.embedding_network`.
        dimension: Length of an embedding.
        image_size: Width and height in pixels of the images that the network sees.
        shorter_side: Pixels of an image's shorter side before the central square is taken.
        interpolation: How images are resized: a value of torchvision's InterpolationMode.
        mean: Mean of red, green and blue, in units of the full scale 0..1; subtracted.
        std: Standard deviation of red, green and blue, in the same units; divided by.
        facts: What else is to be known about it: anything that JSON can say.
    """

    network: str
    dimension: int
    image_size: int
    shorter_side: int
    interpolation: str
    mean: Colors
    std: Colors
    facts: Mapping[str, Any] = field(default_factory=dict)

    def preprocessing(self) -> Preprocessing:
        """What happens to an image before the network sees it."""
        resize = resize_and_crop(self.shorter_side, self.image_size, self.interpolation)
        return Preprocessing(resize, self.mean, self.std)

    def to_metadata(self) -> dict[str, str]:
        """The header of the file: every field as JSON."""
        values = {each.name: json.dumps(getattr(self, each.name)) for each in fields(self)}
        return {"format": FORMAT, "format_version": _VERSION, **values}

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, str] | None, where: str | Path | None = None
    ) -> EmbeddingDescription:
        """The description that a header holds.

        Args:
            metadata: The header of a file.
            where: The file, for messages.

        Raises:
            InputError: If the header is that of another kind of file, or lacks a field, or a field
                is not what it should be.
        """
        found = metadata or {}
        if found.get("format") != FORMAT:
            raise InputError(
                f"is no network that this project has trained: its header lacks format: {FORMAT}",
                where=where,
            )
        version = found.get("format_version")
        if version != _VERSION:
            raise InputError(
                where=where, parameter="format_version", found=version, expected=_VERSION
            )
        values = {each.name: _read_field(found, each.name, where) for each in fields(cls)}
        try:
            require_embedding_network(values["network"])
        except InputError as error:
            raise InputError(
                where=where,
                parameter="network",
                found=values["network"],
                expected=error.expected,
            ) from error
        for name in ("mean", "std"):
            values[name] = tuple(values[name])
        return cls(**values)


def _is_colors(value: object, minimum: float) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(is_number(each, minimum, _MAX_COLOR) for each in value)
    )


_SIDE = (lambda value: is_integer(value, 1, _MAX_SIDE), f"an integer from 1 to {_MAX_SIDE}")

# Field → whether a value is one, and the words for what it should be.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "network": (lambda value: isinstance(value, str), "the name of a network"),
    "dimension": (
        lambda value: is_integer(value, 1, MAX_DIMENSION),
        f"an integer from 1 to {MAX_DIMENSION}",
    ),
    "image_size": _SIDE,
    "shorter_side": _SIDE,
    "interpolation": (
        lambda value: value in _INTERPOLATIONS,
        f"one of: {', '.join(_INTERPOLATIONS)}",
    ),
    "mean": (lambda value: _is_colors(value, -_MAX_COLOR), "three numbers"),
    "std": (lambda value: _is_colors(value, 1 / _MAX_COLOR), "three numbers above 0"),
    "facts": (lambda value: isinstance(value, dict), "a mapping"),
}


def _read_field(metadata: Mapping[str, str], name: str, where: str | Path | None) -> Any:
    is_valid, expected = _FIELDS[name]
    text = metadata.get(name)
    if text is None:
        raise InputError(f"its header lacks {name}", where=where, expected=expected)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(where=where, parameter=name, found=text, expected=expected) from None
    if not is_valid(value):
        raise InputError(where=where, parameter=name, found=value, expected=expected)
    return value


def read_description(path: str | Path) -> EmbeddingDescription:
    """What the file of a trained network says of itself; its tensors are not read.

    Raises:
        FileNotFoundError: If it is not there.
        InputError: If it is another kind of file.
    """
    path = Path(path)
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file; is it cut off? ({shown(str(error))})"
        ) from error
    return EmbeddingDescription.from_metadata(metadata, path)


def read_embedding_network(path: str | Path) -> tuple[EmbeddingNetwork, EmbeddingDescription]:
    """A trained network from its file.

    Args:
        path: A .safetensors file as this project writes it.

    Returns:
        The network in evaluation mode, on the CPU, and what it is. All tensors are in memory twice
        while they are copied.

    Raises:
        FileNotFoundError: If it is not there.
        InputError: If it is another kind of file, or its tensors are not those of the network that
            its header names.
    """
    path = Path(path)
    description = read_description(path)
    network = embedding_from_tensors(description, load_file(path), path)
    return network, description


def embedding_from_tensors(
    description: EmbeddingDescription, tensors: dict[str, Any], source: str | Path
) -> EmbeddingNetwork:
    """A trained network from its tensors.

    Args:
        description: What it is.
        tensors: Name → tensor: all that the network has.
        source: Where they come from, for messages.

    Raises:
        InputError: If a tensor is missing, unexpected, or of another shape.
    """
    with same_random_weights():
        network = embedding_network(
            description.network, description.dimension, image_size=description.image_size
        )
    fit_weights(network.network, tensors, source, description.network, ())
    return network.eval()
