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
from lowshot_kedro.networks.vgg import LAST_WIDTH, VGG16, cells_of_side, sizes_of_cells
from lowshot_kedro.networks.weights import State, fit_weights, listed

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

    def require_image_size(self, image_size: int | None, path: Path) -> None:
        """Refuse a size that the linear layers do not fit.

        Args:
            image_size: Width and height in pixels; None fits.
            path: The file, for messages.

        Raises:
            InputError: If it does not fit.
        """
        cells = cells_of_side(self.image_size)
        if image_size is not None and cells_of_side(image_size) != cells:
            smallest, largest = sizes_of_cells(cells)
            raise InputError(
                f"but the linear layers of {path} are for images of {self.image_size} pixels",
                parameter="image_size",
                found=image_size,
                expected=f"{smallest} to {largest}",
            )


def plain_vgg_state(found: State, path: Path) -> State:
    """The tensors of the network alone, under its own names.

    Args:
        found: Name → tensor, as a file has them.
        path: The file, for the log.

    Returns:
        Those that are learnt: without Sobel filters, which are always the same, and heads.
    """
    state: State = {}
    for key, tensor in found.items():
        short = key
        for prefix in _PREFIXES:
            short = short.removeprefix(prefix)
        short = short.replace(_WRAPPER, "")
        # Two tensors of one name would be one too many, so that both are named as they are.
        state[key if short in state or (short != key and short in found) else short] = tensor
    heads = [key for key in state if key.startswith(_HEADS)]
    if heads:
        logger.info("%s: heads are left out (%s)", path, ", ".join(heads))
    return {key: tensor for key, tensor in state.items() if not key.startswith((*_HEADS, _FILTERS))}


def layout_of(state: State, path: Path) -> VGGLayout:
    """What a network is, from its tensors.

    Args:
        state: What :func:`plain_vgg_state` returns.
        path: The file, for messages.

    Raises:
        InputError: If they are of another network.
    """
    missing = [name for name in (_FIRST, *_LINEAR) if name not in state]
    if missing:
        raise InputError(
            f"{path} holds no VGG16 ({len(missing)} missing: {listed(missing)}; found "
            f"{listed(list(state)) or 'nothing'})",
            parameter="weights",
            expected="features.0.weight, … and classifier.0.weight, …",
        )
    first, hidden, last = (tuple(state[name].shape) for name in (_FIRST, *_LINEAR))
    kind = _KINDS.get(first[1:])
    if kind is None or first[0] == 0:
        raise InputError(
            f"{path}: {_FIRST} has shape {first}",
            parameter="weights",
            expected="kernels 2×3×3 (Sobel filters), 3×3×3 (colours) or 3×5×5 (folded filters)",
        )
    n_channels = first[0]
    n_cells, rest = divmod(hidden[-1] if len(hidden) == 2 else 0, LAST_WIDTH * n_channels)
    side = math.isqrt(n_cells)
    if len(last) != 2 or rest or side == 0 or side**2 != n_cells:
        raise InputError(
            f"{path}: {_LINEAR[0]} has shape {hidden}, {_LINEAR[1]} {last}",
            parameter="weights",
            expected=f"matrices, the first with {LAST_WIDTH * n_channels} columns for each cell of "
            "a square map",
        )
    return VGGLayout(*kind, n_channels, last[0], 32 * side)


def fit_vgg(network: VGG16, state: State, path: Path, name: str) -> None:
    """Copy tensors into a network.

    Args:
        network: The network. Changed in place.
        state: What :func:`plain_vgg_state` returns.
        path: The file, for messages.
        name: Name of the network, for messages.

    Raises:
        InputError: If tensors are missing, unexpected, of another shape, or hold NaN.
    """
    fixed = {
        key: tensor for key, tensor in network.state_dict().items() if key.startswith(_FILTERS)
    }
    fit_weights(network, {**fixed, **state}, path, name, ())
