"""DeepEMD as a classifier of easyfsl, a library of few-shot methods.

C. Zhang, Y. Cai, G. Lin and C. Shen, "DeepEMD: Few-Shot Image Classification With Differentiable
Earth Mover's Distance and Structured Classifiers", CVPR 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from easyfsl.methods import FewShotClassifier
from torch import nn

from lowshot_kedro.deepemd.head import emd_logits
from lowshot_kedro.deepemd.parameters import VARIANTS, DeepEMDParameters
from lowshot_kedro.deepemd.regions import encode_patches, with_pyramid
from lowshot_kedro.deepemd.solvers import Solver, as_solver
from lowshot_kedro.deepemd.structured_layer import StructuredLayer
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.dense import DenseExtractor, form_of
from lowshot_kedro.parameters import (
    field_names,
    require_boolean,
    require_integer,
    require_names,
    require_one_of,
)

_OF_PATCHES = ("grid", "sampling")
_MAPS = (
    "maps (images, channels, height, width), as of a network without its pooling, such as "
    "create_dense_network('ResNet12', …)"
)


class DeepEMD(FewShotClassifier):  # type: ignore[misc]
    """Classifies images by the cheapest flows between their regions and those of prototypes.

    The prototype of a class with one support image is that image; those of classes with several
    are learned, by the structured fully connected layer. Gradients go to support and query images
    where classes have one image each, and to query images only where they have several.

        dense = create_dense_network("ResNet12", "max_acc.pth", None)
        model = DeepEMD(dense)
        accuracy = easyfsl.utils.evaluate(model, loader, device="cpu")

    Args:
        backbone: A module that maps float32 (n, 3, height, width) to (n, C, h, w), or a dense
            network of :func:`~lowshot_kedro.networks.create_dense_network`; `nn.Identity()` for
            maps that are there already. For patches, it may return vectors (n, C) as well.
        variant: `fcn`: the regions of an image are the positions of its map; `pyramid`: those of
            coarser maps too; `grid` and `sampling`: patches, which images then consist of:
            (n, patches, 3, height, width), as :func:`~.regions.view_transform` makes them.
        solver: A name of `SOLVERS`, or a solver.
        seed: Draws the order in which the structured layer sees support images, anew for every
            support set.
        generator: Draws that order instead, going on from one support set to the next; on the
            processor.
        use_softmax: Whether scores are probabilities.
        options: The other parameters of
            :class:`~lowshot_kedro.deepemd.parameters.DeepEMDParameters`, such as `temperature` or
            `feature_pyramid`.

    Raises:
        InputError: If an argument cannot be used.
        MissingLibraryError: If the library of the solver is not installed.
    """

    def __init__(
        self,
        backbone: nn.Module | DenseExtractor,
        variant: str = "fcn",
        *,
        solver: str | Solver = "native",
        seed: int = 0,
        generator: torch.Generator | None = None,
        use_softmax: bool = False,
        **options: Any,
    ) -> None:
        require_one_of("variant", variant, VARIANTS)
        require_integer("seed", seed, 0)
        require_boolean("use_softmax", use_softmax)
        require_names("", options, {**field_names(DeepEMDParameters), "solver": False})
        module = backbone.dense if isinstance(backbone, DenseExtractor) else backbone
        if not isinstance(module, nn.Module):
            raise InputError(
                parameter="backbone",
                found=type(backbone).__name__,
                expected="a torch.nn.Module or a dense network of create_dense_network",
            )
        super().__init__(module, use_softmax=use_softmax)
        self.variant = variant
        self.options = DeepEMDParameters(**options)
        self._solver = as_solver(solver)
        self._seed, self._generator = seed, generator

    def compute_features(self, images: torch.Tensor) -> torch.Tensor:
        """The regions of images.

        Args:
            images: What the variant takes, see the class; the backbone sees all of them at once, or
                patches as :func:`~.regions.encode_patches` says.

        Returns:
            (n, C, h, w); of a pyramid (n, C, 1, nodes), of patches (n, C, patches, 1).

        Raises:
            InputError: If images are none of this variant, or the backbone returns no maps.
        """
        is_of_patches = self.variant in _OF_PATCHES
        if images.ndim != 4 + is_of_patches:
            patches = "patches, " if is_of_patches else ""
            raise InputError(
                parameter="images",
                found=tuple(images.shape),
                expected=f"a shape (images, {patches}3, height, width) for variant {self.variant}",
            )
        if is_of_patches:
            return encode_patches(self.backbone, images)
        maps: torch.Tensor = self.backbone(images)
        if getattr(maps, "ndim", 0) != 4:
            raise InputError(f"returns {form_of(maps)}", parameter="backbone", expected=_MAPS)
        if self.variant == "pyramid":
            return with_pyramid(maps, self.options.feature_pyramid)
        return maps

    def process_support_set(
        self, support_images: torch.Tensor, support_labels: torch.Tensor
    ) -> None:
        """Compute the prototypes of classes.

        Args:
            support_images: What the variant takes, of n_way classes with as many images each.
            support_labels: Integers (n,): their classes, 0 to n_way - 1, in any order.

        Raises:
            InputError: If labels are something else, or as :meth:`compute_features`.
        """
        support_labels = torch.as_tensor(support_labels)
        n_way, n_shot = _require_classes(support_labels, len(support_images))
        self.support_labels = support_labels
        self.support_features = self.compute_features(support_images)
        # aabbcc, where the layer expects abcabc.
        by_class = torch.argsort(support_labels, stable=True).reshape(n_way, n_shot)
        in_turn = self.support_features[by_class.T.flatten()]
        self.prototypes = in_turn if n_shot == 1 else self._learned(in_turn, n_way, n_shot)

    def _learned(self, support: torch.Tensor, n_way: int, n_shot: int) -> torch.Tensor:
        layer = StructuredLayer.of(self.options, self._solver)
        generator = self._generator or torch.Generator().manual_seed(self._seed)
        return layer.prototypes(support, n_way, n_shot, generator)

    def forward(self, query_images: torch.Tensor) -> torch.Tensor:
        """Scores of query images.

        Args:
            query_images: What the variant takes.

        Returns:
            (n, n_way): logits, or probabilities with `use_softmax`.

        Raises:
            InputError: If there was no support set, or as :meth:`compute_features`.
        """
        if not self.prototypes.numel():
            raise InputError("DeepEMD: no support set yet, expected process_support_set first")
        logits = emd_logits(
            self.compute_features(query_images),
            self.prototypes,
            temperature=self.options.temperature,
            solver=self._solver,
        )
        scores: torch.Tensor = self.softmax_if_specified(logits)
        return scores

    @staticmethod
    def is_transductive() -> bool:
        """False: every query image is classified by itself."""
        return False


def _require_classes(labels: torch.Tensor, n_images: int) -> tuple[int, int]:
    """Number of classes and of images of each, of labels that are 0 to n_way - 1."""
    is_list = labels.ndim == 1 and not labels.is_floating_point() and not labels.is_complex()
    if not is_list or len(labels) != n_images:
        raise InputError(
            f"is {str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}",
            parameter="support_labels",
            expected=f"integers of shape ({n_images},), one for each support image",
        )
    if not n_images:
        raise InputError(parameter="support_images", found="none", expected="at least one")
    classes, counts = torch.unique(labels, return_counts=True)
    if classes.tolist() != list(range(len(classes))):
        raise InputError(
            f"has classes {', '.join(map(str, classes.tolist()))}",
            parameter="support_labels",
            expected="classes numbered from 0",
        )
    n_shot = int(counts[0])
    if bool((counts != n_shot).any()):
        of_classes = [f"{count} of class {number}" for number, count in enumerate(counts.tolist())]
        raise InputError(
            f"has {', '.join(of_classes)}",
            parameter="support_labels",
            expected="as many images of every class",
        )
    return len(classes), n_shot
