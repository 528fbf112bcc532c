"""Fonts for the names of classes, which people write in all letters of the world."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from lowshot_kedro.extras import needed_by

with needed_by(__name__):
    import matplotlib
    from matplotlib.font_manager import FontEntry, fontManager
    from matplotlib.ft2font import FT2Font

logger = logging.getLogger(__name__)

# It comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more.
USUAL = "DejaVu Sans"
_USUAL_FILE = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_PLACEHOLDER = "\N{WHITE SQUARE}"


def font_families(texts: Iterable[str]) -> list[str]:
    """Families that together have the letters of texts, as far as installed fonts have them.

    Args:
        texts: Texts that will be drawn.

    Returns:
        The usual family, and behind it those that have what it lacks.
    """
    return [USUAL, *(entry.name for entry in _others(_letters(texts)))]


def font_file(text: str) -> Path:
    """The installed font file that has most letters of a text; the usual one if it has as many."""
    candidates = [_USUAL_FILE, *(Path(entry.fname) for entry in _others(_letters([text])))]
    letters = _letters([text])
    return max(candidates, key=lambda path: len(letters & _letters_of(str(path))))


def drawable(text: str) -> str:
    """A text with a square in the place of each letter that no installed font has."""
    known = _letters_of(str(_USUAL_FILE)).union(
        *(_letters_of(entry.fname) for entry in _others(_letters([text])))
    )
    return "".join(
        letter if letter.isspace() or letter in known else _PLACEHOLDER for letter in text
    )


def _letters(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(letter for text in texts for letter in text if not letter.isspace())


@cache
def _others(letters: frozenset[str]) -> tuple[FontEntry, ...]:
    """Installed fonts that have what the usual one lacks, few of them."""
    missing = letters - _letters_of(str(_USUAL_FILE))
    found = []
    for entry in _installed() if missing else ():
        has = missing & _letters_of(entry.fname)
        if has:
            found.append(entry)
            missing -= has
        if not missing:
            break
    if missing:
        logger.info(
            "no installed font has %s, drawn as %s; Noto Sans, for instance, has all letters",
            "".join(sorted(missing)),
            _PLACEHOLDER,
        )
    return tuple(found)


def _installed() -> Iterator[FontEntry]:
    """Upright fonts of usual weight, in the same order on the same machine."""
    upright = (entry for entry in fontManager.ttflist if entry.style == "normal")
    return iter(sorted(upright, key=lambda entry: (entry.weight != 400, entry.name, entry.fname)))


@cache
def _letters_of(path: str) -> frozenset[str]:
    """What letters a font file has; none of one that cannot be read."""
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
