"""Public data sets of images through torchvision.datasets."""

from __future__ import annotations

import gzip
import inspect
import json
import logging
import lzma
import operator
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.errors import InputError, did_you_mean, in_one_line
from lowshot_kedro.extras import LazyModule, needed_by
from lowshot_kedro.images.decoding import (
    LoadedImage,
    decode,
    no_labels,
    open_image,
    read_image,
    require_number,
    to_rgb,
)
from lowshot_kedro.images.fingerprint import checksum, numbers_as_bytes
from lowshot_kedro.input_files import UNPICKLING_ERRORS
from lowshot_kedro.locks import ResultInUseError, written_by_one

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch", "TorchvisionImages", globals())

logger = logging.getLogger(__name__)

_IMAGES_LOOKED_AT = 64
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
_PARTS = ("train", "test")
_FILE_ATTRIBUTES = ("samples", "_samples", "imgs")
_MAX_ROWS = 2**31 - 1
# Errors of transfers and archives, besides those of reading pickles.
_FAILED_DOWNLOAD = (
    HTTPException, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip
# Errors of decoding an image, which gives its label where a dataset does not list labels.
_FAILED_DECODING = (SyntaxError, zlib.error, Image.DecompressionBombError)
_SET_HERE = ("root", "download", "loader", "transform", "target_transform", "transforms")


class TorchvisionImages:
    """Images of a torchvision dataset, in its order. Files that are there are used as they are.

    In memory is what the dataset holds: all pixels of a small one, file names of a large one. A
    worker to which a source is sent opens the files itself, and never downloads.

    Args:
        name: A class of torchvision.datasets, such as FashionMNIST, CIFAR100 or ImageFolder.
        root: The folder of the files, as torchvision expects them.
        download: Whether torchvision may fetch files that are not there.
        arguments: For the class, such as train=False or split="test".
        rows_per_class: (first, last): keep images first..last-1 of every class; last None: to
            the end.
        labeled: False hides the labels.
        part: "train" or "test" adds train=True or False, or else split="train" or "test", to the
            arguments of a class that takes one of them, unless they are given. None adds nothing.

    Attributes:
        class_names: The name of each class by label; empty where torchvision names none.

    Raises:
        FileNotFoundError: If the files are not there and may not be downloaded.
        ValueError: For an unknown name, arguments that do not fit, files that cannot be read or
            downloaded, labels that are not integers from 0, or if no image is left.
    """

    def __init__(
        self,
        name: str,
        root: str | Path,
        *,
        download: bool = False,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        rows_per_class: Sequence[int | None] = (0, None),
        labeled: bool = True,
        part: str | None = None,
    ) -> None:
        self.name = name
        self.root = Path(root).expanduser()
        self.labeled = labeled
        self._rows_per_class = _require_rows(name, rows_per_class)
        everything = self._rows_per_class == (0, None)
        dataset_class = _require_class(name)
        _require_arguments(dataset_class, arguments)
        self.arguments = _complete(dataset_class, arguments, part, everything)
        _unpack(dataset_class, self.root, download)
        self._dataset: Any = _open(dataset_class, self.root, self.arguments, download)
        self.class_names = _names(getattr(self._dataset, "classes", None))

        self._rows = np.arange(len(self._dataset))
        self._labels = None
        if labeled or not everything:
            labels = _labels_of(self._dataset, name)
            self._rows = _rows_of_each_class(labels, *self._rows_per_class)
            if labeled:
                self._labels = _as_int32(labels[self._rows], name)
        if not len(self._rows):
            raise InputError(
                f"torchvision's {name}: no image left of {len(self._dataset)} with "
                f"rows_per_class {list(self._rows_per_class)}, expected some"
            )

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n,), 0-based, read-only; all 0 if they are hidden."""
        return no_labels(len(self)) if self._labels is None else self._labels

    def describe(self) -> dict[str, Any]:
        """What was asked for, and a checksum of the labels and of up to 64 decoded images."""
        parts = [numbers_as_bytes(self.labels)]
        for number in spread_rows(len(self), _IMAGES_LOOKED_AT):
            image = self[int(number)].image
            parts += [numbers_as_bytes(image.size), image.tobytes()]
        return {
            "kind": "torchvision",
            "name": self.name,
            "arguments": json.loads(json.dumps(self.arguments, default=str)),
            "rows_per_class": list(self._rows_per_class),
            "labeled": self.labeled,
            "n_pictures": len(self),
            "checksum": checksum(parts),
        }

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> LoadedImage:
        number = require_number(number, len(self), repr(self))
        row = int(self._rows[number])
        self._reopen()

        def load() -> Image.Image:
            item = self._dataset[row]
            return _to_image(item[0] if isinstance(item, tuple) else item)

        return read_image(load, self.file_name(number), int(self.labels[number]))

    def file_name(self, number: int) -> str:
        """The file of an image where the dataset names it, else its position in the dataset."""
        row = int(self._rows[number])
        self._reopen()
        for pairs in _lists_of_pairs(self._dataset):
            if isinstance(pairs[row][0], str | Path):
                return os.path.relpath(pairs[row][0], self.root)
        return f"{self.name}[{row}]"

    def _reopen(self) -> None:
        """Open the dataset in a process that it was sent to without it."""
        if self._dataset is None:
            self._dataset = _open(_require_class(self.name), self.root, self.arguments, False)

    def __getstate__(self) -> dict[str, Any]:
        # Many megabytes, and some datasets hold open files.
        return {**self.__dict__, "_dataset": None}

    def __repr__(self) -> str:
        return f"TorchvisionImages({self.name!r}, {str(self.root)!r}, {len(self)} images)"


def _require_class(name: str) -> Any:
    # Loading torchvision takes a second that commands without it should not pay.
    with needed_by("TorchvisionImages"):
        from torchvision import datasets

    known = {
        known_name: known_class
        for known_name in datasets.__all__
        if inspect.isclass(known_class := getattr(datasets, known_name))
        and known_class is not datasets.VisionDataset
    }
    if name in known:
        return known[name]
    hint = did_you_mean(name, known, n=3) or ", such as FashionMNIST or CIFAR100"
    raise InputError(
        parameter="name", found=name, expected=f"a class of torchvision.datasets{hint}"
    )


def _parameters(dataset_class: Any) -> list[str]:
    """What the constructor takes; `**arguments` go to the class that it inherits from."""
    names: list[str] = []
    for base in dataset_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def _require_arguments(dataset_class: Any, arguments: Mapping[str, Any]) -> None:
    allowed = [name for name in _parameters(dataset_class) if name not in _SET_HERE]
    for name in arguments:
        if name not in allowed:
            raise InputError(
                f"torchvision's {dataset_class.__name__} has no {name}"
                f"{did_you_mean(name, allowed)}; "
                f"allowed: {', '.join(allowed) or 'none'}",
                parameter="arguments",
            )


def _complete(
    dataset_class: Any, arguments: Mapping[str, Any], part: str | None, everything: bool
) -> dict[str, Any]:
    """The arguments, and the one that tells training from test images."""
    if part not in (None, *_PARTS):
        expected = f"one of: {', '.join(_PARTS)}"
        raise InputError(parameter="part", found=part, expected=expected)
    taken = _parameters(dataset_class)
    if part is None:
        return dict(arguments)
    if "train" in taken:
        return {"train": part == "train", **arguments}
    if "split" in taken:
        return {"split": part, **arguments}
    if everything and not arguments:
        raise InputError(
            f"torchvision's {dataset_class.__name__}: its training and test images are the same; "
            "expected rows_per_class for train and for test, such as [0, 100] and [100, 200]"
        )
    return dict(arguments)


def _names(found: Any) -> tuple[str, ...]:
    """Names of classes by label, as datasets hold them; of several for a class, the first."""
    if not isinstance(found, list | tuple):
        return ()
    names = tuple(name[0] if isinstance(name, tuple) and name else name for name in found)
    return names if all(isinstance(name, str) for name in names) else ()


def torchvision_class_names(
    name: str,
    root: str | Path,
    *,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    part: str | None = "train",
) -> tuple[str, ...]:
    """Names of the classes of a torchvision dataset, from its files where the class has none.

    Nothing is downloaded.

    Args:
        name: A class of torchvision.datasets.
        root: The folder of the files, as torchvision expects them.
        arguments: For the class.
        part: As for :class:`TorchvisionImages`.

    Returns:
        The name of each class by label; empty where torchvision names none.

    Raises:
        FileNotFoundError: If the files are needed and not there.
        ValueError: As for :class:`TorchvisionImages`.
    """
    # An inherited list can be that of other images: EMNIST inherits the digits of MNIST.
    names = _names(vars(_require_class(name)).get("classes"))
    if names:
        return names
    dataset_class, folder = _require_class(name), Path(root).expanduser()
    _require_arguments(dataset_class, arguments)
    completed = _complete(dataset_class, arguments, part, everything=False)
    _unpack(dataset_class, folder, download=False)
    dataset = _open(dataset_class, folder, completed, download=False)
    return _names(getattr(dataset, "classes", None))


def _require_rows(name: str, rows_per_class: Sequence[int | None]) -> tuple[int, int | None]:
    error = InputError(
        parameter="rows_per_class",
        found=rows_per_class,
        expected="[first, last] with 0 ≤ first < last, or none as last: to the end",
        where=f"torchvision's {name}",
    )
    if not isinstance(rows_per_class, Sequence) or len(rows_per_class) != 2:
        raise error
    first, last = rows_per_class
    for number in (first, first if last is None else last):
        if not isinstance(number, int) or isinstance(number, bool):
            raise error
    assert first is not None
    if not 0 <= first < _MAX_ROWS or (last is not None and not first < last <= _MAX_ROWS):
        raise error
    return first, last


def _load_file(path: str | Path) -> Image.Image:
    """How datasets of files decode them, where they let one choose."""
    return decode(open_image(Path(path)))


def _open(dataset_class: Any, root: Path, arguments: Mapping[str, Any], download: bool) -> Any:
    """The dataset; what is missing is fetched if that is allowed."""
    taken = _parameters(dataset_class)
    name = f"torchvision's {dataset_class.__name__}"
    given = dict(arguments)
    if "root" in taken:
        given["root"] = str(root)
    if "loader" in taken:
        given["loader"] = _load_file
    can_download = "download" in taken
    # torchvision documents no errors: RuntimeError and OSError are what it raises for files.
    try:
        return dataset_class(**given)
    except (RuntimeError, OSError) as error:
        folder, reason = _folder(dataset_class, root), _one_line(error)
        if not can_download:
            raise FileNotFoundError(
                f"{name}: its files are not in {folder}, or cannot be read ({reason})"
            ) from error
        if not download:
            raise FileNotFoundError(
                f"{name}: its files are not in {folder}, or are not what torchvision expects "
                f"({reason}); put them there, or let download: true fetch them"
            ) from error
    # Arguments that are missing or wrong, damaged files, and libraries for other formats.
    except (*UNPICKLING_ERRORS, ImportError) as error:
        raise InputError(f"{name}: cannot be opened ({_one_line(error)})") from error
    logger.info("%s: downloading to %s", name, root)
    try:
        # The library writes to final names, which another process would take for broken files.
        with written_by_one(_folder(dataset_class, root)):
            return dataset_class(**given, download=True)
    except ResultInUseError:
        raise
    except (*UNPICKLING_ERRORS, *_FAILED_DOWNLOAD, ImportError) as error:
        raise InputError(
            f"{name}: its files are not in {folder} and the download failed ({_one_line(error)}); "
            "put them there yourself, or try again"
        ) from error


def _one_line(error: Exception) -> str:
    return in_one_line(f"{type(error).__name__}: {error}")


def _folder(dataset_class: Any, root: Path) -> Path:
    """The folder that people would put the files in."""
    if _is_mnist(dataset_class):
        return _raw_folder(dataset_class, root)
    base_folder = getattr(dataset_class, "base_folder", "")
    return root / base_folder if isinstance(base_folder, str) else root


def _is_mnist(dataset_class: Any) -> bool:
    from torchvision.datasets import MNIST

    return issubclass(dataset_class, MNIST)


def _raw_folder(dataset_class: Any, root: Path) -> Path:
    return root / str(dataset_class.__name__) / "raw"


def _unpack(dataset_class: Any, root: Path, download: bool) -> None:
    """Unpack the .gz files of the MNIST family where torchvision looks for unpacked ones only.

    It would unpack them itself if they had the MD5 of the published ones, which another gzip does
    not give to the same content.
    """
    if not _is_mnist(dataset_class):
        return
    for packed in sorted(_raw_folder(dataset_class, root).glob("[!.]*.gz")):
        unpacked = packed.with_suffix("")
        if unpacked.exists():
            continue
        partial = unpacked.with_name(f".partial-{os.getpid()}-{unpacked.name}")
        try:
            with gzip.open(packed) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
            partial.replace(unpacked)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            message = f"{packed}: not a readable gzip file ({error}); is it cut off?"
            if not download:
                raise InputError(message) from error
            logger.warning("%s It is downloaded anew", message)
        finally:
            partial.unlink(missing_ok=True)


def _labels_of(dataset: Any, name: str) -> NDArray[np.int64]:
    """int64 (n,), from what the dataset holds of them if possible, else one by one."""
    n_images = len(dataset)
    candidates = [getattr(dataset, attribute, None) for attribute in _LABEL_ATTRIBUTES]
    candidates += [[label for _, label in pairs] for pairs in _lists_of_pairs(dataset)]
    for candidate in candidates:
        try:
            labels = np.asarray(candidate)
        except (ValueError, TypeError, RuntimeError):
            continue
        if labels.shape == (n_images,) and labels.dtype.kind in "iu":
            return labels.astype(np.int64)
    logger.info("torchvision's %s: reading the labels of %d images one by one", name, n_images)
    labels = np.empty(n_images, dtype=np.int64)
    for row in range(n_images):
        target: Any = None
        try:
            target = dataset[row][1]
            labels[row] = operator.index(target)
        except (*UNPICKLING_ERRORS, *_FAILED_DECODING) as error:
            found = repr(target) if isinstance(error, TypeError) else _one_line(error)
            raise InputError(
                f"torchvision's {name}: the label of image {row} is {found[:80]}; expected an "
                "integer. labeled: false does without labels"
            ) from error
    return labels


def _lists_of_pairs(dataset: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Lists of (file or image, label), one pair for each image, that the dataset holds."""
    for attribute in _FILE_ATTRIBUTES:
        values = getattr(dataset, attribute, None)
        if isinstance(values, list) and len(values) == len(dataset) > 0:
            first = values[0]
            if isinstance(first, tuple) and len(first) == 2:
                yield values


