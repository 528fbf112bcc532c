import inspect
import json

import pytest
from kedro.io import DataCatalog

from lowshot_kedro.datasets import ClassListDataset
from lowshot_kedro.datasets.class_list import read_class_names
from lowshot_kedro.errors import InputError
from lowshot_kedro.protocol import read_class_split
from tests.datasets.helpers import refused, refused_by_check_and_load
from tests.datasets.test_previews import pretty, table_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "classes.csv"


def dataset_of(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return ClassListDataset(filepath=str(path))


def test_classes_without_a_mode_are_in_both(path):
    dataset = dataset_of(path, "class,role\ncat,novel\ndog,base\nape,base\nemu,novel\n")
    assert dataset.load() == {
        "base_classes_1": [2, 3],
        "novel_classes_1": [1, 4],
        "base_classes_2": [2, 3],
        "novel_classes_2": [1, 4],
        "label_names": ["cat", "dog", "ape", "emu"],
    }


def test_modes_have_their_own_classes(path):
    lines = ["dog,base,", "cat,novel,test", "emu,novel,val", "ape,base,val", "ape,novel,test"]
    dataset = dataset_of(path, "class,role,mode\n" + "\n".join(lines))
    assert dataset.load() == {
        "base_classes_1": [1, 4],
        "novel_classes_1": [3],
        "base_classes_2": [1],
        "novel_classes_2": [2, 4],
        "label_names": ["dog", "cat", "emu", "ape"],
    }


def test_the_protocol_reads_it(path):
    content = dataset_of(path, "class,role,mode\ndog,base,\ncat,novel,test\nemu,novel,val").load()
    split = read_class_split(content, "val")
    assert (split.base_classes.tolist(), split.novel_classes.tolist()) == ([0], [2])
    assert read_class_split(content, "test").novel_classes.tolist() == [1]
    assert split.class_names == ("dog", "cat", "emu")


@pytest.mark.parametrize(
    "text, encoding",
    [
        ("class,role\r\ncat,novel\r\ndog,base\r\n", "utf-8-sig"),
        ("role,class\nnovel,cat\nbase,dog", "utf-8"),
        ("\n class , role \n\n cat , novel \n,\ndog,base\n\n", "utf-8"),
        ('"class","role"\n"cat","novel"\n"dog", "base"\n', "utf-8"),
        ("class,mode,role\ncat,,novel\ndog,,base\n", "utf-8"),
    ],
    ids=["BOM and CRLF", "other order", "spaces and empty lines", "quotes", "empty modes"],
)
def test_ways_to_write_the_same(path, text, encoding):
    content = dataset_of(path, text, encoding).load()
    assert content["label_names"] == ["cat", "dog"]
    assert (content["novel_classes_2"], content["base_classes_1"]) == ([1], [2])


def test_names_may_hold_anything(path):
    names = ["T-shirt/top", "cat, domestic", "été", "7"]
    lines = ["T-shirt/top,novel", '"cat, domestic",base', "été,base", "7,base"]
    assert dataset_of(path, "class,role\n" + "\n".join(lines)).load()["label_names"] == names


@pytest.mark.parametrize(
    "text, facts",
    [
        ("", ["found no class"]),
        ("\n\n", ["found no class"]),
        ("class,role\n", ["found no class"]),
        ("cat,novel\n", ["'cat', 'novel'", "expected class, role and perhaps mode"]),
        ("class\ncat\n", ["'class'", "expected class, role"]),
        ("class,role,color\ncat,novel,red\n", ["'color'"]),
        ("class;role\ncat;novel\n", ["'class;role'", "separated by commas"]),
        ("class,role,role\ncat,novel,novel\n", ["'class', 'role', 'role'"]),
        ("class,role\ncat,novel\ndog,common\n", ["line 3", "role 'common'", "base, novel"]),
        ("class,role\n\ncat,Novel\n", ["line 3", "role 'Novel'"]),
        ("class,role,mode\ncat,novel,train\n", ["line 2", "mode 'train'", "val, test"]),
        ("class,role\ncat\n", ["line 2", "found 1 values, expected 2"]),
        ("class,role\ncat,novel,test\n", ["line 2", "found 3 values, expected 2"]),
        ("class,role\n,novel\n", ["line 2", "no name"]),
        ("class,role\ncat,novel\ndog,base\ncat,base\n", ["line 4", "cat", "line 2", "mode val"]),
        ("class,role,mode\ncat,novel,\ncat,base,test\n", ["line 3", "cat", "mode test", "line 2"]),
        ("class,role\ndog,base\n", ["no novel class in mode val"]),
        ("class,role,mode\ncat,novel,val\ndog,base,\n", ["no novel class in mode test"]),
        ('class,role\n"cat,novel\n', ["not a readable CSV file"]),
    ],
)
def test_what_is_no_class_list(path, text, facts):
    refused_by_check_and_load(dataset_of(path, text), ValueError, path, *facts)


@pytest.mark.parametrize(
    "text, found",
    [
        ("class,role" + ",more" * 10**6, "'class', 'role', 'more', 'more', 'more' and 999997 more"),
        ("class;role\ncat;novel", "'class;role'"),
        ("class,role\n" + "x" * 256 + ",novel", "expected at most 255 characters"),
        ("class,role\n" + "x" * 200_000 + ",novel", "not a readable CSV file"),
        ("class,role\ncat," + "x" * 100_000, "got role 'xxx"),
        ("class,role\nc\0at,novel", "NUL"),
    ],
    ids=["columns", "semicolons", "name", "longer name", "role", "NUL"],
)
def test_however_much_stands_there_it_is_refused_in_one_short_line(path, text, found):
    dataset = dataset_of(path, text)
    with refused(InputError, path, found):
        dataset.check()
    with pytest.raises(InputError) as error:
        dataset.check()
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_another_encoding(path):
    dataset = dataset_of(path, "class,role\nété,novel\n", "latin-1")
    refused_by_check_and_load(dataset, ValueError, path, "UTF-8")


def test_one_mode_may_have_no_classes_at_all(path):
    content = dataset_of(path, "class,role,mode\ncat,novel,test\ndog,base,test\n").load()
    assert (content["base_classes_1"], content["novel_classes_1"]) == ([], [])


def test_a_missing_file(path):
    dataset = ClassListDataset(filepath=str(path))
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, path)


