"""One image of a collection, and what every collection offers."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import what_instead_of_file

BLANK_SIZE = (256, 256)

# A JPEG of more is decoded at a smaller scale: where PIL begins to warn, so that none which PIL
# opens in silence is treated in another way.
REDUCED_PIXELS = 1024**3 // 4 // 3
# A camera takes a hundred million at a time. Decoding takes up to 16 bytes of memory for each: no
# image, whatever it says of itself, takes a worker more than 2 GiB.
MAX_PIXELS = 2**27
# Bytes that so many pixels take without any compression, with four channels of 16 bits.
MAX_BYTES = 8 * MAX_PIXELS

_REDUCTIONS = (2, 4, 8)
# A JPEG has a bit at least for every 8 × 8 pixels. Where the rest is missing, the decoder paints it
# gray and says nothing.
_MAX_JPEG_PIXELS_PER_BYTE = 8 * 64
# A progressive JPEG refines all pixels with each scan; cameras and editors write ten scans.
_MAX_JPEG_SCANS = 500
# The beginning of a scan; length and number of components tell it from other data.
_JPEG_SCAN = re.compile(rb"\xff\xda\x00[\x06\x08\x0a\x0c][\x01-\x04]")
# The way from pixels as they are stored to pixels as they are seen, by EXIF's orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The places in which PIL looks for an orientation.
_WITH_ORIENTATION = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_MAX_NAME, _MAX_PROBLEM = 100, 200


class LoadedImage(NamedTuple):
    """An image as the networks see it.

    Attributes:
        image: RGB; black 256×256 where there is none.
        label: 0-based label, 0 in collections without labels.
        problem: Which file is wrong and why, in one line, if the image is blank; else None.
    """

    image: Image.Image
    label: int
    problem: str | None


class ImageSource(Protocol):
    """A collection of numbered images. Sources are cheap to make and safe to send to workers."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> LoadedImage: ...

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n,), 0-based, known without decoding; all 0 in collections without labels."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts that tell these images from others, as JSON holds them.

        It is cheap for millions of images, and is the same after the collection has moved to
        another folder.
        """
        ...


class AbsentImages:
    """Stands for a collection whose images are not at hand, only their features.

    It is empty, and yet has a blank image for every number.

    Args:
        path: The path at which the collection would be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 0

    def __getitem__(self, number: int) -> LoadedImage:
        return LoadedImage(Image.new("RGB", BLANK_SIZE), 0, f"{self.path.name} is not there")

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (0,)."""
        return no_labels(0)

    def describe(self) -> dict[str, Any]:
        """Facts that say that there are no images."""
        return {"kind": "absent", "n_pictures": 0}

    def __repr__(self) -> str:
        return f"AbsentImages({str(self.path)!r})"


def no_labels(n_images: int) -> NDArray[np.int32]:
    """The labels of a collection without labels: int32 (n,), all 0, read-only.

    A hundred million of them take no more memory than one.
    """
    return np.broadcast_to(np.int32(0), (n_images,))


def read_image(load: Callable[[], Image.Image], name: str, label: int) -> LoadedImage:
    """A decoded image, or a blank one and the reason.

    Args:
        load: Decodes the image, for instance with :func:`decode`.
        name: What the reason calls the file, short.
        label: Passed on.
    """
    # Whatever is wrong with one of a hundred million files found on the web (absent, cut off, a
    # bomb, a format PIL chokes on in its own way), the answer is the same: a blank image, so
    # that row numbers stay image numbers.
    try:
        with warnings.catch_warnings():
            # PIL warns of damaged EXIF data and the like, once or more for every image.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            return LoadedImage(load(), label, None)
    except Exception as error:
        return LoadedImage(Image.new("RGB", BLANK_SIZE), label, _problem(name, error))


def _problem(name: str, error: Exception) -> str:
    """One line without absolute paths, which the messages of open() and PIL contain."""
    if isinstance(error, UnidentifiedImageError):
        reason = "cannot identify image file"
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = str(error)
    # Our own say all that there is to say.
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    if len(name) > _MAX_NAME:
        name = "…" + name[1 - _MAX_NAME :]
    line = " ".join(f"{name}: {kind}{reason}".split())
    if len(line) > _MAX_PROBLEM:
        line = line[: _MAX_PROBLEM - 1] + "…"
    # A file name may hold bytes that are no text, which no report could be written with.
    return line.encode("utf-8", "backslashreplace").decode()


def open_image(path: Path) -> BinaryIO:
    """Open the file of an image.

    Raises:
        ValueError: If it is a named pipe, which one would wait for, or another thing that is no
            file.
        OSError: If it cannot be opened.
    """
    found = what_instead_of_file(path)
    if found is not None:
        raise InputError(f"it is {found}, expected a file")
    return path.open("rb")


def require_bytes(n_bytes: int) -> None:
    """Refuse an encoded image that is larger than any.

    Raises:
        ValueError: For more than 1 GiB.
    """
    if n_bytes > MAX_BYTES:
        raise InputError(f"{n_bytes} bytes, more than {MAX_BYTES}, are not decoded")


def decode(file: BinaryIO, min_side: int | None = None) -> Image.Image:
    """The first frame of an encoded image as RGB; closes the file.

    Whatever a file of a few bytes says of itself, this takes no more than 2 GiB of memory, and some
    ten seconds.

    Args:
        file: A binary file that can seek.
        min_side: A JPEG may be decoded at a half, a quarter or an eighth of its scale, which is
            much faster, where so many pixels are left of its shorter side; None: at its own.

    Raises:
        Exception: An error of any kind, if PIL cannot decode the image, or it is too large for
            :func:`to_rgb`.
    """
    with file:
        n_bytes = file.seek(0, os.SEEK_END)
        require_bytes(n_bytes)
        file.seek(0)
        try:
            image = Image.open(file)
        except Image.DecompressionBombError as error:
            # PIL refuses very large images before one can ask for a smaller scale.
            file.seek(0)
            try:
                image = JpegImageFile(file)
            except SyntaxError:
                raise error from None
        if image.format == "EPS":
            raise InputError("PostScript is a program, which is not run")
        if isinstance(image, JpegImageFile):
            _require_complete(image, file, n_bytes)
            # A larger one is reduced by what to_rgb knows of it.
            if min_side is not None and image.width * image.height <= REDUCED_PIXELS:
                image.draft("RGB", (min_side, min_side))
        return to_rgb(image)


def _require_complete(image: JpegImageFile, file: BinaryIO, n_bytes: int) -> None:
    """Refuse a JPEG whose header cannot belong to its data.

    Raises:
        ValueError: For more pixels than so many bytes hold, or scans without end.
    """
    if image.width * image.height > n_bytes * _MAX_JPEG_PIXELS_PER_BYTE:
        raise InputError(
            f"{image.width} × {image.height} pixels do not fit into {n_bytes} bytes of JPEG"
        )
    if "progressive" in image.info:
        position = file.tell()
        file.seek(0)
        n_scans = sum(1 for _ in _JPEG_SCAN.finditer(file.read()))
        file.seek(position)
        if n_scans > _MAX_JPEG_SCANS:
            raise InputError(f"{n_scans} scans, more than {_MAX_JPEG_SCANS}, are not decoded")


def to_rgb(image: Image.Image) -> Image.Image:
    """A copy of an image as 8-bit RGB, as PIL converts it, but for three things.

    It is turned as its EXIF orientation says, see :func:`upright`. More than 8 bits per channel are
    reduced to 8 by division; PIL would cut values off at 255, which makes nearly everything white.
    And a JPEG file of more than 89 million pixels is decoded at a half, a quarter or an eighth of
    its scale.

    Args:
        image: An image of any mode; a file that PIL has opened need not be loaded yet.

    Raises:
        Image.DecompressionBombError: For any other image, also a progressive JPEG, of more than
            134 million pixels.
        Exception: An error of any kind, if PIL cannot decode it.
    """
    n_pixels = image.width * image.height
    if n_pixels > REDUCED_PIXELS:
        _reduce(image, n_pixels)
    image = upright(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).clip(0, 65535) // 257
        image = Image.fromarray(values.astype(np.uint8))
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
        scale = 257 if values.max() > 255 else 1
        image = Image.fromarray((values / scale).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """An image as people see it: turned or mirrored as its EXIF orientation says.

    Cameras store pixels as the sensor lies and note how it was held; of PIL's formats only TIFF is
    turned when it is loaded. What is damaged in EXIF data is as if it were not there.

    Args:
        image: An image of any mode; a file that PIL has opened need not be loaded yet.

    Returns:
        An image without an orientation, so that nothing is turned twice.

    Raises:
        Exception: An error of any kind, if PIL cannot decode it.
    """
    image.load()
    # Not ImageOps.exif_transpose, which writes the EXIF data anew and fails where it cannot.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    for name in _WITH_ORIENTATION:
        turned.info.pop(name, None)
    return turned


def _reduce(image: Image.Image, n_pixels: int) -> None:
    """Let a JPEG decoder leave out what is too much, in place."""
    # All coefficients of a progressive JPEG are held in memory, whatever the scale.
    is_read_in_part = isinstance(image, JpegImageFile) and "progressive" not in image.info
    if n_pixels > MAX_PIXELS and not is_read_in_part:
        raise Image.DecompressionBombError(
            f"{image.width} × {image.height} pixels, more than {MAX_PIXELS}, are not decoded"
        )
    if isinstance(image, JpegImageFile):
        # An eighth of the largest that the format has a number for is small enough.
        fitting = (r for r in _REDUCTIONS if n_pixels <= REDUCED_PIXELS * r**2)
        reduction = next(fitting, _REDUCTIONS[-1])
        image.draft("RGB", (image.width // reduction, image.height // reduction))


def require_number(number: int, n_images: int, source: str) -> int:
    """Resolve a sequence index.

    Raises:
        IndexError: For a number outside the collection.
    """
    if not -n_images <= number < n_images:
        raise IndexError(f"{source}: image {number} of {n_images}")
    return number % n_images
