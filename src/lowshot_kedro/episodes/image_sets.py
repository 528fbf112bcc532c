"""The images that episodes are drawn from: the data sets of the field, or a folder per class."""

from __future__ import annotations

from lowshot_kedro.images.few_shot_sets import (
    CLASS_ORDERS,
    FEW_SHOT_SETS,
    ClassOrder,
    FewShotImages,
    few_shot_images,
)

__all__ = ["CLASS_ORDERS", "FEW_SHOT_SETS", "ClassOrder", "FewShotImages", "few_shot_images"]
