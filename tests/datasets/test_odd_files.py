"""Whatever lies where a dataset expects its file: it is refused by name, and never waited for."""

import pytest

from lowshot_kedro.datasets import (
    ClassListDataset,
    FaissIndexDataset,
    FaissTransformDataset,
    HDF5ArraysDataset,
    HDF5FeatureBlocksDataset,
    HDF5FeaturesDataset,
    KnnGraphDataset,
    LabeledImagesDataset,
    LabelFileDataset,
    RawMatrixDataset,
    SafetensorsDataset,
    TorchStateDataset,
    WholeFileDataset,
)
from lowshot_kedro.errors import InputError
from tests.datasets.helpers import labeled_blocks, random_features, refused_by_check_and_load
from tests.odd_files import NO_FILES, no_waiting

# Dataset → the file that it reads first.
DATASETS = {
    "class list": (lambda folder: ClassListDataset(filepath=f"{folder}/f.csv"), "f.csv"),
    "index": (lambda folder: FaissIndexDataset(filepath=f"{folder}/f", n_columns=4), "f"),
    "transform": (lambda folder: FaissTransformDataset(filepath=f"{folder}/f.vt"), "f.vt"),
    "arrays": (lambda folder: HDF5ArraysDataset(filepath=f"{folder}/f.hdf5"), "f.hdf5"),
    "features": (lambda folder: HDF5FeaturesDataset(filepath=f"{folder}/f.hdf5"), "f.hdf5"),
    "blocks": (lambda folder: HDF5FeatureBlocksDataset(filepath=str(folder)), "block0.hdf5"),
    "graph": (lambda folder: KnnGraphDataset(filepath=f"{folder}/f", k=4), "f_I_11.int32"),
    "label file": (lambda folder: LabelFileDataset(filepath=f"{folder}/f.csv"), "f.csv"),
    "labeled list": (lambda folder: LabeledImagesDataset(filepath=f"{folder}/f.json"), "f.json"),
    "matrix": (lambda folder: RawMatrixDataset(filepath=f"{folder}/f.raw", n_columns=4), "f.raw"),
    "state": (lambda folder: TorchStateDataset(filepath=f"{folder}/f.pt"), "f.pt"),
    "tensors": (lambda folder: SafetensorsDataset(filepath=f"{folder}/f.st"), "f.st"),
    "json": (
        lambda folder: WholeFileDataset(
            dataset={"type": "json.JSONDataset", "filepath": f"{folder}/f.json"}
        ),
        "f.json",
    ),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", DATASETS)
def test_what_is_no_file_is_refused_and_said_to_be_there(tmp_path, name, kind):
    make_dataset, file = DATASETS[name]
    make, found = NO_FILES[kind]
    dataset = make_dataset(tmp_path)
    make(tmp_path / file)
    with no_waiting():
        refused_by_check_and_load(dataset, InputError, tmp_path / file, found, "expected a file")
        if kind != "link to itself" and name != "graph":
            # Otherwise a run would ask to have it made.
            assert dataset.exists()


@pytest.mark.parametrize("kind", NO_FILES)
def test_blocks_do_not_end_before_what_is_no_file(tmp_path, kind):
    make, found = NO_FILES[kind]
    dataset = HDF5FeatureBlocksDataset(filepath=str(tmp_path), rows_per_file=4)
    dataset.save(labeled_blocks(*random_features(8, 3), 4))
    (tmp_path / "block1.hdf5").unlink()
    make(tmp_path / "block1.hdf5")
    with no_waiting():
        refused_by_check_and_load(dataset, InputError, tmp_path / "block1.hdf5", found)


@pytest.mark.parametrize(
    "type_name, content, found",
    [
        ("json.JSONDataset", "[" * 100_000, "recursion"),
        ("json.JSONDataset", '{"a": ' + "1" * 5000 + "}", "4300 digits"),
        ("yaml.YAMLDataset", "[" * 5000, "recursion"),
        ("yaml.YAMLDataset", "a: [1\nb: 2\n", "expected ',' or ']'"),
        ("yaml.YAMLDataset", "a: " + "1" * 5000, "4300 digits"),
    ],
)
def test_what_kedro_cannot_read_is_said_in_one_line(tmp_path, type_name, content, found):
    path = tmp_path / "file"
    path.write_text(content)
    dataset = WholeFileDataset(dataset={"type": type_name, "filepath": str(path)})
    with pytest.raises(Exception) as error:
        dataset.load()
    cause = error.value.__cause__
    assert isinstance(cause, InputError)
    assert str(path) in str(cause)
    assert found in str(cause)
    assert "\n" not in str(cause)


NUMBERS = {
    "n_columns of an index": lambda n: FaissIndexDataset(filepath="f", n_columns=n),
    "n_rows of an index": lambda n: FaissIndexDataset(filepath="f", n_columns=4, n_rows=n),
    "n_columns of a matrix": lambda n: RawMatrixDataset(filepath="f", n_columns=n),
    "n_rows of a matrix": lambda n: RawMatrixDataset(filepath="f", n_columns=4, n_rows=n),
    "k of a graph": lambda n: KnnGraphDataset(filepath="f", k=n),
    "n_rows of a graph": lambda n: KnnGraphDataset(filepath="f", k=4, n_rows=n),
    "i0 of blocks": lambda n: HDF5FeatureBlocksDataset(filepath="f", i0=n),
    "rows_per_file of blocks": lambda n: HDF5FeatureBlocksDataset(filepath="f", rows_per_file=n),
}


@pytest.mark.parametrize("number", [-1, 2.0, True, "3", 1e300, float("nan"), 2**31, 10**30, [1]])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_the_catalog_that_is_none_is_refused_by_name(name, number):
    argument = name.split()[0]
    with pytest.raises(InputError, match=rf"f: {argument}: got .*, expected an integer from [01]"):
        NUMBERS[name](number)
