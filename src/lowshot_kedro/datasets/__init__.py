"""Kedro datasets for the file formats of the published experiment, and for its results.

Loading is cheap: large files come back as memmaps or as handles that read block by block. Saving
is all or nothing: a file appears under its name when it is complete. What is computed while it is
saved (:class:`~lowshot_kedro.blocks.Resumable`) leaves its beginning to the next run.
"""

from lowshot_kedro.extras import require

for library in ("kedro", "kedro_datasets", "h5py", "pandas", "PIL", "matplotlib"):
    require(library, __name__)

from lowshot_kedro.datasets.class_list import ClassListDataset, ClassSplitDataset
from lowshot_kedro.datasets.cluster_assignments import ClusterAssignmentsDataset
from lowshot_kedro.datasets.faiss_files import FaissIndexDataset, FaissTransformDataset
from lowshot_kedro.datasets.few_shot_images import FewShotImagesDataset
from lowshot_kedro.datasets.folder import FolderDataset
from lowshot_kedro.datasets.hdf5_arrays import HDF5ArraysDataset
from lowshot_kedro.datasets.hdf5_features import (
    HDF5FeatureBlocksDataset,
    HDF5Features,
    HDF5FeaturesDataset,
)
from lowshot_kedro.datasets.images import (
    ClassFolderImagesDataset,
    FolderImagesDataset,
    ImagesDataset,
    LabeledImagesDataset,
    TorchvisionImagesDataset,
    ZipShardImagesDataset,
)
from lowshot_kedro.datasets.json_array import JsonArrayDataset
from lowshot_kedro.datasets.knn_graph import KnnGraphDataset
from lowshot_kedro.datasets.label_file import LabelFileDataset
from lowshot_kedro.datasets.labeling_images import (
    LabeledFolderImagesDataset,
    UnlabeledFolderImagesDataset,
)
from lowshot_kedro.datasets.labels_page import LabelsPageDataset
from lowshot_kedro.datasets.raw_matrix import RawMatrixDataset
from lowshot_kedro.datasets.region_features import RegionFeaturesDataset
from lowshot_kedro.datasets.runs import RunMetricsDataset, RunScoresDataset
from lowshot_kedro.datasets.safetensors_file import SafetensorsDataset
from lowshot_kedro.datasets.torch_state import TorchStateDataset
from lowshot_kedro.datasets.torchvision_classes import TorchvisionClassSplitDataset
from lowshot_kedro.datasets.unlabeled_images import UnlabeledImagesDataset
from lowshot_kedro.datasets.whole_file import EditableFileDataset, WholeFileDataset

__all__ = [
    "ClassFolderImagesDataset",
    "ClassListDataset",
    "ClassSplitDataset",
    "ClusterAssignmentsDataset",
    "EditableFileDataset",
    "FaissIndexDataset",
    "FaissTransformDataset",
    "FewShotImagesDataset",
    "FolderDataset",
    "FolderImagesDataset",
    "HDF5ArraysDataset",
    "HDF5FeatureBlocksDataset",
    "HDF5Features",
    "HDF5FeaturesDataset",
    "ImagesDataset",
    "JsonArrayDataset",
    "KnnGraphDataset",
    "LabelFileDataset",
    "LabeledFolderImagesDataset",
    "LabeledImagesDataset",
    "LabelsPageDataset",
    "RawMatrixDataset",
    "RegionFeaturesDataset",
    "RunMetricsDataset",
    "RunScoresDataset",
    "SafetensorsDataset",
    "TorchStateDataset",
    "TorchvisionClassSplitDataset",
    "TorchvisionImagesDataset",
    "UnlabeledFolderImagesDataset",
    "UnlabeledImagesDataset",
    "WholeFileDataset",
    "ZipShardImagesDataset",
]
