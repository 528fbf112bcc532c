"""Numbered images in numbered zip files, a thousand in each."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.errors import InputError
from lowshot_kedro.images.decoding import (
    MAX_BYTES,
    LoadedImage,
    decode,
    no_labels,
    read_image,
    require_bytes,
    require_number,
    upright,
)
from lowshot_kedro.images.fingerprint import (
    checksum,
    file_size,
    numbers_as_bytes,
)
from lowshot_kedro.images.folders import require_folder
from lowshot_kedro.images.id_list import ImageIds
from lowshot_kedro.input_files import what_instead_of_file
from lowshot_kedro.parameters import require_integer

SHARD_SIZE = 1000
_SHARDS_PER_FOLDER = 1000
# Numbers of images are int32.
_MAX_SHARD = (2**31 - 1) // SHARD_SIZE - 1
_MAX_IMAGE = (_MAX_SHARD + 1) * SHARD_SIZE - 1
_MAX_OPEN_SHARDS = 16
_SHARDS_LOOKED_INTO = 16
# What zipfile raises for a damaged directory of a zip file.
_UNREADABLE = (
    OSError, zipfile.BadZipFile, struct.error,
    ArithmeticError, LookupError, RuntimeError, ValueError,
)  # fmt: skip


def shard_path(root: Path, shard: int) -> Path:
    """The zip file of images 1000 · shard …: shard 12345 is root/12/345.zip."""
    return root / f"{shard // _SHARDS_PER_FOLDER:02d}" / f"{shard % _SHARDS_PER_FOLDER:03d}.zip"


def _open_shard(path: Path) -> zipfile.ZipFile | Exception:
    """A zip file, or why it cannot be read."""
    try:
        found = what_instead_of_file(path)
        if found is not None:
            return InputError(f"it is {found}, expected a zip file")
        return zipfile.ZipFile(path)
    except _UNREADABLE as error:
        return error


def _file_in_shard(position: int) -> str:
    return f"{position:03d}.jpg"


class NumberedZipShards:
    """Image 12345678 is file 678.jpg inside root/12/345.zip (the layout of YFCC100M here).

    An image that is missing or broken is a blank one, and so are all of a zip file that is. At
    most 16 zip files are open at a time in a process.

    A list of numbers chooses among them: image i of this source is then image ids[i] of the zip
    files. It stays on disk.

    Args:
        root: The folder of the shards.
        first: Number of the first image of this source; with a list, its position in the list.
        last: Number after its last image, or the position after it; None: after the last image
            in the last shard, or all of the list.
        ids: A .npy file with a list of integers, such as flickr_unique_ids.npy, the images of
            YFCC100M that are neither missing nor of one colour.

    Raises:
        FileNotFoundError: If there is no such folder, or no such list.
        ValueError: If first..last is not a range, or is more than the list; if the list is none,
            or has a number that no image can have; or, where it decides on `last`, the last zip
            file cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        first: int = 0,
        last: int | None = None,
        ids: str | Path | None = None,
    ) -> None:
        self.root = require_folder(root)
        for name, number in (("first", first), ("last", last)):
            if number is not None:
                require_integer(name, number, 0, where=self.root)
        self.first = first
        self._ids = None if ids is None else ImageIds(ids, _MAX_IMAGE)
        if last is None:
            last = self._count() if self._ids is None else len(self._ids)
        elif self._ids is not None:
            require_integer("last", last, 0, len(self._ids), where=self._ids.path)
        self.last = last
        if not 0 <= self.first <= self.last:
            raise InputError(
                f"which leaves images {first}..{self.last}",
                parameter="first",
                found=first,
                expected=f"at most {self.last}",
                where=self.root,
            )
        if self._ids is not None:
            # A number that no image can have is refused before the first image is decoded.
            self._ids.facts(self.first, self.last, SHARD_SIZE)
        # Those that cannot be read are kept as well: their thousand images need but one look.
        self._open: OrderedDict[int, zipfile.ZipFile | Exception] = OrderedDict()
        self._process = os.getpid()

    def _count(self) -> int:
        """Number after the last image on disk."""
        shards = [
            int(path.parent.name + path.stem)
            for path in self.root.glob("[0-9]*/[0-9]*.zip")
            if re.fullmatch(r"\d{2,}", path.parent.name) and re.fullmatch(r"\d{3}", path.stem)
        ]
        if not shards:
            return 0
        last_shard = shard_path(self.root, max(shards))
        if max(shards) > _MAX_SHARD:
            raise InputError(
                f"{last_shard}: expected shards up to {shard_path(Path(), _MAX_SHARD)}"
            )
        archive = _open_shard(last_shard)
        if isinstance(archive, Exception):
            raise InputError(
                f"{last_shard}: not a readable zip file ({archive}); is it cut off?"
            ) from archive
        with archive:
            names = archive.namelist()
        numbers = [int(m[1]) for name in names if (m := re.fullmatch(r"(\d{3})\.jpg", name))]
        return max(shards) * SHARD_SIZE + max(numbers, default=-1) + 1

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n,), all 0, read-only."""
        return no_labels(len(self))

    def describe(self) -> dict[str, Any]:
        """The range of images, and a checksum.

        It covers the sizes of all zip files in the range, and in up to 16 of them, evenly spread,
        the names and CRC-32 of the images. Of a list, all numbers in the range have a checksum of
        their own, for which a process reads them once; zip files without any of them do not count.
        """
        of_list = {}
        if self._ids is None:
            shards = np.arange(self.first // SHARD_SIZE, -(-self.last // SHARD_SIZE))
        else:
            found = self._ids.facts(self.first, self.last, SHARD_SIZE)
            shards, of_list = found.groups, {"ids": found.checksum}
        paths = [shard_path(self.root, int(shard)) for shard in shards]
        sizes = [file_size(path) for path in paths]
        looked_into = [paths[number] for number in spread_rows(len(paths), _SHARDS_LOOKED_INTO)]
        parts = [numbers_as_bytes(sizes), *map(_directory, looked_into)]
        return {
            "kind": "numbered zip shards",
            "n_pictures": len(self),
            "first": self.first,
            "last": self.last,
            **of_list,
            "checksum": checksum(parts),
        }

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, number: int) -> LoadedImage:
        number = require_number(number, len(self), str(self.root))
        shard, position = divmod(self._image(number), SHARD_SIZE)

        def load() -> Image.Image:
            return decode(io.BytesIO(_unpacked(self._archive(shard), _file_in_shard(position))))

        return read_image(load, self.file_name(number), label=0)

    def file_name(self, number: int) -> str:
        """What people know an image by: 12/345.zip/678.jpg."""
        shard, position = divmod(self._image(number % len(self)), SHARD_SIZE)
        path = shard_path(self.root, shard)
        return f"{path.parent.name}/{path.name}/{_file_in_shard(position)}"

    def _image(self, number: int) -> int:
        """The number in the zip files of an image of this source."""
        position = self.first + number
        return position if self._ids is None else self._ids[position]

    def _archive(self, shard: int) -> zipfile.ZipFile:
        # A forked worker would share file positions with its parent, so it opens its own.
        if self._process != os.getpid():
            self._open = OrderedDict()
            self._process = os.getpid()
        if shard not in self._open:
            while len(self._open) >= _MAX_OPEN_SHARDS:
                _, oldest = self._open.popitem(last=False)
                if isinstance(oldest, zipfile.ZipFile):
                    oldest.close()
            self._open[shard] = _open_shard(shard_path(self.root, shard))
        self._open.move_to_end(shard)
        archive = self._open[shard]
        if isinstance(archive, Exception):
            # Otherwise it would collect the calls of all its images.
            raise archive.with_traceback(None)
        return archive

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __repr__(self) -> str:
        of_list = "" if self._ids is None else f" of {self._ids.path.name}"
        return f"NumberedZipShards({str(self.root)!r}, {self.first}..{self.last}{of_list})"


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file in a zip file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is larger than any image, whether its entry says so or not.
    """
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise FileNotFoundError("it is not in the zip file") from None
    require_bytes(entry.file_size)
    with archive.open(entry) as file:
        content = file.read(MAX_BYTES + 1)
    require_bytes(len(content))
    return content


