import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.label_files import (
    LabelRow,
    LabelTable,
    read_label_file,
    table_text,
    write_label_file,
)
from tests.odd_files import NO_FILES, no_waiting

ROWS = {"a/1.jpg": "cat", "b 2.jpg": "dog, wild", "été.jpg": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.csv"


def read(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return read_label_file(path)


def rows(table):
    return dict(zip(table.files, table.labels, strict=True))


COMMAS = 'file,label\na/1.jpg,cat\nb 2.jpg,"dog, wild"\nété.jpg,\n'
SEMICOLONS = "file;label\r\na/1.jpg;cat\r\nb 2.jpg;dog, wild\r\nété.jpg;\r\n"


@pytest.mark.parametrize(
    "text, encoding",
    [
        (COMMAS, "utf-8"),
        (COMMAS, "utf-8-sig"),
        (COMMAS.replace("\n", "\r\n"), "utf-8"),
        (SEMICOLONS, "utf-8-sig"),
        ("sep=;\r\n" + SEMICOLONS, "utf-8"),
        ("sep=,\n" + COMMAS, "utf-8-sig"),
        (SEMICOLONS.replace(";", "\t"), "utf-8"),
        (SEMICOLONS.replace(";", "\t"), "utf-16"),
        ('\n"File", Label \n\n"a/1.jpg", cat \n,\nb 2.jpg, "dog, wild"\nété.jpg ,\n', "utf-8"),
        ("label,size,file\ncat,1,a/1.jpg\n'dog, wild',2,b 2.jpg\n,3,été.jpg".replace("'", '"'),
         "utf-8"),
        (COMMAS.replace("file,label", "img,what"), "utf-8"),
    ],
    ids=["plain", "BOM", "CRLF", "semicolons", "sep", "sep of commas", "tabs", "UTF-16",
         "spaces, quotes, empty lines", "other order", "other names"],
)  # fmt: skip
def test_ways_to_write_the_same(path, text, encoding):
    table = read(path, text, encoding)
    assert rows(table) == ROWS
    assert (table.groups, table.path) == (None, path)


@pytest.mark.parametrize("file", ["image", "Filename", "file_name", "path", "filepath", "FILE"])
@pytest.mark.parametrize("label", ["label", "Class", "category", "choice"])
def test_what_columns_may_be_called(path, file, label):
    assert rows(read(path, f"x,{label},{file},y\n1,cat,a.jpg,2\n")) == {"a.jpg": "cat"}


def test_groups(path):
    table = read(path, "file,label,group\na.jpg,cat,s1\nb.jpg,,s1\nc.jpg,dog, \n")
    assert table.groups == ("s1", "s1", None)
    assert table.labels == ("cat", None, "dog")
    assert read(path, "file,label,group\na.jpg,cat,\n").groups is None


def test_a_header_alone_gives_no_labels(path):
    assert len(read(path, "file,label\n")) == 0


@pytest.mark.parametrize(
    "text, facts",
    [
        ("", ["found no line", "file,label"]),
        ("\n\n", ["found no line"]),
        ("a.jpg,cat\nb.jpg,dog\n", ["'a.jpg', 'cat'", "first line", "file,label"]),
        ("one,two,three\na.jpg,cat,1\n", ["'one', 'two', 'three'"]),
        ("file,color\na.jpg,red\n", ["'file', 'color'"]),
        ("file\na.jpg\n", ["'file'"]),
        ("file,label\na.jpg,cat\nb.jpg\n", ["line 3", "found 1 values, expected 2"]),
        ("file,label\na,b.jpg,cat\n", ["line 2", "found 3 values, expected 2: file, label"]),
        ("file,label\n\n,cat\n", ["line 3", "found no file"]),
        ("file,label\na.jpg,cat\nb.jpg,dog\na.jpg,dog\n",
         ["line 4", "a.jpg has the label 'dog'", "'cat' by line 2"]),
        ("file,label\na.jpg,cat\na.jpg,\n", ["line 3", "the label nothing", "'cat' by line 2"]),
        ("file,label,group\na.jpg,cat,1\na.jpg,cat,2\n", ["line 3", "the group '2'", "line 2"]),
        ('file,label\na.jpg,"c\nat"\n', ["line 3", "'c\\nat'", "in one line"]),
        ("file,label\na.jpg," + "x" * 256, ["line 2", "at most 255"]),
        ("file,label\na.jpg," + "x" * 200_000, ["not a readable CSV file"]),
        ('file,label\n"a.jpg,cat\n', ["not a readable CSV file"]),
        ("file,label,confidence,margin,guess\na.jpg,cat,0.9,0.5,cat\n",
         ["confidence and guess", "computed", "labels that people gave"]),
        ('{"a.jpg": "cat"}', ["an object", "expected a list of tasks"]),
        ("[]", ["found no task"]),
        ('["a.jpg"]', ["expected a list"]),
        ('[{"file": "a.jpg", "label": "cat"}', ["not valid JSON"]),
        ("[" * 100_000, ["too deep"]),
        ('[{"data": {"image": "a.jpg"}, "predictions": [{"result": []}]}]',
         ["predictions and no annotations", "computed"]),
        ('[{"data": {"image": "a.jpg"}, "annotations": [3]}]', ["task 1", "without result"]),
        ('[{"data": [], "annotations": []}]', ["task 1", "no data"]),
        ('[{"data": {"a": "1", "b": "2"}, "annotations": []}]', ["task 1", "'a', 'b'"]),
        ('[{"image": 3, "choice": "cat"}]', ["task 1", "found no file"]),
        ('[{"id": 7, "image": "a.jpg", "choice": {"choices": ["cat", "dog"]}}]',
         ["task 7", "2 choices, 'cat', 'dog'", "one label"]),
    ],
)  # fmt: skip
def test_what_is_no_file_of_labels_is_refused_in_one_short_line(path, text, facts):
    with pytest.raises(InputError) as caught:
        read(path, text)
    message = str(caught.value)
    for fact in [str(path), *facts]:
        assert fact in message
    assert len(message) < 500 + len(str(path))
    assert "\n" not in message


def test_another_encoding(path):
    with pytest.raises(InputError, match="UTF-8"):
        read(path, COMMAS, "latin-1")


def test_the_same_label_twice_is_one(path):
    assert rows(read(path, "file,label\na.jpg,cat\na.jpg,cat \n")) == {"a.jpg": "cat"}


def test_a_missing_file_and_things_that_are_no_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_label_file(tmp_path / "absent.csv")
    for name, (make, found) in NO_FILES.items():
        make(tmp_path / name)
        with no_waiting(), pytest.raises(InputError, match=found):
            read_label_file(tmp_path / name)


# Label Studio


def annotation(*choices, cancelled=False, when="2026-01-01T00:00:00Z"):
    result = [{"from_name": "choice", "to_name": "image", "type": "choices",
               "value": {"choices": list(choices)}}] if choices else []  # fmt: skip
    return {"was_cancelled": cancelled, "result": result, "updated_at": when}


def task(number, file, *annotations):
    address = f"/data/local-files/?d={file}"
    return {"id": number, "data": {"image": address}, "annotations": list(annotations)}


def test_annotations_of_label_studio(path):
    tasks = [
        task(3, "photos/a%20b/%C3%A9t%C3%A9%2B%25.jpg", annotation("cat")),
        task(4, "2.jpg", annotation("dog", cancelled=True)),
        task(5, "3.jpg"),
        task(6, "4.jpg", annotation()),
        task(7, "5.jpg", annotation("cat"), annotation("dog"), annotation("emu", cancelled=True)),
        task(8, "6.jpg", annotation("dog", when="2026-03"), annotation("cat", when="2026-02")),
        {"data": {"name": "C:\\photos\\7.jpg"}, "annotations": [annotation(" emu ")]},
    ]
    table = read(path, json.dumps(tasks))
    assert rows(table) == {
        "photos/a b/été+%.jpg": "cat",
        "4.jpg": None,
        "5.jpg": "dog",
        "6.jpg": "dog",
        "C:\\photos\\7.jpg": "emu",
    }
    assert [table.place(row) for row in (0, 1, 4)] == ["task 3", "task 6", "task 7"]
    two = task(9, "8.jpg", annotation("cat", "dog"))
    with pytest.raises(InputError, match="task 9: found 2 choices, 'cat', 'dog'; expected one"):
        read(path, json.dumps([two]))


def test_the_short_exports_of_label_studio(path):
    kept = {"annotator": 1, "created_at": "2026-01-01", "updated_at": "2026-01-01",
            "lead_time": 2.5, "confidence": 0.9, "guess": "dog"}  # fmt: skip
    tasks = [
        {"image": "/data/local-files/?d=x/1.jpg", "id": 1, "annotation_id": 1, "choice": "cat"},
        {"image": "/data/local-files/?d=x/2.jpg", "id": 2, "annotation_id": 2,
         "choice": {"choices": ["dog"]}},
        {"image": "/data/local-files/?d=x/3.jpg", "id": 3, "annotation_id": 3},
        {"image": "/data/local-files/?d=x/1.jpg", "id": 1, "annotation_id": 4, "choice": "emu"},
    ]  # fmt: skip
    tasks = [{**each, **kept} for each in tasks]
    expected = {"x/1.jpg": "emu", "x/2.jpg": "dog", "x/3.jpg": None}
    assert rows(read(path, json.dumps(tasks))) == expected
    text = io.StringIO()
    writer = csv.DictWriter(text, [*dict.fromkeys(key for each in tasks for key in each)])
    writer.writeheader()
    for each in tasks:
        choice = each.get("choice", "")
        writer.writerow(
            each | {"choice": json.dumps(choice) if isinstance(choice, dict) else choice}
        )
    table = read(path, text.getvalue())
    assert rows(table) == expected
    assert table.place(0) == "line 5"


@pytest.mark.parametrize("name", ["breed", "Label", "class"])
def test_what_was_asked_for_in_label_studio_may_have_any_name(path, name):
    text = f"annotation_id,annotator,created_at,id,image,lead_time,{name},updated_at\n"
    assert rows(read(path, text + "1,1,2026,7,a.jpg,2.1,pug,2026\n")) == {"a.jpg": "pug"}
    short = {"id": 7, "annotation_id": 1, "image": "a.jpg", name: "pug"}
    assert rows(read(path, json.dumps([short]))) == {"a.jpg": "pug"}


@pytest.mark.parametrize(
    "address, expected",
    [
        ("s3://bucket/a/b%20c.jpg", "a/b c.jpg"),
        ("https://host/a/1.jpg?X=1", "a/1.jpg"),
        ("file:///home/a%20b/1.jpg", "/home/a b/1.jpg"),
        ("http://[/1.jpg", "1.jpg"),
        ("/data/local-files/?x=1", "/data/local-files/?x=1"),
        ("100%25.jpg", "100%25.jpg"),
    ],
)
def test_the_path_in_an_address(path, address, expected):
    assert read(path, f"file,label\n{address},cat\n").files == (expected,)


# Writing


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAME = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=6)


@given(
    st.lists(
        st.tuples(
            # No path that a folder is read for has such a thing, and addresses are shortened.
            TEXT.map(lambda text: "x" + text + ".jpg").filter(lambda file: "://" not in file),
            st.none() | NAME,
            st.none() | NAME,
        ),
        unique_by=lambda row: row[0],
    )
)
def test_what_is_written_is_read_again(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    write_label_file(path, iter(written))
    table = read_label_file(path)
    groups = table.groups or (None,) * len(table)
    assert [*zip(table.files, table.labels, groups, strict=True)] == written
    # As any other program reads it.
    content = [*csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))]
    assert [row[:2] for row in content[1:]] == [[f, label or ""] for f, label, _ in written]


