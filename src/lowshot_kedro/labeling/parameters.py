"""The parameters of labelling: section `labeling`."""

from __future__ import annotations

from dataclasses import dataclass

from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import (
    is_number,
    refuse,
    require_integer,
    require_number,
    require_one_of,
)

METHODS = ("auto", "diffusion", "logistic_regression", "nearest_class_mean", "combined")
CLASS_PRIORS = ("uniform", "estimated")
FOLDER_TREES = ("none", "links", "copies")
MAPS = ("none", "pacmap")


@dataclass(frozen=True)
class LabelingParameters:
    """From given labels to labels for all images.

    Attributes:
        folder: Where labels, page and lists are written; None: the folder of reports.
        labels: A file of labels; None: labels.csv in the folder of the images, if it is there.
        method: What finds labels; auto: held-out labels choose, or diffusion if there are too few.
        class_prior: How frequent the classes are: uniform, or estimated from the unlabelled images.
        accuracy: Part of the labels that should be right: those less sure are unknown; None: all
            are labelled.
        threshold: The confidence below which a label is unknown; None: none is, or as `accuracy`
            says.
        unknown: What such a label is called.
        n_next: How many images to label next are named.
        min_duplicate_similarity: Cosine from which two images look the same.
        page_images: At most so many images can be looked at on the page; those that are named in
            its lists, and the most and least certain ones of every class, always can.
        thumbnail_size: Pixels of the longer side of an image on the page.
        map: How images are laid out in two dimensions: pacmap, or none.
        max_map_images: At most so many images are laid out; the others go where neighbours are.
        folder_tree: Whether a folder for each label gets links to, or copies of, its images.
        seed: Seed of what is held out, and of the map.
    """

    folder: str | None = None
    labels: str | None = None
    method: str = "auto"
    class_prior: str = "uniform"
    accuracy: float | None = None
    threshold: float | None = None
    unknown: str = "unknown"
    n_next: int = 50
    min_duplicate_similarity: float = 0.9
    page_images: int = 100_000
    thumbnail_size: int = 128
    map: str = "pacmap"
    max_map_images: int = 20_000
    folder_tree: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("folder", "labels"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise refuse(name, value, "a path, or null")
        require_one_of("method", self.method, METHODS)
        require_one_of("class_prior", self.class_prior, CLASS_PRIORS)
        for name in ("accuracy", "threshold"):
            value = getattr(self, name)
            if value is not None and not (is_number(value, 0, 1) and 0 < value < 1):
                raise refuse(name, value, "a number between 0 and 1, or null")
        if self.accuracy is not None and self.threshold is not None:
            raise InputError(
                "but accuracy is given too, from which a threshold is chosen; expected one of them",
                parameter="threshold",
                found=self.threshold,
            )
        if not isinstance(self.unknown, str) or not self.unknown.strip():
            raise refuse("unknown", self.unknown, "a text that is no class")
        require_integer("n_next", self.n_next, 0)
        require_number("min_duplicate_similarity", self.min_duplicate_similarity, 0, 1)
        require_integer("page_images", self.page_images, 0)
        require_integer("thumbnail_size", self.thumbnail_size, 16, 1024)
        require_one_of("map", self.map, MAPS)
        require_integer("max_map_images", self.max_map_images, 100)
        require_one_of("folder_tree", self.folder_tree, FOLDER_TREES)
        require_integer("seed", self.seed, 0)