def _directory(path: Path) -> bytes:
    """Names and CRC-32 of the files in a zip file, or that it cannot be read."""
    archive = _open_shard(path)
    if isinstance(archive, Exception):
        return b"unreadable"
    with archive:
        entries = [f"{entry.filename} {entry.CRC}" for entry in archive.infolist()]
    return "\n".join(entries).encode("utf-8", "surrogatepass")


def write_zip_shards(root: Path, images: Iterable[Image.Image]) -> None:
    """Write images 0, 1, … as JPEG files into uncompressed zip shards.

    The folder appears under its name when it is complete; one that was there before is replaced.
    Images are turned as their EXIF orientation says, which is not written.

    Args:
        root: The folder to write.
        images: RGB or grayscale.

    Raises:
        ValueError: If there is no image.
    """
    partial, older = root.with_name(f".partial-{root.name}"), root.with_name(f".old-{root.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(older, ignore_errors=True)
    archive: zipfile.ZipFile | None = None
    try:
        for number, image in enumerate(images):
            shard, position = divmod(number, SHARD_SIZE)
            if position == 0:
                if archive is not None:
                    archive.close()
                path = shard_path(partial, shard)
                path.parent.mkdir(parents=True, exist_ok=True)
                archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
            encoded = io.BytesIO()
            upright(image).save(encoded, "JPEG", quality=95)
            assert archive is not None
            # A fixed date: the same images make the same file.
            archive.writestr(zipfile.ZipInfo(f"{position:03d}.jpg"), encoded.getvalue())
        if archive is None:
            raise InputError(f"{root}: no images to write")
        archive.close()
        # A folder that is being deleted must not pass for a collection.
        if root.exists():
            root.rename(older)
        partial.rename(root)
        shutil.rmtree(older, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
