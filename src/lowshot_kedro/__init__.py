"""Low-shot (few-shot) image classification by label diffusion over large k-NN graphs.

Semi-supervised, transductive learning from n labelled images of a class and up to 100 million
unlabelled ones, on fixed embeddings: M. Douze, A. Szlam, B. Hariharan and H. Jégou, "Low-shot
learning with large-scale diffusion", CVPR 2018. :class:`LabelDiffusion` is a scikit-learn
estimator, :func:`label_folder` finds labels for a folder of images; the rest is a Kedro project
(`kedro run`) and the packages that its pipelines wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowshot_kedro.deprecated import find_moved_modules

if TYPE_CHECKING:
    from lowshot_kedro.estimators.label_diffusion import LabelDiffusion
    from lowshot_kedro.project.labeling_run import label_folder

__version__ = "0.2.0"

__all__ = ["LabelDiffusion", "label_folder"]

find_moved_modules()


def __getattr__(name: str) -> Any:
    # Commands that do not need the estimator should not wait until its libraries are there.
    if name == "LabelDiffusion":
        from lowshot_kedro.estimators.label_diffusion import LabelDiffusion

        return LabelDiffusion
    if name == "label_folder":
        from lowshot_kedro.project.labeling_run import label_folder

        return label_folder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
