"""The parameters of the demonstration's images: section `demonstration`."""

from __future__ import annotations

from dataclasses import dataclass

from lowshot_kedro.parameters import require_boolean, require_integer


@dataclass(frozen=True)
class DemonstrationParameters:
    """The images that `kedro run` writes for itself when nobody brings their own."""

    enabled: bool
    seed: int
    image_size: int

    def __post_init__(self) -> None:
        require_boolean("enabled", self.enabled)
        require_integer("seed", self.seed, 0)
        require_integer("image_size", self.image_size, 8, 1024)
