"""The file of a trained network: its tensors, and in the header what they are of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from safetensors import SafetensorError, safe_open

from lowshot_kedro.errors import InputError, MissingFileError, shown
from lowshot_kedro.input_files import require_file
from lowshot_kedro.networks.embedding import MAX_DIMENSION
from lowshot_kedro.networks.preprocessing import Colors, Preprocessing, resize_and_crop
from lowshot_kedro.parameters import is_integer, is_number

# The format that a header names → the extractor that reads such files.
FORMATS = {
    "lowshot-kedro embedding network": "snca",
    "lowshot-kedro unsupervised network": "deepercluster",
}
_VERSION = "1"
_MAX_SIDE = 2**14
_MAX_COLOR = 1e6
_INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")
_NO_FILE = ("none", "download", "package")

_Description = TypeVar("_Description", bound="NetworkDescription")


@dataclass(frozen=True)
class NetworkDescription:
    """What a trained network is, and what images it expects: the base of both formats.

    Attributes:
        network: Its name.
        dimension: Length of its output.
        image_size: Width and height in pixels of the images that the network sees.
        shorter_side: Pixels of an image's shorter side before the central square is taken.
        interpolation: How images are resized: a value of torchvision's InterpolationMode.
        mean: Mean of red, green and blue, in units of the full scale 0..1; subtracted.
        std: Standard deviation of red, green and blue, in the same units; divided by.
        facts: What else is to be known about it: anything that JSON can say.
    """

    format: ClassVar[str]

    network: str
    dimension: int
    image_size: int
    shorter_side: int
    interpolation: str
    mean: Colors
    std: Colors
    facts: Mapping[str, Any] = field(default_factory=dict)

    def require_network(self) -> None:
        """Check that a network of this kind has the name and whatever else is said.

        Raises:
            InputError: If none has.
        """
        raise NotImplementedError

    def preprocessing(self) -> Preprocessing:
        """What happens to an image before the network sees it."""
        resize = resize_and_crop(self.shorter_side, self.image_size, self.interpolation)
        return Preprocessing(resize, self.mean, self.std)

    def to_metadata(self) -> dict[str, str]:
        """The header of the file: every field as JSON."""
        values = {each.name: json.dumps(getattr(self, each.name)) for each in fields(self)}
        return {"format": self.format, "format_version": _VERSION, **values}

    @classmethod
    def from_metadata(
        cls: type[_Description],
        metadata: Mapping[str, str] | None,
        where: str | Path | None = None,
    ) -> _Description:
        """The description that a header holds.

        Args:
            metadata: The header of a file.
            where: The file, for messages.

        Raises:
            InputError: If the header is that of another kind of file, or lacks a field, or a field
                is not what it should be.
        """
        found = metadata or {}
        kind = found.get("format")
        if kind != cls.format and kind in FORMATS:
            raise InputError(
                f"holds a network for the extractor {FORMATS[kind]}",
                where=where,
                expected=f"one for {FORMATS[cls.format]}",
            )
        if kind != cls.format:
            raise InputError(
                f"is no network that this project has trained: its header lacks format: "
                f"{cls.format}",
                where=where,
            )
        version = found.get("format_version")
        if version != _VERSION:
            raise InputError(
                where=where, parameter="format_version", found=version, expected=_VERSION
            )
        values = {each.name: _read_field(found, each.name, where) for each in fields(cls)}
        for name in ("mean", "std"):
            values[name] = tuple(values[name])
        description = cls(**values)
        try:
            description.require_network()
        except InputError as error:
            raise InputError(
                where=where,
                parameter="network" if error.parameter == "name" else error.parameter,
                found=error.found,
                expected=error.expected,
            ) from error
        return description

    @classmethod
    def read(cls: type[_Description], path: str | Path) -> _Description:
        """What a file says of itself; its tensors are not read.

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
        return cls.from_metadata(metadata, path)

    def require_image_size(self, image_size: int | None, path: Path) -> None:
        """Refuse another size than that of the training.

        Args:
            image_size: Width and height in pixels; None: that of the training.
            path: The file, for messages.

        Raises:
            InputError: If it is another one.
        """
        if image_size not in (None, self.image_size):
            raise InputError(
                f"but {path} was trained at {self.image_size} pixels",
                parameter="image_size",
                found=image_size,
                expected=f"{self.image_size}, or null: the size that it was trained at",
            )


def require_trained_file(weights: str, method: str, example: str, made_by: str) -> Path:
    """The file of a trained network, for an extractor that needs one.

    Args:
        weights: What was given as weights.
        method: What trains such networks, for messages.
        example: Such a file, for messages.
        made_by: The pipeline that makes it.

    Raises:
        FileNotFoundError: For a file that is not there.
        InputError: For anything but a file.
    """
    expected = f"the file of a network trained by {method}"
    if weights in _NO_FILE or weights.startswith("package:"):
        raise InputError(
            parameter="weights",
            found=weights,
            expected=f"{expected}, such as {example}",
            made_by=made_by,
        )
    path = Path(weights)
    if not path.is_file():
        raise MissingFileError(
            f"no file {path}", parameter="weights", expected=expected, made_by=made_by
        )
    return path


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
    "sobel": (lambda value: isinstance(value, bool), "true or false"),
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
