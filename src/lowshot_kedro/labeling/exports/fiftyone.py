"""Labels as FiftyOne imports them.

Seen with FiftyOne 1.22: its CSVDataset reads a table with a column `filepath` into fields of text,
and its FiftyOneImageClassificationDataset reads labels.json as classifications, by the absolute
path of an image or its name below `data`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.exports.table import (
    UNKNOWN,
    class_names,
    labels_frame,
    readable,
)
from lowshot_kedro.labeling.labels import Labeling

if TYPE_CHECKING:
    import pandas

_DIGITS = 4


def fiftyone_frame(
    images: JoinedImages, labeling: Labeling, unknown: str = UNKNOWN
) -> pandas.DataFrame:
    """The table of labels with absolute paths, as FiftyOne's CSVDataset imports it.

    Args:
        images: The images; those that are no files are left out.
        labeling: Their labels.
        unknown: What the label of an image is called that is less sure than the threshold.

    Returns:
        The columns of :func:`lowshot_kedro.labeling.exports.table.labels_frame` behind `filepath`,
        which is absolute.
    """
    frame = labels_frame(images, labeling, unknown)
    paths = dict(_paths(images))
    frame = frame.iloc[list(paths)].reset_index(drop=True)
    frame.insert(0, "filepath", list(paths.values()))
    return frame


def fiftyone_labels(images: JoinedImages, labeling: Labeling) -> dict[str, Any]:
    """The content of labels.json of a FiftyOneImageClassificationDataset.

    Args:
        images: The images; those that are no files are left out.
        labeling: Their labels.

    Returns:
        `classes`, a list, and `labels`, of every absolute path its `label` and `confidence`, or
        None for an image that is less sure than the threshold or that no label has reached, which
        is imported without a label then. A million images take about 500 MB.
    """
    names = class_names(labeling.given.classes, labeling.labels)
    has_label = (labeling.labels >= 0) & ~labeling.is_unknown
    confidence = labeling.confidence.astype(np.float64).round(_DIGITS)
    labels = {
        path: {"label": names[number], "confidence": float(confidence[number])}
        if has_label[number]
        else None
        for number, path in _paths(images)
    }
    return {"classes": list(map(readable, labeling.given.classes)), "labels": labels}


def _paths(images: JoinedImages) -> Iterator[tuple[int, str]]:
    """Numbers and absolute paths of the images that are files."""
    for number in range(len(images)):
        path = images.path(number)
        if path is not None:
            yield number, readable(str(path))
