"""The lists of images that a page shows, and how they are cut into pages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.labeling.parameters import LabelingParameters

# Tiles that a browser has to lay out at a time.
_PAGE_TILES = 200
_GLANCED_AT = 6  # of the most certain images of a class, and of the least certain ones
# Of a collection that is too large to be looked at as a whole.
MAX_LISTED = 10_000
_MAX_OF_CLASS = 300


class View(NamedTuple):
    """A list of images that the page can show.

    Attributes:
        name: What its files and its address are called.
        title: For people.
        text: What it shows, in a sentence or two.
        nodes: int32 (m,), the images.
        total: How many there would be, if the page had room for all.
        extra: What else is said of the image at a position.
        groups: Where groups of images begin, and what they are called; None: there are none.
    """

    name: str
    title: str
    text: str
    nodes: NDArray[np.int32]
    total: int
    extra: Callable[[int], dict[str, Any]] | None = None
    groups: Sequence[tuple[int, str]] | None = None

    def pages(self) -> list[tuple[int, int]]:
        """The first position of each page, and that behind its last one."""
        if self.groups is None:
            return list(row_ranges(len(self.nodes), _PAGE_TILES))
        ends = [start for start, _ in self.groups[1:]] + [len(self.nodes)]
        pages: list[tuple[int, int]] = []
        first = last = 0
        for end in ends:
            if end - first > _PAGE_TILES and last > first:
                pages.append((first, last))
                first = last
            for _ in range((end - first - 1) // _PAGE_TILES):
                pages.append((first, first + _PAGE_TILES))
                first += _PAGE_TILES
            last = end
        return [*pages, (first, last)] if last > first else pages


def views_of(
    labeling: Labeling,
    next_images: NextImages,
    suspicious: SuspiciousLabels,
    duplicates: Duplicates,
    parameters: LabelingParameters,
) -> Iterator[View]:
    """The lists that a page has, but for images that cannot be read; those of the classes last."""
    n_images = len(labeling.labels)
    is_whole = n_images <= parameters.page_images
    max_listed = n_images if is_whole else MAX_LISTED
    classes = labeling.given.classes
    order, starts = _by_class(labeling)

    glance = _Glance(labeling, order, starts)
    yield View(
        "glance",
        "Classes at a glance",
        f"Of every class the {_GLANCED_AT} images whose label is most certain, then the "
        f"{_GLANCED_AT} whose label is least certain, without those that have a given label.",
        glance.nodes,
        len(glance.nodes),
        groups=glance.groups,
    )
    yield View(
        "next",
        "What to label next",
        f"Labels of these images would help most. {next_images.rule}",
        next_images.nodes[:max_listed],
        len(next_images.nodes),
    )
    yield View(
        "suspicious",
        "Suspicious given labels",
        f"Given labels that are perhaps wrong, the most suspicious first; one that you say is "
        f"right, by Space, is not listed again. {suspicious.rule}",
        suspicious.nodes[:max_listed],
        len(suspicious.nodes),
        lambda position: {
            "suggested": int(suspicious.suggested[position]),
            "suspicion": round(float(suspicious.suspicion[position]), 4),
        },
    )
    unknown = np.flatnonzero(labeling.is_unknown)
    unknown = unknown[np.argsort(-labeling.confidence[unknown], kind="stable")]
    yield View(
        "unknown",
        f"Too uncertain: {parameters.unknown}",
        f"Their label is written as {parameters.unknown}, since its confidence is below "
        "the threshold; what is shown is the best guess. Those nearest to the threshold come "
        "first.",
        unknown[:max_listed].astype(np.int32),
        len(unknown),
    )
    unreached = np.setdiff1d(np.flatnonzero(labeling.labels < 0), labeling.broken)
    yield View(
        "unreached",
        "Reached by no label",
        "No link leads from a labelled image to these: label one of them, and look again.",
        unreached[:max_listed].astype(np.int32),
        len(unreached),
    )
    listed = duplicates.nodes[:max_listed]
    numbers = duplicates.groups[:max_listed]
    begins = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
    yield View(
        "duplicates",
        "Duplicates and look-alikes",
        "Images that look the same or nearly so, in groups, the most similar first: each has a "
        f"cosine of at least {parameters.min_duplicate_similarity:g} with another one of them.",
        listed,
        len(duplicates.nodes),
        lambda position: {"similarity": round(float(duplicates.similarity[position]), 4)},
        [(start, f"Group {place}") for place, start in enumerate(begins, start=1)],
    )
    max_ends = parameters.page_images // max(2 * len(classes), 1)
    max_ends = min(max(max_ends, _GLANCED_AT), _MAX_OF_CLASS)
    for number, name in enumerate(classes):
        members = order[starts[number] : starts[number + 1]]
        total, text = len(members), ""
        if not is_whole and total > 2 * max_ends:
            members = np.concatenate([members[:max_ends], members[-max_ends:]])
            text = (
                f"Of {total} images the {max_ends} most certain and the {max_ends} least "
                "certain ones: there are too many for this page."
            )
        yield View(f"class-{number}", name, text, members, total)


def view_of_broken(broken: Collection[int]) -> View:
    """The list of images that cannot be read, by their numbers."""
    numbers = np.array(sorted(broken), np.int32)
    return View(
        "broken",
        "Images that cannot be read",
        "They get no label, and a label that is given for one of them teaches nothing.",
        numbers[:MAX_LISTED],
        len(numbers),
    )


class _Glance:
    """The most and the least certain images of every class, without those with a given label."""

    def __init__(
        self, labeling: Labeling, order: NDArray[np.int32], starts: NDArray[np.integer]
    ) -> None:
        nodes: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        self.groups: list[tuple[int, str]] = []
        n_nodes = 0
        for number, name in enumerate(labeling.given.classes):
            members = order[starts[number] : starts[number + 1]]
            # Given labels are the most certain ones.
            others = members[np.searchsorted(labeling.given.labels[members] < 0, True) :]
            if len(others) > 2 * _GLANCED_AT:
                others = np.concatenate([others[:_GLANCED_AT], others[-_GLANCED_AT:]])
            if len(others):
                self.groups.append((n_nodes, name))
                nodes.append(others)
                n_nodes += len(others)
        self.nodes = np.concatenate(nodes)


def _by_class(labeling: Labeling) -> tuple[NDArray[np.int32], NDArray[np.integer]]:
    """Images by class, the most certain first, given ones before all; where each class begins."""
    reached = np.flatnonzero(labeling.labels >= 0).astype(np.int32)
    is_predicted = labeling.given.labels[reached] < 0
    order = np.lexsort((-labeling.confidence[reached], is_predicted, labeling.labels[reached]))
    members = reached[order]
    starts = np.searchsorted(labeling.labels[members], np.arange(labeling.given.n_classes + 1))
    return members, starts