def test_it_is_never_written(path):
    dataset = dataset_of(path, "class,role\ncat,novel\n")
    with refused(ValueError, path, "never by a run"):
        dataset.save({"label_names": []})
    assert path.read_text() == "class,role\ncat,novel\n"
    assert [file.name for file in path.parent.iterdir()] == ["classes.csv"]


def test_the_preview_shows_counts_and_first_classes(path):
    dataset = dataset_of(path, "class,role,mode\ncat,novel,test\ndog,base,\nemu,novel,val\n")
    table = table_of(dataset)
    assert table["classes"][0] == "3"
    assert (table["base in mode val"][0], table["novel in mode test"][0]) == ("1", "1")
    assert table["row 0"][:3] == ["cat", "novel", "test"]
    assert table["row 1"][:3] == ["dog", "base", "val and test"]
    assert inspect.signature(dataset.preview).return_annotation == "TablePreview"
    assert "classes 3" in pretty(dataset)
    assert str(path) in dataset._repr_html_()


def test_a_catalog_makes_it(path):
    dataset_of(path, "class,role\ncat,novel\n")
    config = {"type": "lowshot_kedro.datasets.ClassListDataset", "filepath": str(path)}
    catalog = DataCatalog.from_config({"class_split": config})
    assert catalog.load("class_split")["label_names"] == ["cat"]


def test_class_names_of_either_file(path, tmp_path):
    dataset_of(path, "class,role,mode\ncat,novel,test\ndog,base,\ncat,base,val\n")
    assert read_class_names(path) == ["cat", "dog"]
    split = tmp_path / "label_idx.json"
    split.write_text(json.dumps({"base_classes_1": [1], "label_names": ["emu", "ape"]}))
    assert read_class_names(split) == ["emu", "ape"]


@pytest.mark.parametrize(
    "text, fact",
    [
        ("{", "not valid JSON"),
        ("[]", "label_names"),
        ("{}", "label_names"),
        ('{"label_names": []}', "label_names"),
        ('{"label_names": "cat"}', "label_names"),
        ('{"label_names": ["cat", 3]}', "label_names"),
    ],
)
def test_a_class_split_without_names(tmp_path, text, fact):
    path = tmp_path / "label_idx.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"label_idx\.json: .*{fact}"):
        read_class_names(path)


@pytest.mark.parametrize("name", ["absent.csv", "absent.json"])
def test_class_names_of_a_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        read_class_names(tmp_path / name)
