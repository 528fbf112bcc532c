import os

import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import read_json, require_file
from tests.odd_files import NO_FILES, no_waiting


def test_the_size_of_a_file_and_of_one_behind_links(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"1234567")
    link.symlink_to("file")
    assert (require_file(path), require_file(link)) == (7, 7)


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("read", [require_file, read_json])
def test_what_is_no_file_is_not_opened(tmp_path, read, kind):
    make, found = NO_FILES[kind]
    path = tmp_path / "train.json"
    make(path)
    with no_waiting(), pytest.raises(InputError, match=rf"train\.json: .*{found}.*expected a file"):
        read(path)


@pytest.mark.parametrize("name", ["absent", "file/below", "dangling"])
def test_what_is_not_there(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("absent")
    with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
        require_file(tmp_path / name)


@pytest.mark.parametrize("text", ['{"a": [1, "é"]}', '\ufeff{"a": [1, "é"]}'])
def test_json_with_and_without_a_byte_order_mark(tmp_path, text):
    path = tmp_path / "list.json"
    path.write_text(text, encoding="utf-8")
    assert read_json(path) == {"a": [1, "é"]}


@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        (b"1" * 5000, "not valid JSON"),
        (b"[" * 100_000, "too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "too deep"),
        (b'{"a":' * 100_000, "too deep"),
    ],
)
def test_what_is_no_json_is_refused_in_one_line(tmp_path, content, found):
    path = tmp_path / "list.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"list\.json: .*{found}") as error:
        read_json(path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "list.json"
    path.touch(mode=0)
    with pytest.raises(PermissionError, match=r"list\.json"):
        read_json(path)
