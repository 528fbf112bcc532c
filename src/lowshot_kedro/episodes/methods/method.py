"""What a method of episodes is: everything that is said about it by name, and how it classifies."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.episodes.episode import Episode, View


@dataclass(frozen=True)
class MethodOptions:
    """What methods follow besides the episode.

    Attributes:
        seed: Whatever is random in a method follows from it and the number of the episode.
        deepemd: How DeepEMD compares images.
    """

    seed: int = 1
    deepemd: DeepEMDParameters = field(default_factory=DeepEMDParameters)


class EpisodeMethod(ABC):
    """A method that classifies the query images of an episode.

    Attributes:
        name: What people type, and tables and files call it.
        title: What tables and plots call it.
        is_transductive: Whether it looks at all query images of an episode together.
        view: The form of the images that it looks at.
        needs: Modules of extras that it needs.
        source: The paper or library that it is from.
        notes: What a reader of its figures should know; "" for nothing.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    is_transductive: ClassVar[bool] = False
    view: ClassVar[View] = "map"
    needs: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[str]
    notes: ClassVar[str] = ""

    def __init__(self, options: MethodOptions) -> None:
        self.options = options

    @abstractmethod
    def scores(self, episode: Episode) -> NDArray[np.floating[Any]]:
        """Scores of the query images, (n_query · n_way, n_way).

        The highest wins, the first of equal ones.
        """

    def parameters(self) -> Mapping[str, Any]:
        """The parameters that the scores follow from, as JSON holds them."""
        return {}

    def seed_of(self, episode: Episode) -> int:
        """The seed of whatever this method draws at random in an episode, 0..2⁶⁴-1."""
        entropy = [self.options.seed, episode.number, zlib.crc32(self.name.encode())]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])

    @classmethod
    def missing_view(cls, views: Collection[View]) -> str:
        """What is wrong, in words, if images are not at hand in the form it looks at; else ""."""
        if cls.view in views:
            return ""
        return f"looks at the view {cls.view}, but there is {' and '.join(views) or 'none'}"

    @classmethod
    def why_left_out(cls, views: Collection[View]) -> str:
        """Why `all` does not mean this method, in words; "" if it does.

        Args:
            views: The forms in which images are at hand, or as a mapping their regions.
        """
        return ""
