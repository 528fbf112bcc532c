"""What networks have in common that a library builds from a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import nn

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.weights import reason


def unknown_model(library: str, model: str, known: Iterable[str]) -> InputError:
    """The error for a model that a library does not have, with the names that are near it."""
    near = get_close_matches(model, list(known), n=3)
    hint = (
        f"did you mean {' or '.join(f'{library}/{name}' for name in near)}?"
        if near
        else (f"{library}.list_models() lists them")
    )
    return InputError(f"features.extractor: {library} has no model {model!r}; {hint}")


@contextmanager
def requiring_size(name: str, height: int, width: int) -> Iterator[None]:
    """Whatever goes wrong inside is reported as an input size that the network does not take.

    Raises:
        ValueError: In place of any other error.
    """
    try:
        yield
    # A size that does not suit a network ends in whatever layer notices first.
    except Exception as error:
        raise InputError(
            f"features.image_size: {name} does not take images of {height}×{width} pixels "
            f"({reason(error)}); null is its own size"
        ) from error


def feature_dimension(network: nn.Module, name: str, height: int, width: int) -> int:
    """Length of the vectors that a network returns, found out with a black image.

    Args:
        network: In evaluation mode.
        name: Name of the network, for messages.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        ValueError: If the network does not take an image of that size, or does not return one
            vector for it.
    """
    with requiring_size(name, height, width), torch.inference_mode():
        output = network(torch.zeros(1, 3, height, width))
    shape = tuple(getattr(output, "shape", ()))
    if len(shape) != 2 or shape[0] != 1:
        found = f"an array of shape {shape}" if shape else f"a {type(output).__name__}"
        raise InputError(
            f"features.extractor: {name} returns {found} for one image; expected one vector"
        )
    return int(shape[1])
