"""Networks that learn from images without labels, by name.

Names can be checked without PyTorch, which takes long to import.
"""

from __future__ import annotations

from lowshot_kedro.errors import InputError, did_you_mean
from lowshot_kedro.networks.embedding import require_embedding_network
from lowshot_kedro.parameters import refuse

# Networks that can begin with Sobel filters. small_vgg16 has an eighth of the channels.
VGG_NETWORKS = ("vgg16", "small_vgg16")


def require_unsupervised_network(name: object, sobel: bool) -> None:
    """Check the name of a network as far as that takes no time.

    Args:
        name: One of `VGG_NETWORKS`, or a name for
            :func:`~lowshot_kedro.networks.embedding.embedding_network`.
        sobel: Whether it is to begin with Sobel filters.

    Raises:
        InputError: If it is neither, or has no place for Sobel filters.
    """
    if name in VGG_NETWORKS:
        return
    try:
        require_embedding_network(name)
    except InputError as error:
        hint = did_you_mean(name, VGG_NETWORKS)
        expected = (
            f"one of: {', '.join(VGG_NETWORKS)}, {(error.expected or '').removeprefix('one of: ')}"
        )
        raise InputError(parameter="name", found=name, expected=f"{expected}{hint}") from error
    if sobel:
        raise refuse("sobel", True, f"false, or network = {' or '.join(VGG_NETWORKS)}")
