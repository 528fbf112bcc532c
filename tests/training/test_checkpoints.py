"""Checkpoints on a disk that is full, and folders with what does not belong there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from lowshot_kedro.errors import InputError
from lowshot_kedro.training import checkpoints as module
from lowshot_kedro.training.checkpoints import Checkpoint, Checkpoints
from tests.training.making import checkpoints

ROWS = {"bank": torch.zeros(4, 2)}


def begun(folder: Path) -> Checkpoints:
    made = checkpoints(folder)
    made.begin()
    made.save(5, {"epoch": 1}, ROWS)
    return made


class _FullDisk:
    """A file that takes some bytes, and no more."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: PTH123, SIM115

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        if self._file.tell() > 200:
            raise OSError(28, "No space left on device")
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begun(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode: _FullDisk(path))
        with pytest.raises(OSError, match=r"cannot be written .*No space left on device"):
            made.save(6, {"network": torch.zeros(1000)}, ROWS)

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(module, "save_file", full)
        with pytest.raises(OSError, match=r"cannot be written .*No space left on device"):
            made.save(6, {}, ROWS)
    assert sorted(tmp_path.rglob("*")) == before
    found = made.latest()
    assert found is not None and found.state == {"epoch": 1}


def test_what_does_not_belong_there_is_left_alone(tmp_path: Path) -> None:
    made = begun(tmp_path)
    (step,) = made.folder.glob("step-*")
    shutil.copytree(step, made.folder / "step-copy")
    found = made.latest()
    assert found is not None and found.state == {"epoch": 1}


def test_a_checkpoint_without_its_state_is_none_and_is_written_anew(tmp_path: Path) -> None:
    made = begun(tmp_path)
    (step,) = made.folder.glob("step-*")
    (step / "state.pt").unlink()
    assert made.latest() is None
    made.save(5, {"epoch": 2}, ROWS)
    found = made.latest()
    assert found is not None and found.state == {"epoch": 2}


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_damaged_state_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    made = begun(tmp_path)
    (state,) = made.folder.glob("step-*/state.pt")
    state.write_bytes(content)
    with pytest.raises(
        InputError, match=r"not a readable checkpoint \(\w+\); remove the"
    ) as caught:
        made.latest()
    assert "\n" not in str(caught.value)


def test_a_state_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    made = begun(tmp_path)
    (state,) = made.folder.glob("step-*/state.pt")
    torch.save([1], state)
    with pytest.raises(InputError, match="holds something else"):
        made.latest()


def test_some_are_kept_for_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = begun(tmp_path)
    for number, is_kept in ((6, True), (7, False), (8, True), (9, False)):
        made.save(number, {"epoch": number}, ROWS, is_kept)
    paths = sorted(made.folder.glob("step-*"))
    assert [int(path.name.removeprefix("step-")) for path in paths] == [6, 8, 9]
    assert [Checkpoint(path).state["epoch"] for path in paths] == [6, 8, 9]
    assert torch.equal(Checkpoint(paths[0]).read_rows("bank", 0, 4), ROWS["bank"])
    found = made.latest()
    assert found is not None and found.state == {"epoch": 9}
    with caplog.at_level("INFO"):
        checkpoints(tmp_path, another=1).name_others()
    assert "checkpoints of 1 other training take" in caplog.text


def test_a_damaged_one_is_named_though_others_are_kept(tmp_path: Path) -> None:
    made = begun(tmp_path)
    made.save(6, {"epoch": 6}, ROWS, is_kept=True)
    made.save(7, {"epoch": 7}, ROWS)
    (made.folder / "step-000000000007" / "state.pt").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"step-000000000007: not a readable checkpoint"):
        made.latest()
