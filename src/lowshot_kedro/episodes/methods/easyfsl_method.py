"""What methods of the library easyfsl have in common: they get feature vectors, not images."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.methods.method import EpisodeMethod, MethodOptions
from lowshot_kedro.extras import needed_by

if TYPE_CHECKING:
    import torch

# Features are divided by their L2 norm, as in the benchmark of easyfsl.
UNIT_LENGTH = {"feature_normalization": 2}


class EasyFSLMethod(EpisodeMethod):
    """A classifier of easyfsl without a backbone, made anew for every episode.

    A classifier that has seen query images keeps what it has learned from them. What it draws at
    random follows from the seed and the number of the episode, and the generator of torch is left
    as it was.

    Attributes:
        classifier: Name of the class in `easyfsl.methods`.
        settings: Its keyword arguments. Where nothing else is said they are those of the benchmark
            in easyfsl's repository, which were chosen on the validation classes of miniImageNet.
    """

    needs = ("easyfsl",)
    classifier: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = MappingProxyType(UNIT_LENGTH)

    def __init__(self, options: MethodOptions) -> None:
        super().__init__(options)
        with needed_by(self.name):
            from easyfsl import methods
        self._class = getattr(methods, self.classifier)

    def make(self, n_columns: int) -> Any:
        """The classifier.

        Args:
            n_columns: Length of a feature vector.
        """
        return self._class(**self.settings)

    def prepared(self, vectors: torch.Tensor) -> torch.Tensor:
        """Feature vectors as the classifier gets them."""
        return vectors

    def scores(self, episode: Episode) -> NDArray[np.floating[Any]]:
        """What the classifier returns for the query images."""
        import torch

        # Copies: what the library changes in place is its own.
        support, query = (self.prepared(torch.tensor(vectors)) for vectors in episode.vectors)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(self.seed_of(episode))
            classifier = self.make(support.shape[1])
            classifier.process_support_set(support, torch.from_numpy(episode.support_classes))
            scores: NDArray[np.floating[Any]] = classifier(query).numpy()
        return scores

    def parameters(self) -> Mapping[str, Any]:
        """The keyword arguments of the classifier."""
        return dict(self.settings)
