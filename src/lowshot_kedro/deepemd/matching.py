"""Why DeepEMD holds an image for one of a class: which regions are matched to which.

For some queries of an episode, right and wrong ones: what flows from each of their regions to each
region of a support image of the two best classes, what each region weighs, and what it adds to the
logit; and where in the image the regions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from lowshot_kedro.errors import InputError
from lowshot_kedro.metrics import right_and_wrong

if TYPE_CHECKING:
    import torch

    from lowshot_kedro.deepemd.head import Matching
    from lowshot_kedro.deepemd.solvers import Solver
    from lowshot_kedro.networks import DenseExtractor


@dataclass(frozen=True)
class ClassMatch:
    """How a query is matched to a class, and to a support image of it.

    With one support image a class, this image is the class, and what is said of both is the same.
    With more, the class is a structured prototype, which is at no place of any image: `flow`, the
    weights and the similarities are then those of the support image that matches best on its own;
    logit, probability and contributions are those of the prototype, which decides.

    Attributes:
        class_number: 0-based.
        logit: Of the class.
        probability: Softmax of the logits of all classes.
        contributions: float64 (n,): what each region of the query adds to the logit, their sum.
        support: Position of the support image.
        support_logit: The logit if this image alone were the class.
        flow: float64 (n, m), at least 0: what part of everything flows from region i of the query
            to region j of the support image. Its sum is 1.
        query_weights: float64 (n,): what flows from each region of the query; sum 1.
        support_weights: float64 (m,): what flows to each region of the support image; sum 1.
        similarities: float64 (n, m), at most 1: centred cosines of the regions.
    """

    class_number: int
    logit: float
    probability: float
    contributions: NDArray[np.float64]
    support: int
    support_logit: float
    flow: NDArray[np.float64]
    query_weights: NDArray[np.float64]
    support_weights: NDArray[np.float64]
    similarities: NDArray[np.float64]


@dataclass(frozen=True)
class QueryMatch:
    """A query of an episode and the two classes that match it best.

    Attributes:
        query: Position among the queries.
        true_class: Its class, 0-based.
        best: The class with the highest logit; of several the first.
        second: The class that comes next.
        n_shot: Support images of a class.
    """

    query: int
    true_class: int
    best: ClassMatch
    second: ClassMatch
    n_shot: int

    @property
    def is_right(self) -> bool:
        """Whether the best class is the true one."""
        return self.best.class_number == self.true_class


class RegionImage(NamedTuple):
    """An image and where in it the regions are.

    Attributes:
        image: RGB, as it is looked at.
        boxes: float64 (n, 4): left, top, right and bottom edge of each region, as parts of the
            image's width and height, 0..1. Regions may overlap.
    """

    image: Image.Image
    boxes: NDArray[np.float64]


def explain_matches(
    queries: ArrayLike | torch.Tensor,
    query_classes: ArrayLike,
    support: ArrayLike | torch.Tensor,
    prototypes: ArrayLike | torch.Tensor,
    *,
    n_queries: int = 4,
    temperature: float = 12.5,
    solver: str | Solver = "native",
) -> list[QueryMatch]:
    """Match some queries, half of them wrongly classified ones, to their two best classes.

    Args:
        queries: float32 (Q, C, H, W): the regions of all queries of an episode.
        query_classes: int (Q,): their classes, 0..K-1.
        support: float32 (K·S, C, H, W): the regions of the support images, one of each class, then
            another of each class.
        prototypes: float32 (K, C, H, W): what the logits are computed from, such as
            :func:`~lowshot_kedro.deepemd.structured_prototypes`; of one image a class the support
            images themselves.
        n_queries: How many are explained at most. The same input gives the same queries.
        temperature: As for :func:`~lowshot_kedro.deepemd.emd_logits`.
        solver: As for :func:`~lowshot_kedro.deepemd.emd_logits`.

    Returns:
        In the order of their classes. In memory besides: the logits of all queries.

    Raises:
        InputError: For shapes or classes that do not belong together.
    """
    import torch

    from lowshot_kedro.deepemd.head import emd_logits, match

    of_queries, of_support, of_classes = (
        torch.as_tensor(regions) for regions in (queries, support, prototypes)
    )
    n_way = len(of_classes)
    true = np.asarray(query_classes)
    _require_episode(of_queries, true, of_support, of_classes)
    with torch.no_grad():
        logits = emd_logits(of_queries, of_classes, temperature=temperature, solver=solver)
        probabilities = torch.softmax(logits.double(), 1).cpu().numpy()
        ranked = np.argsort(-logits.double().cpu().numpy(), axis=1, kind="stable")
    chosen = right_and_wrong(ranked[:, 0] == true, true.astype(np.int32), n_queries)

    def matched(query: int, classes: torch.Tensor) -> Matching:
        pairs = (maps.double() for maps in (of_queries[query : query + 1], classes))
        return match(*pairs, temperature=temperature, solver=solver)

    def explain(query: int, number: int) -> ClassMatch:
        of_class = matched(query, of_classes[number : number + 1])
        images = matched(query, of_support[number::n_way])
        shot = int(images.logits[0].argmax())
        return ClassMatch(
            class_number=number,
            logit=float(logits[query, number]),
            probability=float(probabilities[query, number]),
            contributions=_contributions(of_class, temperature),
            support=number + shot * n_way,
            support_logit=float(images.logits[0, shot]),
            flow=_parts(images.flow[0, shot]),
            query_weights=_parts(images.query_weights[0, shot]),
            support_weights=_parts(images.prototype_weights[0, shot]),
            similarities=images.similarities[0, shot].cpu().numpy(),
        )

    n_shot = len(of_support) // n_way
    return [
        QueryMatch(query, int(true[query]), explain(query, best), explain(query, second), n_shot)
        for query in chosen.tolist()
        for best, second in [ranked[query, :2].tolist()]
    ]


def _require_episode(
    queries: torch.Tensor, true: NDArray[Any], support: torch.Tensor, prototypes: torch.Tensor
) -> None:
    n_way = len(prototypes)
    if n_way < 2:
        raise InputError(f"found {n_way} class(es); expected at least two to compare")
    if len(support) % n_way or not len(support):
        raise InputError(
            f"support: found {len(support)} images; expected as many of each of {n_way} classes"
        )
    if true.shape != (len(queries),):
        raise InputError(
            f"query_classes: found shape {true.shape}; expected ({len(queries)},), one a query"
        )
    if len(true) and not 0 <= true.min() <= true.max() < n_way:
        raise InputError(
            f"query_classes: found {true.min()}..{true.max()}; expected 0..{n_way - 1}"
        )


def _contributions(matching: Matching, temperature: float) -> NDArray[np.float64]:
    """What each region of the only query adds to the logit of the only class: float64 (n,)."""
    scores = (matching.flow * matching.similarities)[0, 0].sum(1)
    return np.asarray((scores * (temperature / len(scores))).cpu().numpy())


def _parts(values: torch.Tensor) -> NDArray[np.float64]:
    """Values as parts of their sum."""
    return np.asarray((values / values.sum()).cpu().numpy())


def map_boxes(height: int, width: int, sides: Sequence[int] = ()) -> NDArray[np.float64]:
    """Where the regions of a dense map are, as parts of the image that the network sees.

    A network looks at more than that: its receptive field is larger than a cell of its map.

    Args:
        height: Rows of the map.
        width: Its columns.
        sides: Of the pooled maps of a feature pyramid, which come first. Their cells overlap where
            the map cannot be divided evenly.

    Returns:
        float64 (regions, 4): left, top, right, bottom edge of each region, 0..1, in the order of
        the regions: row by row.
    """
    return np.concatenate(
        [_cells(side, side, height, width) for side in sides]
        + [_cells(height, width, height, width)]
    )


def _cells(n_rows: int, n_columns: int, height: int, width: int) -> NDArray[np.float64]:
    """Boxes of the cells that adaptive pooling makes of a map."""
    (top, bottom), (left, right) = (
        (np.arange(n) * size // n / size, -(-(np.arange(n) + 1) * size // n) / size)
        for n, size in ((n_rows, height), (n_columns, width))
    )
    return np.stack(
        [
            np.tile(left, n_rows),
            np.repeat(top, n_columns),
            np.tile(right, n_rows),
            np.repeat(bottom, n_columns),
        ],
        axis=1,
    )


def region_image(
    image: Image.Image, extractor: DenseExtractor, pyramid: Sequence[int] = ()
) -> RegionImage:
    """An image with the regions that a network makes of it.

    For maps it is shown as the network sees it, resized and cropped, so that the cells of the map
    are parts of what is shown. For patches it is shown as it is. What a network crops from a patch
    (as the original does for the grids of CIFAR-FS) is not taken away from the patch's box.

    Args:
        image: RGB.
        extractor: What the regions come from, see :func:`~.regions.view_extractor`.
        pyramid: Sides of the pooled maps of :func:`~.regions.with_pyramid`, which come first.
    """
    from lowshot_kedro.deepemd.regions import GridPatches, RandomPatches
    from lowshot_kedro.networks.preprocessing import middle_of_strip

    patches = extractor.preprocess.resize
    if isinstance(patches, GridPatches | RandomPatches):
        whole = middle_of_strip(image)
        return RegionImage(whole, np.array(patches.boxes(whole)) / (whole.size * 2))
    pixels = extractor.preprocess.pixels(image).permute(1, 2, 0)
    _, height, width = extractor.shape
    return RegionImage(Image.fromarray(pixels.numpy()), map_boxes(height, width, pyramid))
