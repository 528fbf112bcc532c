"""The parameters of the features: section `features`."""

from __future__ import annotations

from dataclasses import dataclass

from lowshot_kedro.devices import DEVICES
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import PRECISIONS, require_extractor
from lowshot_kedro.parameters import (
    AUTO,
    refuse,
    require_integer,
    require_num_workers,
    require_one_of,
)


def require_weights(value: object, *, has_package: bool = True) -> None:
    """Refuse what cannot say where the weights of a network come from.

    Args:
        value: The value of the parameter `weights`.
        has_package: Whether there are networks whose weights a package of their own brings.
    """
    if not isinstance(value, str) or not value:
        package = "package, " if has_package else ""
        expected = f"none, download, {package}package:MODULE/FILE or a file"
        raise refuse("weights", value, expected)


@dataclass(frozen=True)
class FeaturesParameters:
    """The network that turns images into vectors, and how it is run."""

    extractor: str
    weights: str
    image_size: int | None
    batch_size: int
    num_workers: int | str
    device: str
    precision: str
    compile: bool | str

    def __post_init__(self) -> None:
        try:
            require_extractor(self.extractor)
        except InputError as error:
            raise error.renamed("extractor") from error
        require_weights(self.weights)
        require_integer("image_size", self.image_size, 32, 4096, null="the network's own")
        require_integer("batch_size", self.batch_size, 1)
        require_num_workers("num_workers", self.num_workers)
        require_one_of("device", self.device, DEVICES)
        require_one_of("precision", self.precision, PRECISIONS)
        if self.compile != AUTO and not isinstance(self.compile, bool):
            raise refuse("compile", self.compile, "true, false or auto")
