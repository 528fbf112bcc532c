"""Images, and labels for them, made by hand."""

import numpy as np
from PIL import Image

from lowshot_kedro.images.image_files import ImageFiles
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import HeldOutLabels, Labeling


class ArrayImages:
    """Images that are no files."""

    def __init__(self, n_images):
        self.n_images = n_images

    def __len__(self):
        return self.n_images

    def __getitem__(self, number):
        from lowshot_kedro.images import LoadedImage

        return LoadedImage(Image.new("RGB", (5, 4), (number, 0, 0)), 0, None)

    @property
    def labels(self):
        return np.zeros(self.n_images, np.int32)

    def describe(self):
        return {"kind": "array", "n_pictures": self.n_images}


def images_in(root, *collections, exist=False):
    """Images below folders of a root: {folder: names of files}."""
    sources = []
    for folder, names in collections:
        if exist:
            for number, name in enumerate(names):
                path = root / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4), (number, len(name), 0)).save(path)
        sources.append(ImageFiles("folder", root, root / folder, names, [0] * len(names)))
    return JoinedImages(sources, root)


def labeling_of(labels, given, classes=("cat", "dog"), **others):
    """A labelling of as many images as labels, sure of the given ones, less so of others."""
    labels = np.asarray(labels, np.int32)
    n = len(labels)
    if not isinstance(given, GivenLabels):
        given = GivenLabels(tuple(classes), np.asarray(given, np.int32))
    is_given = given.labels >= 0
    confidence = np.where(is_given, 1, np.where(labels >= 0, 0.75, 0)).astype(np.float32)
    values = {
        "given": given,
        "labels": labels,
        "confidence": confidence,
        "second": np.full(n, -1, np.int32),
        "margin": confidence.copy(),
        "n_steps": np.where(is_given, 0, np.where(labels >= 0, 1, -1)).astype(np.int32),
        "nearest_labeled": np.full(n, -1, np.int32),
        "is_unknown": np.zeros(n, bool),
        "held_out": HeldOutLabels(
            np.empty(0, np.int32), np.empty((0, given.n_classes), np.float32)
        ),
        "report": {},
    }
    return Labeling(**{**values, **others})
