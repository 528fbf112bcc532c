"""Labels as Label Studio imports them: tasks with predictions, and the interface they belong to.

Seen with Label Studio 1.23: it serves files by `/data/local-files/?d=PATH`, PATH below its document
root, if LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED is true, LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
names this root, and a storage of the kind Local Files covers a folder below it, not the root
itself.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.exports.table import file_name
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.progress import Progress

logger = logging.getLogger(__name__)

# The table that Label Studio exports has these as columns, as files of labels do.
IMAGE, FILE, LABEL = "image", "file", "label"
_MODEL = "lowshot-kedro"
_DIGITS = 4
# What XML has no way to write.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def label_studio_tasks(
    images: JoinedImages, labeling: Labeling, document_root: Path | None = None
) -> LabelStudioTasks:
    """A task for every image that is a file, made one by one when they are written.

    Given labels are annotations, so that nobody is asked for them again. Others are predictions,
    scored with their confidence, also where they are less sure than the threshold; an image that no
    label has reached has none.

    Args:
        images: The images.
        labeling: Their labels.
        document_root: The root that Label Studio serves files below; None: the folder above that
            of the images, so that the storage can cover the folder of the images.

    Raises:
        InputError: If the folder of the images is not below the root.
    """
    if images.base is not None:
        base = images.base.absolute()
        document_root = base.parent if document_root is None else document_root.absolute()
        if not base.is_relative_to(document_root):
            raise InputError(
                parameter="document_root",
                found=str(document_root),
                expected=f"a folder above {base}",
            )
    return LabelStudioTasks(images, labeling, document_root)


class LabelStudioTasks:
    """Tasks that :func:`label_studio_tasks` describes, which are made by iterating.

    Args:
        images: The images.
        labeling: Their labels.
        document_root: The root that files are served below.
    """

    def __init__(
        self, images: JoinedImages, labeling: Labeling, document_root: Path | None
    ) -> None:
        self._images, self._labeling, self._root = images, labeling, document_root
        self._choices = choice_names(labeling.given.classes)
        method = labeling.report.get("method")
        self._model = f"{_MODEL} {method}" if method else _MODEL

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Make the tasks in the order of the images, and log how many images are no files."""
        n_left_out = 0
        with Progress(len(self._images), "tasks for Label Studio", unit="image") as bar:
            for number in range(len(self._images)):
                task = self._task(number)
                bar.update(1)
                if task is None:
                    n_left_out += 1
                else:
                    yield task
        if n_left_out:
            logger.warning(
                "%d images are left out for Label Studio: they are no files below %s",
                n_left_out,
                self._root,
            )

    def _task(self, number: int) -> dict[str, Any] | None:
        path = self._images.path(number)
        if path is None or self._root is None:
            return None
        below = os.path.relpath(path, self._root)
        if below.startswith(f"..{os.sep}"):
            return None
        url = f"/data/local-files/?d={quote(Path(below).as_posix(), errors='surrogateescape')}"
        # Called id, a name would take the place of the task's own number.
        task: dict[str, Any] = {"data": {IMAGE: url, FILE: file_name(self._images, number)}}
        labeling = self._labeling
        label = int(labeling.labels[number])
        if labeling.given.labels[number] >= 0:
            task["annotations"] = [{"result": self._result(int(labeling.given.labels[number]))}]
        elif label >= 0:
            score = min(max(float(labeling.confidence[number]), 0.0), 1.0)
            task["predictions"] = [
                {
                    "model_version": self._model,
                    "score": round(score, _DIGITS),
                    "result": self._result(label),
                }
            ]
        return task

    def _result(self, label: int) -> list[dict[str, Any]]:
        return [
            {
                "from_name": LABEL,
                "to_name": IMAGE,
                "type": "choices",
                "value": {"choices": [self._choices[label]]},
            }
        ]


def label_studio_config(classes: Sequence[str]) -> str:
    """The labelling interface that the tasks belong to, as Label Studio's XML."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in choice_names(classes))
    return (
        "<View>\n"
        f'  <Image name="{IMAGE}" value="${IMAGE}"/>\n'
        f'  <Choices name="{LABEL}" toName="{IMAGE}" choice="single" showInLine="true">\n'
        f"{choices}\n"
        "  </Choices>\n"
        "</View>\n"
    )


def choice_names(classes: Sequence[str]) -> list[str]:
    """What classes are called there: characters that XML cannot hold are replaced."""
    return [_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", name) for name in classes]
