"""How tables and plots call the methods of a sweep and their unlabelled images, and their order."""

from __future__ import annotations

import math

import pandas as pd

from lowshot_kedro.methods import METHODS
from lowshot_kedro.sweep import UnlabeledImages

_KINDS = ("background", "train", "both")
_SIZES = ((1_000_000, "M"), (1_000, "k"))


# How tables call the number of labelled images where all that are given are used.
ALL_LABELED = "all"


def for_reading(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy to calculate with, whether it was written as a CSV file and read back or not.

    The column `unlabeled` is text, where a CSV file has nothing for ""; `n_labeled` is numbers,
    infinity for all.
    """
    n_labeled = [
        math.inf if number == ALL_LABELED else int(number) for number in frame["n_labeled"]
    ]
    unlabeled = frame["unlabeled"].astype(object).fillna("")
    return frame.assign(unlabeled=unlabeled, n_labeled=n_labeled)


def labeled_name(n_labeled: float) -> str:
    """`n=2`, `n=all`: labelled images of every novel class."""
    return f"n={ALL_LABELED if math.isinf(n_labeled) else int(n_labeled)}"


def parse_unlabeled(unlabeled: str) -> UnlabeledImages | None:
    """The inverse of :attr:`UnlabeledImages.name`; "" gives None."""
    if not unlabeled:
        return None
    if unlabeled == "train":
        return UnlabeledImages("train", None)
    number = unlabeled.removeprefix("nbg").removesuffix("_train")
    kind = "both" if unlabeled.endswith("_train") else "background"
    return UnlabeledImages(kind, None if number == "all" else int(number))


def unlabeled_rank(unlabeled: str) -> tuple[int, float]:
    """A key for sorting: none, background, training images, both; each by number, all at last."""
    images = parse_unlabeled(unlabeled)
    if images is None:
        return (-1, 0)
    number = math.inf if images.n_background is None else images.n_background
    return (_KINDS.index(images.kind), number)


def unlabeled_size(unlabeled: str) -> tuple[int, float]:
    """A key for the largest: a background before one with training images, these alone last."""
    kind, number = unlabeled_rank(unlabeled)
    preferred = (-1, _KINDS.index("train"), _KINDS.index("both"), _KINDS.index("background"))
    return (preferred.index(kind), number)


def method_rank(method: str, unlabeled: str = "") -> tuple[int, tuple[int, float]]:
    """A key for sorting: the order of the methods, then that of the unlabelled images."""
    return (list(METHODS).index(method), unlabeled_rank(unlabeled))


def count_name(number: int) -> str:
    """`1000000` → `1M`, `100000` → `100k`, `1797` → `1797`."""
    for size, letter in _SIZES:
        if number and number % size == 0:
            return f"{number // size}{letter}"
    return str(number)


def unlabeled_name(unlabeled: str, n_background: float = math.nan) -> str:
    """`1M background`, `no background`, `training images`.

    Args:
        unlabeled: A name such as :attr:`UnlabeledImages.name` gives.
        n_background: How many images all of the background are, where that is known.
    """
    images = parse_unlabeled(unlabeled)
    if images is None:
        return ""
    if images.kind == "train":
        return "training images"
    if images.n_background is None:
        known = "" if math.isnan(n_background) else f" {count_name(int(n_background))}"
        background = f"all{known} background"
    else:
        number = count_name(images.n_background) if images.n_background else "no"
        background = f"{number} background"
    return f"{background} + training images" if images.kind == "both" else background


def method_name(method: str, unlabeled: str, n_background: float = math.nan) -> str:
    """`logistic regression`, `diffusion, 1M background`."""
    images = unlabeled_name(unlabeled, n_background)
    title = METHODS[method].title
    return f"{title}, {images}" if images else title