def _as_int32(labels: NDArray[np.int64], name: str) -> NDArray[np.int32]:
    bad = labels[(labels < 0) | (labels > np.iinfo(np.int32).max)]
    if len(bad):
        raise InputError(
            f"torchvision's {name}: found label {bad[0]}, expected integers from 0. labeled: false "
            "does without labels"
        )
    result = labels.astype(np.int32)
    result.flags.writeable = False
    return result


def _rows_of_each_class(
    labels: NDArray[np.int64], first: int, last: int | None
) -> NDArray[np.int64]:
    """Rows first..last-1 of every class, increasing."""
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    rank_in_class = np.arange(len(labels)) - np.repeat(starts, sizes)
    is_kept = rank_in_class >= first
    if last is not None:
        is_kept &= rank_in_class < last
    return np.sort(order[is_kept])


def _to_image(item: Any) -> Image.Image:
    """RGB from what datasets return: an image of PIL's, pixels (height, width[, 3]), or a tensor.

    Tensors are (3 or 1, height, width). Floating-point numbers are 0..1, integers as in PIL.
    """
    if isinstance(item, Image.Image):
        return to_rgb(item)
    pixels = np.asarray(item)
    if isinstance(item, torch.Tensor) and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype.kind == "f":
        pixels = (np.nan_to_num(pixels).clip(0, 1) * 255).round().astype(np.uint8)
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)))
