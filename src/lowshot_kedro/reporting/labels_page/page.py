"""A page in files: labels.html, and beside it a folder of chunks of data, thumbnails and plots."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as files_of_package
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.images.fingerprint import checksum
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.labeling.parameters import LabelingParameters
from lowshot_kedro.reporting.labels_page.thumbnails import (
    UNFINISHED,
    Thumbnails,
    remove_other_thumbnails,
    write_thumbnails,
)

# Tiles that a browser has to lay out at a time.
_PAGE_TILES = 200
_GIVEN_ROWS = 5000
_GLANCED_AT = 6  # of the most certain images of a class, and of the least certain ones
# Of a collection that is too large to be looked at as a whole.
_MAX_LISTED = 10_000
_MAX_OF_CLASS = 300
_IS_UNKNOWN, _IS_FILE = 1, 2
_INSTRUCTION = "Put the saved labels.csv into the folder of the images, and label again."

_PLOTS = {
    "reliability": "Reliability of the confidence",
    "confusion": "Confusion of classes",
    "map": "Map of all images",
}


class _View(NamedTuple):
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


@dataclass(frozen=True)
class LabelsPage:
    """Labels of all images, to be looked at and corrected in a browser, without any server.

    Attributes:
        images: The N images, those of the training set first.
        labeling: Their labels.
        next_images: What to label next.
        suspicious: Given labels that are probably wrong.
        duplicates: Images that look the same.
        broken: Numbers of images that cannot be read, and why.
        plots: PNG files, or their content, by name: reliability, confusion, map or any other.
        parameters: Of labelling.
        title: The heading; "": named after the folder of the images.
        instruction: One line: what to do with the file of labels that the page saves.
    """

    images: JoinedImages
    labeling: Labeling
    next_images: NextImages
    suspicious: SuspiciousLabels
    duplicates: Duplicates
    broken: Sequence[tuple[int, str]]
    plots: Mapping[str, Path | bytes]
    parameters: LabelingParameters
    title: str = ""
    instruction: str = _INSTRUCTION

    def write(self, path: Path) -> None:
        """Write the page, and beside it a folder for what it loads: labels_files for labels.html.

        The page takes the place of an older one when all that it loads is there, and finds what it
        loads by a checksum. So it is the older one or the new one that a browser opens, whenever
        this is killed. In memory are, besides the labels, the names of the thumbnails, and what one
        page of images says.

        Args:
            path: The page.

        Raises:
            OSError: If something cannot be written.
        """
        folder = path.with_name(f"{path.stem}_files")
        folder.mkdir(parents=True, exist_ok=True)
        broken = dict(self.broken)
        views = list(self._views())
        shown = np.unique(np.concatenate([view.nodes for view in views]))
        readable = shown[~np.isin(shown, list(broken))]
        thumbnails = write_thumbnails(
            self.images, readable, folder / "thumbnails", self.parameters.thumbnail_size
        )
        broken |= thumbnails.problems
        n_lists = len(views) - self.labeling.given.n_classes
        views.insert(n_lists, self._broken_view(broken))

        data = _Chunks(folder)
        said = _Records(self, thumbnails, broken, path.parent)
        pages = []
        for view in views:
            ranges = view.pages()
            for page, (first, last) in enumerate(ranges):
                data.write(f"{view.name}/{page}", _page_content(view, said, first, last))
            pages.append(len(ranges))
        n_given = 0
        for rows in self._given():
            data.write(f"given/{n_given}", rows)
            n_given += 1
        plots = [self._plot(name, content, data) for name, content in self.plots.items()]
        data_folder = data.finish()

        summary = {
            "key": self._key(),
            "data": f"{quote(folder.name)}/{data_folder.name}",
            "thumbnails": f"{quote(folder.name)}/thumbnails",
            "base": said.base,
            "thumbnailSize": self.parameters.thumbnail_size,
            "title": self._title(),
            "instruction": self.instruction,
            "unknown": self.parameters.unknown,
            "classes": self.labeling.given.classes,
            "hasGroups": self.labeling.given.groups is not None,
            "views": [
                {
                    "name": view.name,
                    "title": view.title,
                    "text": view.text,
                    "n": len(view.nodes),
                    "total": view.total,
                    "pages": n_pages,
                }
                for view, n_pages in zip(views, pages, strict=True)
            ],
            "givenFiles": n_given,
            "plots": plots,
            **self._head(len(broken)),
        }
        _write_html(path, summary)
        for entry in folder.iterdir():
            if entry.name.startswith((_DATA, UNFINISHED)) and entry != data_folder:
                shutil.rmtree(entry)
        remove_other_thumbnails(folder / "thumbnails", thumbnails.names.values())

    def _views(self) -> Iterator[_View]:
        labeling, n_images = self.labeling, len(self.images)
        is_whole = n_images <= self.parameters.page_images
        max_listed = n_images if is_whole else _MAX_LISTED
        classes = labeling.given.classes
        order, starts = _by_class(labeling)

        glance = _Glance(labeling, order, starts)
        yield _View(
            "glance",
            "Classes at a glance",
            f"Of every class the {_GLANCED_AT} images whose label is most certain, then the "
            f"{_GLANCED_AT} whose label is least certain, without those that have a given label.",
            glance.nodes,
            len(glance.nodes),
            groups=glance.groups,
        )
        yield _View(
            "next",
            "What to label next",
            f"Labels of these images would help most. {self.next_images.rule}",
            self.next_images.nodes[:max_listed],
            len(self.next_images.nodes),
        )
        suspicious = self.suspicious
        yield _View(
            "suspicious",
            "Suspicious given labels",
            f"Given labels that are perhaps wrong, the most suspicious first. {suspicious.rule}",
            suspicious.nodes[:max_listed],
            len(suspicious.nodes),
            lambda position: {
                "suggested": int(suspicious.suggested[position]),
                "suspicion": round(float(suspicious.suspicion[position]), 4),
            },
        )
        unknown = np.flatnonzero(labeling.is_unknown)
        unknown = unknown[np.argsort(-labeling.confidence[unknown], kind="stable")]
        yield _View(
            "unknown",
            f"Too uncertain: {self.parameters.unknown}",
            f"Their label is written as {self.parameters.unknown}, since its confidence is below "
            "the threshold; what is shown is the best guess. Those nearest to the threshold come "
            "first.",
            unknown[:max_listed].astype(np.int32),
            len(unknown),
        )
        unreached = np.flatnonzero(labeling.labels < 0)
        yield _View(
            "unreached",
            "Reached by no label",
            "No link leads from a labelled image to these: label one of them, and look again.",
            unreached[:max_listed].astype(np.int32),
            len(unreached),
        )
        duplicates = self.duplicates
        listed = duplicates.nodes[:max_listed]
        numbers = duplicates.groups[:max_listed]
        begins = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        yield _View(
            "duplicates",
            "Duplicates",
            f"Images that look the same, in groups: each has a cosine of at least "
            f"{self.parameters.min_duplicate_similarity:g} with another one of its group.",
            listed,
            len(duplicates.nodes),
            lambda position: {"similarity": round(float(duplicates.similarity[position]), 4)},
            [(start, f"Group {place}") for place, start in enumerate(begins, start=1)],
        )
        max_ends = self.parameters.page_images // max(2 * len(classes), 1)
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
            yield _View(f"class-{number}", name, text, members, total)

    def _broken_view(self, broken: Mapping[int, str]) -> _View:
        numbers = np.array(sorted(broken), np.int32)
        return _View(
            "broken",
            "Images that cannot be read",
            "Their labels are worthless.",
            numbers[:_MAX_LISTED],
            len(numbers),
        )

    def _given(self) -> Iterator[list[list[Any]]]:
        """Rows of the file of labels, in chunks: file, class or -1, whether it stays, group."""
        given = self.labeling.given
        # An image of the training set without a label had one, which a file of labels took away.
        n_first = len(self.images.sources[0]) if len(self.images.sources) > 1 else 0
        is_row = given.labels >= 0
        is_row[:n_first] = True
        if given.groups is not None:
            is_row |= given.groups >= 0
        numbers = np.flatnonzero(is_row)
        for first, last in row_ranges(len(numbers), _GIVEN_ROWS):
            yield [
                [
                    self.images.file(number),
                    int(given.labels[number]),
                    int(number < n_first),
                    _group_of(given, number),
                ]
                for number in numbers[first:last].tolist()
            ]

    def _plot(self, name: str, content: Path | bytes, data: _Chunks) -> dict[str, Any]:
        content = content if isinstance(content, bytes) else content.read_bytes()
        # Width and height are in the first chunk of every PNG file, big-endian.
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
        file = re.sub(r"[^\w-]", "_", name, flags=re.ASCII) + ".png"
        data.add(f"plots/{file}", content)
        title = _PLOTS.get(name, name.replace("_", " "))
        return {"title": title, "file": f"plots/{file}", "width": width, "height": height}

    def _key(self) -> str:
        """What tells these images from others, in whatever folder the page is opened."""
        if self.images.base is not None:
            facts = str(self.images.base.absolute())
        else:
            facts = repr([source.describe() for source in self.images.sources])
        return f"lowshot labels {checksum([facts.encode('utf-8', 'surrogatepass')])}"

    def _title(self) -> str:
        base = self.images.base
        return self.title or (f"Labels of {base.absolute().name}" if base else "Labels of images")

    def _head(self, n_broken: int) -> dict[str, Any]:
        """What was done, as the report says it."""
        report, labeling = self.labeling.report, self.labeling
        n_unknown = int(labeling.is_unknown.sum())
        n_unreached = int((labeling.labels < 0).sum())
        facts = [
            ["images", len(self.images)],
            ["labels given", len(labeling.given.nodes)],
            ["classes", labeling.given.n_classes],
        ]
        facts += [
            [what, number]
            for what, number in (
                (self.parameters.unknown, n_unknown),
                ("unreached", n_unreached),
                ("broken", n_broken),
            )
            if number
        ]
        notes = [*labeling.given.notes]
        notes += [note for note in report.get("notes", ()) if note not in notes]
        if len(self.images) > self.parameters.page_images:
            notes.append(
                f"{len(self.images)} images are more than the {self.parameters.page_images} that "
                "can be looked at here: of every class the most and the least certain ones can, "
                f"and those in the lists, up to {_MAX_LISTED} each. labels.csv has all."
            )
        return {
            "facts": facts,
            "method": str(report.get("method", "")).replace("_", " "),
            "reason": report.get("reason", ""),
            "calibration": report.get("calibration_sentence") or "",
            "threshold": report.get("threshold_sentence") or "",
            "isCalibrated": bool(report.get("is_calibrated", False)),
            "notes": notes,
            "methods": [
                [name.replace("_", " "), of.get("accuracy"), of.get("error")]
                for name, of in (report.get("methods") or {}).items()
            ],
            "reliability": [
                [bin_.get(name) for name in ("lower", "upper", "n", "confidence", "accuracy")]
                for bin_ in report.get("reliability") or ()
            ],
            "classRows": [
                [of.get(name) for name in ("n_given", "n_labels", "recall")]
                for of in report.get("classes") or ()
            ],
        }


class _Records:
    """What a tile says of an image.

    Args:
        page: What is shown.
        thumbnails: The small copies.
        broken: What is wrong with images.
        folder: Where the page is.

    Attributes:
        base: What stands before a file's name in a link from the page, with a slash; "" for images
            that are no files, or names that are absolute.
    """

    def __init__(
        self, page: LabelsPage, thumbnails: Thumbnails, broken: Mapping[int, str], folder: Path
    ) -> None:
        self._page, self._thumbnails, self._broken = page, thumbnails, broken
        base = page.images.base
        self.base = "" if base is None else _link(base.absolute(), folder.absolute()) + "/"

    def record(self, number: int, extra: Mapping[str, Any]) -> list[Any]:
        """A file, its label, its confidence and so on, as page.js takes them."""
        page, labeling = self._page, self._page.labeling
        flags = _IS_UNKNOWN if labeling.is_unknown[number] else 0
        flags |= 0 if page.images.path(number) is None else _IS_FILE
        more = dict(extra)
        if number in self._broken:
            more["problem"] = self._broken[number]
        group = _group_of(labeling.given, number)
        if group:
            more["group"] = group
        return [
            page.images.file(number),
            int(labeling.labels[number]),
            round(float(labeling.confidence[number]), 4),
            int(labeling.second[number]),
            round(float(labeling.confidence[number] - labeling.margin[number]), 4),
            int(labeling.given.labels[number]),
            int(labeling.n_steps[number]),
            self._thumbnails.names.get(number, ""),
            flags,
            *([more] if more else []),
        ]


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


_DATA = "data-"


class _Chunks:
    """Files that a page loads, in a folder that gets its name from their content.

    Args:
        folder: Where that folder will be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfinished = folder / f"{UNFINISHED}data"
        self._digest = hashlib.blake2b(digest_size=16)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._unfinished.mkdir()

    def add(self, name: str, content: bytes) -> None:
        """Write a file; its name may have a folder."""
        path = self._unfinished / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        for part in (name.encode(), content):
            self._digest.update(len(part).to_bytes(8, "little"))
            self._digest.update(part)

    def write(self, name: str, content: Any) -> None:
        """Write a script that hands something to the page: a page from a file may load no other."""
        text = f"lowshotChunk({json.dumps(name)},{_json(content)});\n"
        self.add(f"{name}.js", text.encode("ascii"))

    def finish(self) -> Path:
        """Give the folder its name, and return it."""
        path = self._folder / f"{_DATA}{self._digest.hexdigest()}"
        if path.exists():
            shutil.rmtree(self._unfinished)
        else:
            self._unfinished.replace(path)
        return path


