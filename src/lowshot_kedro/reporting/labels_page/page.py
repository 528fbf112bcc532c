"""A page in files: labels.html, and beside it a folder of chunks of data, thumbnails and plots."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as files_of_package
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.images.fingerprint import checksum
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.labeling.parameters import LabelingParameters
from lowshot_kedro.reporting.labels_page.chunks import Chunks, as_json, is_ours
from lowshot_kedro.reporting.labels_page.thumbnails import (
    UNFINISHED,
    Thumbnails,
    remove_other_thumbnails,
    write_thumbnails,
)
from lowshot_kedro.reporting.labels_page.views import MAX_LISTED, View, view_of_broken, views_of

_GIVEN_ROWS = 5000
_IS_UNKNOWN, _IS_FILE, _IS_CHECKED = 1, 2, 4
_INSTRUCTION = "Put the saved labels.csv into the folder of the images, and label again."

_PLOTS = {
    "reliability": "Reliability of the confidence",
    "confusion": "Confusion of classes",
    "map": "Map of all images",
}


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
        views = list(
            views_of(
                self.labeling, self.next_images, self.suspicious, self.duplicates, self.parameters
            )
        )
        shown = np.unique(np.concatenate([view.nodes for view in views]))
        readable = shown[~np.isin(shown, list(broken))]
        thumbnails = write_thumbnails(
            self.images, readable, folder / "thumbnails", self.parameters.thumbnail_size
        )
        broken |= thumbnails.problems
        given = self.labeling.given
        n_lists = len(views) - given.n_classes
        views.insert(n_lists, view_of_broken(broken))

        data = Chunks(folder)
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
            "classes": given.classes,
            "hasGroups": given.groups is not None or any(row.group for row in given.missing),
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
            if is_ours(entry.name) and entry != data_folder:
                shutil.rmtree(entry)
        remove_other_thumbnails(folder / "thumbnails", thumbnails.names.values())

    def _given(self) -> Iterator[list[list[Any]]]:
        """Rows of the file of labels, in chunks, as page.js takes them.

        They are file, class or -1, whether it stays, group, and a 1 where the label was checked. Of
        files that are not there the class is a name: perhaps no image is of it.
        """
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
                    *([1] if _is_checked(given, number) else []),
                ]
                for number in numbers[first:last].tolist()
            ]
        for first, last in row_ranges(len(given.missing), _GIVEN_ROWS):
            yield [
                [file, label or -1, 1, group or "", *([1] if checked else [])]
                for file, label, group, checked in given.missing[first:last]
            ]

    def _plot(self, name: str, content: Path | bytes, data: Chunks) -> dict[str, Any]:
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
        n_unreached = len(np.setdiff1d(np.flatnonzero(labeling.labels < 0), labeling.broken))
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
                f"and those in the lists, up to {MAX_LISTED} each. labels.csv has all."
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
        flags |= _IS_CHECKED if _is_checked(labeling.given, number) else 0
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


def _page_content(view: View, said: _Records, first: int, last: int) -> dict[str, Any]:
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


def _is_checked(given: GivenLabels, number: int) -> bool:
    return given.checked is not None and bool(given.checked[number])


def _link(target: Path, folder: Path) -> str:
    """A relative address, from a page in a folder."""
    return quote(os.fsencode(os.path.relpath(target, folder)))


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
        "summary": as_json(summary),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
    partial = path.with_name(UNFINISHED + path.name)
    with partial.open("wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
