"""Encoded pictures and zip shards made without the package's own writers."""

import io
import zipfile
from pathlib import Path

from PIL import Image


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def flat_jpeg(value: int) -> bytes:
    return encoded(Image.new("RGB", (16, 16), (value, value, value)))


def write_shard(root: Path, folder: str, name: str, pictures: dict[str, bytes]) -> Path:
    path = root / folder / f"{name}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file, content in pictures.items():
            archive.writestr(file, content)
    return path


def value_of(picture) -> int:
    """The gray value of a flat picture."""
    return picture.image.getpixel((8, 8))[0]
