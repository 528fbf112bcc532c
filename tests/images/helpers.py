"""Encoded images of every kind, and zip shards made without the package's own writers."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat_jpeg(value: int) -> bytes:
    return encoded(Image.new("RGB", (16, 16), (value, value, value)))


def write_shard(root: Path, folder: str, name: str, images: dict[str, bytes]) -> Path:
    path = root / folder / f"{name}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file, content in images.items():
            archive.writestr(file, content)
    return path


def value_of(loaded) -> int:
    """The gray value of a flat image."""
    return loaded.image.getpixel((8, 8))[0]


def is_blank(loaded) -> bool:
    image = loaded.image
    return (image.mode, image.size, image.getextrema()) == ("RGB", (256, 256), ((0, 0),) * 3)


def open_files(folder: Path) -> list[str]:
    """Files below a folder that this process has open."""
    links = Path("/proc/self/fd")
    targets = []
    for link in links.iterdir():
        try:
            targets.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return sorted(target for target in targets if target.startswith(str(folder)))


BLUE, GREEN, GRAY = (10, 20, 200), (10, 200, 20), (77, 77, 77)
SIZE = (30, 20)


def _flat(mode: str, color) -> Image.Image:
    return Image.new(mode, SIZE, color)


def _wide(dtype: str, value: float) -> Image.Image:
    return Image.fromarray(np.full((20, 30), value, dtype=dtype))


def _animated(kind: str) -> bytes:
    frames = [_flat("RGB", GREEN), _flat("RGB", (250, 0, 0))]
    return encoded(_flat("RGB", BLUE), kind, save_all=True, append_images=frames, duration=50)


def _palette_with_transparency() -> bytes:
    image = _flat("RGB", BLUE).quantize(4)
    image.putpixel((0, 0), 3)
    return encoded(image, "PNG", transparency=bytes([255, 128, 64, 0]))


def _with_damaged_exif() -> bytes:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\xff\x7f"
    return encoded(_flat("RGB", BLUE), "JPEG", exif=exif)


NOISE = Image.effect_noise((64, 64), 80)


def half(kind: str) -> bytes:
    content = encoded(NOISE if kind == "GIF" else NOISE.convert("RGB"), kind)
    return content[: len(content) // 2]


# Content of a file → its colour.
READABLE = {
    "rgb": (encoded(_flat("RGB", BLUE), "PNG"), BLUE),
    "jpeg": (encoded(_flat("RGB", BLUE)), BLUE),
    "progressive jpeg": (encoded(_flat("RGB", BLUE), progressive=True), BLUE),
    "grayscale": (encoded(_flat("L", 77)), GRAY),
    "black and white": (encoded(_flat("1", 1), "PNG"), (255, 255, 255)),
    "palette": (encoded(_flat("RGB", BLUE).quantize(4), "PNG"), BLUE),
    "palette with transparency": (_palette_with_transparency(), BLUE),
    "rgba": (encoded(_flat("RGBA", (*BLUE, 255)), "PNG"), BLUE),
    "gray with alpha": (encoded(_flat("LA", (77, 255)), "PNG"), GRAY),
    # No ink but the black one, of which half: a middle gray.
    "cmyk": (encoded(_flat("CMYK", (0, 0, 0, 128))), (127, 127, 127)),
    "ycbcr": (encoded(_flat("RGB", BLUE).convert("YCbCr"), "TIFF"), BLUE),
    "gif": (encoded(_flat("RGB", BLUE).quantize(4), "GIF"), BLUE),
    "animated gif": (_animated("GIF"), BLUE),
    "animated png": (_animated("PNG"), BLUE),
    "animated webp": (_animated("WEBP"), BLUE),
    "two images in one jpeg": (_animated("MPO"), BLUE),
    "16 bits": (encoded(_wide("uint16", 77 * 257), "PNG"), GRAY),
    "16 bits big-endian": (encoded(_wide("uint16", 77 * 257), "PPM"), GRAY),
    "16 bits in 32": (encoded(_wide("int32", 77 * 257), "TIFF"), GRAY),
    "16 bits in floating-point numbers": (encoded(_wide("float32", 77 * 257), "TIFF"), GRAY),
    "8 bits in floating-point numbers": (encoded(_wide("float32", 77), "TIFF"), GRAY),
    "damaged EXIF": (_with_damaged_exif(), BLUE),
}

# Content of a file → what is said of it.
BROKEN = {
    "empty": (b"", "UnidentifiedImageError: cannot identify image file"),
    "a web page": (b"<html>404</html>", "UnidentifiedImageError: cannot identify image file"),
    "two bytes": (encoded(NOISE)[:2], "UnidentifiedImageError"),
    "only a header": (encoded(NOISE)[:300], "Error"),
    "half a JPEG": (half("JPEG"), "OSError: image file is truncated"),
    "half a PNG": (half("PNG"), "OSError: image file is truncated"),
    "half a GIF": (half("GIF"), "OSError: image file is truncated"),
    "half a WebP": (half("WEBP"), "Error"),
    "half a TIFF": (half("TIFF"), "OSError: image file is truncated"),
    "huge": (
        encoded(Image.new("1", (12_000, 12_000)), "PNG"),
        "DecompressionBombError: 12000 × 12000 pixels, more than 134217728",
    ),
}


# An image whose corners tell how it was turned: red and green above, blue and gray below.
CORNERS = np.full((64, 96, 3), 128, np.uint8)
CORNERS[:32, :48], CORNERS[:32, 48:], CORNERS[32:, :48] = (250, 0, 0), (0, 250, 0), (0, 0, 250)

# Where EXIF says that the 0th row and the 0th column of what is stored are seen.
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored(orientation: int) -> Image.Image:
    """CORNERS as a camera would store it with this orientation."""
    row, column = ORIENTATIONS[orientation]
    pixels = CORNERS
    if "bottom" in (row, column):
        pixels = pixels[::-1]
    if "right" in (row, column):
        pixels = pixels[:, ::-1]
    # The 0th row is now at the top, or at the left if rows are seen as columns.
    if row in ("left", "right"):
        pixels = pixels.transpose(1, 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels))


def oriented(orientation: int, kind: str = "JPEG", mode: str = "RGB", **options) -> bytes:
    """CORNERS in a file that says how it is stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = stored(orientation).convert(mode)
    if kind == "TIFF":
        return encoded(image, kind, tiffinfo={0x0112: orientation}, **options)
    return encoded(image, kind, exif=exif.tobytes(), **options)


def shows_corners(image: Image.Image) -> bool:
    """Whether an image is CORNERS, but for what compression has changed."""
    found = np.asarray(image.convert("RGB")).astype(int)
    if found.shape != CORNERS.shape:
        return False
    # In the middle of each quarter.
    places = np.s_[16::32, 24::48]
    return bool(np.abs(found[places] - CORNERS[places].astype(int)).max() <= 12)
