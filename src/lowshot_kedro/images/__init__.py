"""Where pictures come from.

Every source is a sequence of :class:`Picture` by number, with its labels at hand. A picture that is
missing or cannot be read never stops a job: the source returns a blank one and says what was wrong.
"""

from lowshot_kedro.images.folders import ClassFolders, PictureFolder
from lowshot_kedro.images.labeled_list import LabeledList, write_labeled_list
from lowshot_kedro.images.picture import AbsentPictures, ImageSource, Picture
from lowshot_kedro.images.torchvision_dataset import TorchvisionPictures
from lowshot_kedro.images.zip_shards import NumberedZipShards, write_zip_shards

__all__ = [
    "AbsentPictures",
    "ClassFolders",
    "ImageSource",
    "LabeledList",
    "NumberedZipShards",
    "Picture",
    "PictureFolder",
    "TorchvisionPictures",
    "write_labeled_list",
    "write_zip_shards",
]
