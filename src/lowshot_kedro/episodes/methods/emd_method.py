"""What the variants of DeepEMD have in common: they compare regions by the cheapest flow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.deepemd.matching import QueryMatch, explain_matches
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.episodes.episode import Episode, View
from lowshot_kedro.episodes.methods.method import EpisodeMethod, MethodOptions
from lowshot_kedro.extras import needed_by

if TYPE_CHECKING:
    import torch

# The paper that adds feature pyramids and patches.
JOURNAL = (
    "C. Zhang, Y. Cai, G. Lin and C. Shen, DeepEMD: Differentiable Earth Mover's Distance for "
    "Few-Shot Learning, TPAMI 2023"
)


class EMDMethod(EpisodeMethod):
    """DeepEMD on regions that are there already.

    Prototypes are the support images; with more than one of a class, the structured fully connected
    layer learns them from these, in an order that follows from the seed and the episode.
    """

    needs = ("torch",)
    source = (
        "C. Zhang, Y. Cai, G. Lin and C. Shen, DeepEMD: Few-Shot Image Classification With "
        "Differentiable Earth Mover's Distance and Structured Classifiers, CVPR 2020"
    )

    def __init__(self, options: MethodOptions) -> None:
        super().__init__(options)
        with needed_by(self.name):
            from lowshot_kedro.deepemd.head import emd_logits
            from lowshot_kedro.deepemd.solvers import as_solver
            from lowshot_kedro.deepemd.structured_layer import StructuredLayer
        self._emd_logits = emd_logits
        self._solver = as_solver(options.deepemd.solver)
        self._layer = StructuredLayer.of(options.deepemd, self._solver)

    @property
    def pyramid(self) -> tuple[int, ...]:
        """Sides of the coarser maps whose places are regions too."""
        return ()

    @property
    def _settings(self) -> DeepEMDParameters:
        return self.options.deepemd

    def regions(self, episode: Episode) -> tuple[torch.Tensor, torch.Tensor]:
        """Regions of support and query images, float32 (n, C, H, W)."""
        import torch

        support, query = (torch.from_numpy(maps) for maps in episode.regions(self.view))
        return support, query

    def scores(self, episode: Episode) -> NDArray[np.floating[Any]]:
        """Logits."""
        import torch

        settings = self._settings
        support, queries = self.regions(episode)
        prototypes = self._prototypes(episode, support)
        with torch.no_grad():
            logits = self._emd_logits(
                queries, prototypes, temperature=settings.temperature, solver=self._solver
            )
        scores: NDArray[np.floating[Any]] = logits.numpy()
        return scores

    def matches(self, episode: Episode, n_queries: int) -> list[QueryMatch]:
        """How some queries, half of them wrongly classified ones, match their two best classes.

        Args:
            episode: The episode.
            n_queries: How many queries at most.
        """
        support, queries = self.regions(episode)
        return explain_matches(
            queries,
            episode.query_classes,
            support,
            self._prototypes(episode, support),
            n_queries=n_queries,
            temperature=self._settings.temperature,
            solver=self._solver,
        )

    def _prototypes(self, episode: Episode, support: torch.Tensor) -> torch.Tensor:
        import torch

        if episode.n_shot == 1:
            return support
        generator = torch.Generator().manual_seed(self.seed_of(episode))
        return self._layer.prototypes(support, episode.n_way, episode.n_shot, generator)

    def parameters(self) -> Mapping[str, Any]:
        """Temperature, solver, and how prototypes are learned."""
        settings = self._settings
        return {
            "temperature": settings.temperature,
            "solver": settings.solver,
            "prototype_lr": settings.prototype_lr,
            "prototype_passes": settings.prototype_passes,
            "prototype_batch_size": settings.prototype_batch_size,
        }

    @classmethod
    def why_left_out(cls, views: Collection[View]) -> str:
        """Images of one region alone: there is nothing to choose a flow between."""
        if isinstance(views, Mapping):
            _, height, width = views[cls.view].shape
            if height * width == 1:
                return "the features have one region, and DeepEMD compares regions"
        return ""