def _page_content(view: _View, said: _Records, first: int, last: int) -> dict[str, Any]:
    records = [
        said.record(int(view.nodes[position]), view.extra(position) if view.extra else {})
        for position in range(first, last)
    ]
    if view.groups is None:
        return {"records": records}
    # A group that began on an earlier page has its heading here too.
    before = [title for start, title in view.groups if start <= first][-1:]
    inside = [[start - first, title] for start, title in view.groups if first < start < last]
    return {"records": records, "groups": [*([0, title] for title in before), *inside]}


def _group_of(given: GivenLabels, number: int) -> str:
    if given.groups is None or given.groups[number] < 0:
        return ""
    return given.group_names[int(given.groups[number])]


def _by_class(labeling: Labeling) -> tuple[NDArray[np.int32], NDArray[np.integer]]:
    """Images by class, the most certain first, given ones before all; where each class begins."""
    reached = np.flatnonzero(labeling.labels >= 0).astype(np.int32)
    is_predicted = labeling.given.labels[reached] < 0
    order = np.lexsort((-labeling.confidence[reached], is_predicted, labeling.labels[reached]))
    members = reached[order]
    starts = np.searchsorted(labeling.labels[members], np.arange(labeling.given.n_classes + 1))
    return members, starts


def _link(target: Path, folder: Path) -> str:
    """A relative address, from a page in a folder."""
    return quote(os.fsencode(os.path.relpath(target, folder)))


def _json(content: Any) -> str:
    """ASCII without spaces, and without what could end a script."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _write_html(path: Path, summary: Mapping[str, Any]) -> None:
    package = files_of_package(__package__)
    template, style, script = (
        package.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page.js")
    )
    # Only this script runs, whatever a file is called, and nothing is loaded from elsewhere.
    checksum_of_script = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    facts = ", ".join(f"{number} {what}" for what, number in summary["facts"])
    parts = {
        "title": html.escape(summary["title"]),
        "description": html.escape(facts),
        "policy": f"default-src 'none'; script-src 'sha256-{checksum_of_script}' 'self' file:; "
        "style-src 'unsafe-inline'; img-src 'self' file:; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "summary": _json(summary),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
    partial = path.with_name(UNFINISHED + path.name)
    with partial.open("wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
