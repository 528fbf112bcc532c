"""Tensors of a :class:`~lowshot_kedro.networks.vgg.VGG16` in files, those released among them.

Released were networks of DeeperCluster, DeepCluster and RotNet. Their tensors have names of
networks that are spread over GPUs and are parts of others, and there may be heads beside them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.unsupervised import VGG_NETWORKS
from lowshot_kedro.networks.vgg import LAST_WIDTH, VGG16, cells_of_side, sizes_of_cells
from lowshot_kedro.networks.weights import (
    State,
    fit_weights,
    listed,
    read_weights,
    same_random_weights,
)

logger = logging.getLogger(__name__)

_PREFIXES = ("module.", "body.")
_WRAPPER = ".module"
_FILTERS = "sobel."
_HEADS = ("pred_layer.", "top_layer.")

_FIRST = "features.0.weight"
_LINEAR = ("classifier.0.weight", "classifier.3.weight")

# The shape of a kernel of the first convolution → whether there are Sobel filters, and whether it
# does their work.
_KINDS: dict[tuple[int, ...], tuple[bool, bool]] = {
    (2, 3, 3): (True, False),
    (3, 3, 3): (False, False),
    (3, 5, 5): (False, True),
}


@dataclass(frozen=True)
class VGGLayout:
    """What a network is, as its tensors show.

    Attributes:
        sobel: Whether it begins with Sobel filters.
        folded: Whether its first convolution does their work.
        n_channels: Channels of the first convolution.
        dimension: Length of a feature.
        image_size: Pixels of a side that fit the linear layers: 32 for each cell of the last map.
    """

    sobel: bool
    folded: bool
    n_channels: int
    dimension: int
    image_size: int

    def network(self, image_size: int | None = None) -> VGG16:
        """A network of this kind, with random weights.

        Args:
            image_size: Width and height of the images in pixels; None: as the layout has it.
        """
        return VGG16(
            self.sobel,
            image_size=image_size or self.image_size,
            dimension=self.dimension,
            n_channels=self.n_channels,
            folded=self.folded,
        )

    def require_image_size(self, image_size: int | None, source: Path | str) -> None:
        """Refuse a size that the linear layers do not fit.

        Args:
            image_size: Width and height in pixels; None fits.
            source: Where they come from, for messages.

        Raises:
            InputError: If it does not fit.
        """
        cells = cells_of_side(self.image_size)
        if image_size is not None and cells_of_side(image_size) != cells:
            smallest, largest = sizes_of_cells(cells)
            raise InputError(
                f"but the linear layers of {source} are for images of {self.image_size} pixels",
                parameter="image_size",
                found=image_size,
                expected=f"{smallest} to {largest}",
            )


def plain_vgg_state(found: State, source: Path | str) -> State:
    """The tensors of the network alone, under its own names.

    Args:
        found: Name → tensor, as a file has them.
        source: Where they come from, for the log.

    Returns:
        Those that are learnt: without Sobel filters, which are always the same, and heads.
    """
    state: State = {}
    for key, tensor in found.items():
        # Wrappers first, since one may stand before or after each of the prefixes.
        short = key.replace(_WRAPPER, "")
        for prefix in _PREFIXES:
            short = short.removeprefix(prefix)
        # Two tensors of one name would be one too many, so that both are named as they are.
        state[key if short in state or (short != key and short in found) else short] = tensor
    heads = [key for key in state if key.startswith(_HEADS)]
    if heads:
        logger.info("%s: heads are left out (%s)", source, ", ".join(heads))
    return {key: tensor for key, tensor in state.items() if not key.startswith((*_HEADS, _FILTERS))}


def layout_of(state: State, source: Path | str) -> VGGLayout:
    """What a network is, from its tensors.

    Args:
        state: What :func:`plain_vgg_state` returns.
        source: Where they come from, for messages.

    Raises:
        InputError: If they are of another network.
    """
    missing = [name for name in (_FIRST, *_LINEAR) if name not in state]
    if missing:
        raise InputError(
            f"{source} holds no VGG16 ({len(missing)} missing: {listed(missing)}; found "
            f"{listed(list(state)) or 'nothing'})",
            parameter="weights",
            expected="features.0.weight, … and classifier.0.weight, …",
        )
    first, hidden, last = (tuple(state[name].shape) for name in (_FIRST, *_LINEAR))
    kind = _KINDS.get(first[1:])
    if kind is None or first[0] == 0:
        raise InputError(
            f"{source}: {_FIRST} has shape {first}",
            parameter="weights",
            expected="kernels 2×3×3 (Sobel filters), 3×3×3 (colours) or 3×5×5 (folded filters)",
        )
    n_channels = first[0]
    n_cells, rest = divmod(hidden[-1] if len(hidden) == 2 else 0, LAST_WIDTH * n_channels)
    side = math.isqrt(n_cells)
    if len(last) != 2 or rest or side == 0 or side**2 != n_cells:
        raise InputError(
            f"{source}: {_LINEAR[0]} has shape {hidden}, {_LINEAR[1]} {last}",
            parameter="weights",
            expected=f"matrices, the first with {LAST_WIDTH * n_channels} columns for each cell of "
            "a square map",
        )
    return VGGLayout(*kind, n_channels, last[0], 32 * side)


def vgg_from_tensors(
    tensors: State,
    source: Path | str,
    name: str,
    *,
    sobel: bool,
    dimension: int,
    image_size: int,
) -> VGG16:
    """A network of a name with the tensors of a file.

    Args:
        tensors: Name → tensor, as the file has them.
        source: Where they come from, for messages.
        name: One of `VGG_NETWORKS`.
        sobel: Whether it begins with Sobel filters.
        dimension: Length of a feature.
        image_size: Width and height of the images in pixels.

    Returns:
        The network, in training mode.

    Raises:
        InputError: If the tensors are of another network, or one of them is missing, unexpected or
            of another shape.
    """
    state = plain_vgg_state(tensors, source)
    layout = layout_of(state, source)
    _require_layout(layout, name, sobel, dimension, source)
    layout.require_image_size(image_size, source)
    network = layout.network(image_size)
    fit_weights(network, state, source, name, ())
    return network


def read_vgg(path: Path, image_size: int | None = None) -> VGG16:
    """A network from a checkpoint, whatever its size.

    Args:
        path: A released checkpoint, or another file with the tensors of a network of this kind.
        image_size: Width and height of the images in pixels; None: 32 for each cell of the last
            map, thus 224 for released ones.

    Returns:
        The network, in training mode, on the CPU. All tensors are in memory twice while they are
        copied.

    Raises:
        InputError: If it is another kind of file, or of another network, or the size does not fit.
    """
    state = plain_vgg_state(read_weights(path), path)
    layout = layout_of(state, path)
    layout.require_image_size(image_size, path)
    with same_random_weights():
        network = layout.network(image_size)
    fit_weights(network, state, path, "VGG16", ())
    return network


def _require_layout(
    layout: VGGLayout, name: str, sobel: bool, dimension: int, source: Path | str
) -> None:
    if layout.n_channels != VGG_NETWORKS[name]:
        known = [other for other, number in VGG_NETWORKS.items() if number == layout.n_channels]
        raise InputError(
            f"but the first convolution of {source} has {layout.n_channels} channels",
            parameter="network",
            found=name,
            expected=known[0] if known else f"a file with {VGG_NETWORKS[name]}",
        )
    if layout.sobel != sobel:
        begin = "begins with Sobel filters" if layout.sobel else "sees colours"
        raise InputError(
            f"but {source} {begin}",
            parameter="sobel",
            found=sobel,
            expected=str(layout.sobel).lower(),
        )
    if layout.dimension != dimension:
        raise InputError(
            f"but features of {source} have {layout.dimension} numbers",
            parameter="dimension",
            found=dimension,
            expected=str(layout.dimension),
        )
