"""What the networks of libraries have in common, which build them from a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import nn

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.weights import reason

# What layers raise for an image that is too small, or no multiple of what they cut it into.
_UNFIT = (RuntimeError, ValueError, AssertionError)


def unknown_model(library: str, model: str, known: Iterable[str]) -> InputError:
    """The error for a model that a library does not have, with the names that are near it."""
    near = get_close_matches(model, list(known), n=3)
    hint = (
        f"did you mean {' or '.join(f'{library}/{name}' for name in near)}?"
        if near
        else (f"{library}.list_models() lists them")
    )
    return InputError(f"{library} has no model {model!r}; {hint}", parameter="name")


@contextmanager
def requiring_size(name: str, image_size: int | None) -> Iterator[None]:
    """Report an error that a layer raises inside as an input size that the network does not take.

    Args:
        name: Name of the network, for messages.
        image_size: Width and height in pixels that were asked for; None: the network's own, for
            which every error is a defect.

    Raises:
        ValueError: In place of the errors of a layer, if a size was asked for.
    """
    try:
        yield
    except _UNFIT as error:
        if image_size is None:
            raise
        raise InputError(
            f"{name} does not take images of {image_size}×{image_size} pixels ({reason(error)}); "
            "without a number, its own size is taken",
            parameter="image_size",
        ) from error


def feature_dimension(
    network: nn.Module, name: str, own_size: tuple[int, int], image_size: int | None
) -> int:
    """Length of the vectors that a network returns, found out with a black image.

    Args:
        network: The network, in evaluation mode.
        name: Name of the network, for messages.
        own_size: Height and width in pixels of the images that the network is made for.
        image_size: Height and width instead; None: its own.

    Raises:
        ValueError: If the network does not take an image of the size asked for, or does not return
            one vector for it.
    """
    height, width = own_size if image_size is None else (image_size, image_size)
    with requiring_size(name, image_size), torch.inference_mode():
        output = network(torch.zeros(1, 3, height, width))
    shape = tuple(getattr(output, "shape", ()))
    if len(shape) != 2 or shape[0] != 1:
        found = f"an array of shape {shape}" if shape else f"a {type(output).__name__}"
        raise InputError(
            f"{name} returns {found} for one image", parameter="name", expected="one vector"
        )
    return int(shape[1])


def require_dimension(
    network: nn.Module,
    name: str,
    dimension: int,
    own_size: tuple[int, int],
    image_size: int | None,
) -> None:
    """Refuse a network that does not return vectors of a length; it stays in training mode.

    Args:
        network: The network, in training mode.
        name: Name of the network, for messages.
        dimension: The length.
        own_size: As for :func:`feature_dimension`.
        image_size: As for :func:`feature_dimension`.

    Raises:
        ValueError: As :func:`feature_dimension`, and for vectors of another length.
    """
    found = feature_dimension(network.eval(), name, own_size, image_size)
    if found != dimension:
        raise InputError(
            f"{name} returns {found} numbers for an image where its classifier is replaced by a "
            f"layer of {dimension}",
            parameter="network",
            expected="a network whose last layer is its classifier",
        )
    network.train()
