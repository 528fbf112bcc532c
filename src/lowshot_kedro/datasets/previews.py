"""How people see data in kedro-viz and Jupyter: rounded numbers, images with captions."""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from kedro.utils import find_kedro_project
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.fonts import drawable, font_file
from lowshot_kedro.images import ImageSource, LoadedImage

_SIGNIFICANT_DIGITS = 4

# Beside the pipeline kedro-viz squeezes a sheet into a field of 460 × 300 pixels.
_COLUMNS, _ROWS = 5, 3
_WIDTH, _HEIGHT, _MARGIN = 150, 128, 2  # of an image's place
_TITLE, _CAPTION, _FONT_SIZE = 30, 28, 18


def shown_path(path: str | Path) -> str:
    """A path as people write it: relative to the project, where it lies there."""
    project = find_kedro_project(Path.cwd())
    absolute = Path(path).absolute()
    if project is None or not absolute.is_relative_to(project):
        return str(path)
    return str(absolute.relative_to(project))


def rounded(value: Any) -> Any:
    """Numbers with four significant digits, in whatever lists and dictionaries hold them.

    What JSON has no word for becomes text; so does null, for which kedro-viz draws an empty box.
    """
    if isinstance(value, Mapping):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else str(value)
    return "null" if value is None else value


def table_cell(value: Any) -> Any:
    """A number rounded; nothing where there is none."""
    return "" if value is None or value != value else rounded(value)


class RoundedPreview:
    """A preview method of another dataset, its numbers rounded.

    It can be sent to other processes, as a function in a function cannot.

    Args:
        preview: The method. kedro-viz decides by its return annotation how to draw what it returns,
            so that is seen here too.
    """

    def __init__(self, preview: Callable[..., Any]) -> None:
        self._preview = preview
        self.__signature__ = inspect.signature(preview)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the method returns, its numbers rounded."""
        found = self._preview(*args, **kwargs)
        annotation = self.__signature__.return_annotation
        kind = getattr(annotation, "__name__", str(annotation))
        if kind == "JSONPreview":
            return json.dumps(rounded(json.loads(found)))
        if kind == "TablePreview":
            return {**found, "data": [[table_cell(cell) for cell in row] for row in found["data"]]}
        return found


def contact_sheet(
    source: ImageSource, class_name: Callable[[int], str] | None, title: str
) -> Image.Image:
    """Images from all over a collection side by side, below a line of text.

    Args:
        source: The collection.
        class_name: What the class of a label is called, for the captions, which begin with the
            image's number. None: labels say nothing.
        title: The line, to which is added how many of the images are shown, if not all.
    """
    n_images = min(len(source), _COLUMNS * _ROWS)
    n_rows = -(-n_images // _COLUMNS)
    size = (_COLUMNS * _WIDTH, _TITLE + n_rows * (_HEIGHT + _CAPTION))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = _font(font_file(""))
    if n_images < len(source):
        title += f", {n_images} of them"
    draw.text((2 * _MARGIN, _MARGIN), title, fill="black", font=font)
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    for place, number in enumerate(map(int, spread_rows(len(source), n_images))):
        loaded = source[number]
        row, column = divmod(place, _COLUMNS)
        left, top = column * _WIDTH + _MARGIN, _TITLE + row * (_HEIGHT + _CAPTION) + _MARGIN
        image = ImageOps.contain(loaded.image, (width, height))
        sheet.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        caption = drawable(f"{number}{_said_of(loaded, class_name)}")
        of_caption = _font(font_file(caption))
        middle = (left + width // 2, top + height + _MARGIN)
        text = _fitting(caption, of_caption)
        draw.text(middle, text, fill="black", font=of_caption, anchor="ma")
    return sheet


def _said_of(loaded: LoadedImage, class_name: Callable[[int], str] | None) -> str:
    if loaded.problem:
        return ": blank"
    return "" if class_name is None else f": {class_name(loaded.label)}"


def _fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """As much of a caption as fits below an image."""
    width = _WIDTH - 4 * _MARGIN
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


@functools.cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), _FONT_SIZE)
