"""Sources of images: lists, folders, zip files and torchvision data sets.

Every source is a sequence of :class:`LoadedImage` by number, with its labels at hand. An image that
is missing or cannot be read never stops a job: the source returns a blank one and says what was
wrong.
"""

from typing import TYPE_CHECKING

from lowshot_kedro.deprecated import old_names
from lowshot_kedro.extras import require

require("PIL", __name__)

from lowshot_kedro.images.decoding import AbsentImages, ImageSource, LoadedImage
from lowshot_kedro.images.few_shot_sets import FewShotImages, few_shot_images
from lowshot_kedro.images.file_keys import KeyedImages
from lowshot_kedro.images.file_names import file_namer
from lowshot_kedro.images.folders import ClassFolders, ImageFolder
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.images.labeled_list import LabeledList, write_labeled_list
from lowshot_kedro.images.subset import ImageSubset
from lowshot_kedro.images.torchvision_dataset import TorchvisionImages, torchvision_class_names
from lowshot_kedro.images.zip_shards import NumberedZipShards, write_zip_shards

__all__ = [
    "AbsentImages",
    "ClassFolders",
    "FewShotImages",
    "ImageFolder",
    "ImageSource",
    "ImageSubset",
    "JoinedImages",
    "KeyedImages",
    "LabeledList",
    "LoadedImage",
    "NumberedZipShards",
    "TorchvisionImages",
    "few_shot_images",
    "file_namer",
    "torchvision_class_names",
    "write_labeled_list",
    "write_zip_shards",
]

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