def test_the_form_of_what_is_written(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("old")
    plain = [("a.jpg", "cat", None), ('b "2", c.jpg', None, None), (" d.jpg", "dog", None)]
    write_label_file(path, plain)
    assert path.read_bytes() == b'file,label\na.jpg,cat\n"b ""2"", c.jpg",\n" d.jpg",dog\n'
    assert read_label_file(path).files == ("a.jpg", 'b "2", c.jpg', " d.jpg")
    assert "".join(table_text([("a", "b", "g"), ("c", None, None)])) == (
        "file,label,group\na,b,g\nc,,\n"
    )
    odd = b"\xff.jpg".decode(errors="surrogateescape")
    write_label_file(path, [(odd, "cat", None)])
    assert rows(read_label_file(path)) == {odd: "cat"}
    assert [each.name for each in tmp_path.iterdir()] == ["labels.csv"]


def test_labels_that_somebody_has_checked(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,Checked,label,group\na,yes,cat,g\nb,,cat,\nc, TRUE ,dog,\nd,1,dog,\ne,X,dog,\n"
    )
    table = read_label_file(path)
    assert table.checked == (True, False, True, True, True)
    assert rows(table) == {"a": "cat", "b": "cat", "c": "dog", "d": "dog", "e": "dog"}
    assert table.groups == ("g", None, None, None, None)
    for odd in ("no", "0", "yes!"):
        path.write_text(f"file,label,checked\na,cat,yes\nb,cat,{odd}\n")
        with pytest.raises(InputError, match=f"labels.csv, line 3: found checked '{odd}', exp"):
            read_label_file(path)
    for nobody in ("file,label\na,cat\n", "file,label,checked\na,cat,\n"):
        path.write_text(nobody)
        assert read_label_file(path).checked is None
    path.write_text('[{"file": "a", "label": "cat", "checked": true}, {"file": "b", "label": "x"}]')
    assert read_label_file(path).checked == (True, False)
    path.write_text("something,checked\na,yes\n")
    with pytest.raises(InputError, match="found the columns 'something', 'checked'"):
        read_label_file(path)


@pytest.mark.parametrize("has_group", [False, True])
def test_checked_labels_are_written(tmp_path, has_group):
    group = "g" if has_group else None
    written = [LabelRow("a", "cat", None, True), LabelRow("b", "dog", group), ("c", None, None)]
    assert "".join(table_text(written)) == (
        "file,label,group,checked\na,cat,,yes\nb,dog,g,\nc,,,\n"
        if has_group
        else "file,label,checked\na,cat,yes\nb,dog,\nc,,\n"
    )
    write_label_file(tmp_path / "labels.csv", written)
    assert read_label_file(tmp_path / "labels.csv").checked == (True, False, False)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("old")

    def broken():
        yield "a.jpg", "cat", None
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        write_label_file(path, broken())
    assert [each.name for each in tmp_path.iterdir()] == ["labels.csv"]
    assert path.read_text() == "old"


def test_a_table_that_was_made_in_memory_names_rows(tmp_path):
    table = LabelTable(("a.jpg", "b.jpg"), ("cat", "dog"), None, tmp_path / "x.csv")
    assert table.place(1) == "row 2"
    with pytest.raises(InputError, match=r"x.csv, row 2: b.jpg has .* 'cat' by row 1"):
        table.require_same(0, 1)
