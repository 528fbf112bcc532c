"""Labels, and lists of images to look at, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import LazyModule
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import Labeling

if TYPE_CHECKING:
    import pandas
else:
    pandas = LazyModule("pandas", "a table of labels", globals())

_DIGITS = 4
UNKNOWN = "unknown"


def labels_frame(
    images: JoinedImages, labeling: Labeling, unknown: str = UNKNOWN
) -> pandas.DataFrame:
    """The label of every image, and how sure it is.

    Args:
        images: The N images.
        labeling: Their labels.
        unknown: What the label of an image is called that is less sure than the threshold.

    Returns:
        N rows with the columns `file`; `label`, nothing where no label has reached the image;
        `confidence`, `margin` with four digits; `second_label`; `n_steps`, nothing where no label
        has reached it; `nearest_labeled`, a file; `given`, yes or no; `guess`, the most probable
        class, of an unknown image too; and `group`, where there are groups. In memory are the
        table and the names of the files.

    Raises:
        InputError: If a class is called as unknown images are.
    """
    given, guess = labeling.given, class_names(labeling.given.classes, labeling.labels)
    files = np.array(file_names(images), dtype=object)
    n_steps = pandas.array(labeling.n_steps.astype(np.int64), dtype="Int64")
    n_steps[labeling.n_steps < 0] = pandas.NA
    columns: dict[str, Any] = {
        "file": files,
        "label": label_names(labeling, unknown),
        "confidence": _rounded(labeling.confidence),
        "margin": _rounded(labeling.margin),
        "second_label": class_names(given.classes, labeling.second),
        "n_steps": n_steps,
        "nearest_labeled": _named(files, labeling.nearest_labeled),
        "given": np.where(given.labels >= 0, "yes", "no").astype(object),
        "guess": guess,
    }
    if given.groups is not None:
        columns["group"] = class_names(_group_names(given), given.groups)
    return pandas.DataFrame(columns, copy=False)


def next_frame(
    images: JoinedImages, labeling: Labeling, next_images: NextImages
) -> pandas.DataFrame:
    """The images to label next, as a file of labels that a person fills in.

    Args:
        images: All images.
        labeling: Their labels.
        next_images: Those whose labels would help most.

    Returns:
        A row for each, the best first: `file`; `label`, to be filled in; `perhaps`, the most
        probable class; `how_sure`, its probability. These two are called otherwise than in the
        table of labels, so that nobody takes them for labels that were given.
    """
    nodes = next_images.nodes
    return pandas.DataFrame(
        {
            "file": _some_files(images, nodes),
            "label": np.full(len(nodes), "", dtype=object),
            "perhaps": class_names(labeling.given.classes, labeling.labels[nodes]),
            "how_sure": _rounded(labeling.confidence[nodes]),
        }
    )


def suspicious_frame(
    images: JoinedImages, labeling: Labeling, suspicious: SuspiciousLabels
) -> pandas.DataFrame:
    """Given labels that are probably wrong, most suspicious first.

    Args:
        images: All images.
        labeling: Their labels.
        suspicious: What was found.

    Returns:
        A row for each: `file`; `label`, the one that was given, to be corrected where it is wrong;
        `suspicion`, 0..1; `suggested`, the class that the neighbours speak for;
        `nearest_labeled`, the most similar labelled image, and `nearest_label`, its label. With
        its first two columns it is a file of labels.
    """
    given, nodes = labeling.given, suspicious.nodes
    nearest = labeling.nearest_labeled[nodes]
    nearest_labels = np.where(nearest >= 0, given.labels[nearest], -1)
    return pandas.DataFrame(
        {
            "file": _some_files(images, nodes),
            "label": class_names(given.classes, given.labels[nodes]),
            "suspicion": _rounded(suspicious.suspicion),
            "suggested": class_names(given.classes, suspicious.suggested),
            "nearest_labeled": _some_files(images, nearest),
            "nearest_label": class_names(given.classes, nearest_labels),
        }
    )


def duplicates_frame(
    images: JoinedImages, labeling: Labeling, duplicates: Duplicates
) -> pandas.DataFrame:
    """Images that look the same, group after group.

    Args:
        images: All images.
        labeling: Their labels.
        duplicates: What was found.

    Returns:
        A row for each: `duplicates`, the number of the group, from 1; `file`; `similarity`, the
        cosine with the most similar other image of the group; `label`, if one was given;
        `perhaps`, the most probable class.
    """
    nodes = duplicates.nodes
    return pandas.DataFrame(
        {
            "duplicates": duplicates.groups.astype(np.int64) + 1,
            "file": _some_files(images, nodes),
            "similarity": _rounded(duplicates.similarity),
            "label": class_names(labeling.given.classes, labeling.given.labels[nodes]),
            "perhaps": class_names(labeling.given.classes, labeling.labels[nodes]),
        }
    )


def label_names(labeling: Labeling, unknown: str = UNKNOWN) -> NDArray[np.object_]:
    """The label of every image as text.

    Args:
        labeling: The labels of N images.
        unknown: What the label of an image is called that is less sure than the threshold.

    Returns:
        object (N,): a class, `unknown`, or "" where no label has reached the image.

    Raises:
        InputError: If a class is called as unknown images are.
    """
    if unknown in labeling.given.classes:
        raise InputError(
            "which is a class", parameter="unknown", found=unknown, expected="another word"
        )
    names = class_names(labeling.given.classes, labeling.labels)
    names[labeling.is_unknown & (labeling.labels >= 0)] = unknown
    return names


def class_names(classes: Sequence[str], numbers: NDArray[np.integer]) -> NDArray[np.object_]:
    """Names of classes: object (m,), "" for -1."""
    names = np.array([*map(readable, classes), ""], dtype=object)
    found: NDArray[np.object_] = names[numbers]
    return found


def file_names(images: JoinedImages) -> list[str]:
    """The names of all images' files, in letters that every file can hold."""
    names = list(images.files())
    try:
        "\n".join(names).encode()
    except UnicodeEncodeError:
        return list(map(readable, names))
    return names


def file_name(images: JoinedImages, number: int) -> str:
    """The name of one image's file, in letters that every file can hold."""
    return readable(images.file(number))


def readable(name: str) -> str:
    r"""A name in letters that every file can hold: bytes of file names that are no text as \x…."""
    return name.encode("utf-8", "backslashreplace").decode()


def _some_files(images: JoinedImages, nodes: NDArray[np.integer]) -> list[str]:
    return [file_name(images, node) if node >= 0 else "" for node in nodes.tolist()]


def _named(files: NDArray[np.object_], nodes: NDArray[np.integer]) -> NDArray[np.object_]:
    found: NDArray[np.object_] = files[nodes]
    found[nodes < 0] = ""
    return found


def _group_names(given: GivenLabels) -> Sequence[str]:
    n_groups = int(given.groups.max(initial=-1)) + 1 if given.groups is not None else 0
    return given.group_names or tuple(map(str, range(n_groups)))


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float64]:
    # As float64: those of float32 have more digits when they are written.
    return values.astype(np.float64).round(_DIGITS)
