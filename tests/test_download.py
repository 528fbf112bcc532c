"""Downloads from a server in this process, which does everything wrong that servers do."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from lowshot_kedro.download import (
    GRAPH_SIZES,
    PUBLISHED_FILES,
    Transfer,
    look_up,
    select_files,
    transfer,
)
from lowshot_kedro.download.__main__ import main
from lowshot_kedro.errors import TRACEBACK_VARIABLE, InputError
from tests.other_processes import another_process, read, written
from tests.projects import ROOT

ROW = 1024
Answer = namedtuple("Answer", "method path range if_range n_bytes")


@dataclass
class Server:
    """What a server has, how it behaves, and what it was asked and sent."""

    files: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Of files that are only told of."""
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    statuses: list[int] = field(default_factory=list)
    """Answers to the next requests, before it does what it is asked."""
    break_after: list[int] = field(default_factory=list)
    """Bytes of the next files after which it breaks off."""
    ranges: bool = True
    part_starts_at: int = 0
    """Bytes by which a part is not where it was asked for."""
    tells_parts: bool = True
    length: int | None = None
    """What it says of the length of whole files, other than when asked for it alone."""
    hold_after: int | None = None
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    answers: list[Answer] = field(default_factory=list)
    url: str = ""

    @property
    def sent(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.method == "GET"]

    @property
    def n_bytes_sent(self) -> int:
        return sum(answer.n_bytes for answer in self.sent)

    def forget(self) -> None:
        self.answers.clear()


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        server: Server = self.server.behaviour
        # To a proxy the whole address is sent.
        path = urlsplit(self.path).path.removeprefix("/mirror").lstrip("/")
        is_get = self.command == "GET"
        wanted = (self.headers.get("Range"), self.headers.get("If-Range"))
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            server.answers.append(Answer(self.command, path, *wanted, 0))
            self.send_error(status)
            return
        if path not in server.files and path not in server.sizes:
            self.send_error(404)
            return
        content = server.files.get(path, b"")
        size = server.sizes.get(path, len(content))
        first, last = 0, size
        status = 200
        versions = (None, server.headers.get("ETag"), server.headers.get("Last-Modified"))
        if is_get and wanted[0] and server.ranges and wanted[1] in versions:
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted[0])
            first, last = int(match[1]) + server.part_starts_at, int(match[2]) + 1
            status = 206
        self.send_response(status)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if status == 206 and server.tells_parts:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{size}")
        length = last - first
        if is_get and status == 200 and server.length is not None:
            length = server.length
        self.send_header("Content-Length", str(length))
        part = content[first:last] if is_get else b""
        if is_get and server.break_after:
            part = part[: server.break_after.pop(0)]
        # Before it is sent: whoever has received it may look.
        server.answers.append(Answer(self.command, path, *wanted, len(part)))
        self.end_headers()
        with suppress(OSError):
            if is_get and server.hold_after is not None:
                self.wfile.write(part[: server.hold_after])
                server.held.set()
                server.released.wait(20)
                part = part[server.hold_after :]
            self.wfile.write(part)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.behaviour = server
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server({"file": random_bytes(100_000), "rows": random_bytes(50 * ROW)})) as it:
        yield it


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_FIRST_PAUSE_SECONDS", 0.0001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def random_bytes(n: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(n)


def fetch(server: Server, folder: Path, name: str = "file", n_rows: int | None = None) -> Path:
    remote = look_up(f"{server.url}/{name}")
    row_bytes = ROW if name == "rows" else None
    n_bytes = None if n_rows is None else n_rows * ROW
    Transfer(remote, folder / name, n_bytes, row_bytes).run()
    return folder / name


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_file_is_fetched_once(server: Server, tmp_path: Path):
    path = fetch(server, tmp_path / "new" / "folder")
    assert path.read_bytes() == server.files["file"]
    assert hidden(path.parent) == []
    server.forget()
    assert fetch(server, tmp_path / "new" / "folder") == path
    assert [answer.method for answer in server.answers] == ["HEAD"]


def test_an_empty_file(server: Server, tmp_path: Path):
    server.files["file"] = b""
    assert fetch(server, tmp_path).read_bytes() == b""


def test_what_breaks_off_goes_on_where_it_was(server: Server, tmp_path: Path):
    server.break_after = [30_000, 1, 0, 50_000]
    path = fetch(server, tmp_path)
    assert path.read_bytes() == server.files["file"]
    assert [answer.range for answer in server.sent] == [
        None,
        "bytes=30000-99999",
        "bytes=30001-99999",
        "bytes=30001-99999",
        "bytes=80001-99999",
    ]
    assert server.n_bytes_sent == 100_000
    assert {answer.if_range for answer in server.sent[1:]} == {'"1"'}


def test_it_gives_up_after_attempts_without_progress_and_goes_on_later(
    server: Server, tmp_path: Path
):
    server.break_after = [40_000] + [0] * 20
    with pytest.raises(ConnectionError, match=r"/file: broke off 60000 bytes.*8 attempts") as error:
        fetch(server, tmp_path)
    assert server.url in str(error.value)
    assert len(server.sent) == transfer.MAX_ATTEMPTS
    assert not (tmp_path / "file").exists()
    assert hidden(tmp_path) == [".download-file", ".download-file.json"]
    server.break_after = []
    server.forget()
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]
    assert server.n_bytes_sent == 60_000


def test_progress_gives_new_patience(server: Server, tmp_path: Path):
    server.break_after = [10_000, *[0] * (transfer.MAX_ATTEMPTS - 2)] * 3
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]
    assert len(server.sent) == 3 * (transfer.MAX_ATTEMPTS - 1) + 1


def test_pauses_grow(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    monkeypatch.setattr(transfer, "_FIRST_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(transfer, "_LONGEST_PAUSE_SECONDS", 5.0)
    monkeypatch.setattr(transfer.time, "sleep", pauses.append)
    server.break_after = [0, 0, 0, 0, 1, 0]
    fetch(server, tmp_path)
    assert pauses == [1, 2, 4, 5, 1, 2]


def test_a_server_that_cannot_continue_starts_over(server: Server, tmp_path: Path):
    server.ranges = False
    server.break_after = [30_000, 60_000]
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]
    assert [answer.n_bytes for answer in server.sent] == [30_000, 60_000, 100_000]


def test_progress_goes_back_when_it_starts_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = []

    class Recorded(transfer.Progress):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

        def update(self, n_rows: int) -> None:
            super().update(n_rows)
            assert 0 <= self._done <= self._total == 100_000

    monkeypatch.setattr(transfer, "Progress", Recorded)
    server.ranges = False
    server.break_after = [90_000]
    fetch(server, tmp_path)
    assert [progress._done for progress in made] == [100_000]


def test_starting_over_is_no_progress(server: Server, tmp_path: Path):
    server.ranges = False
    server.break_after = [30_000] * 50
    with pytest.raises(ConnectionError, match="8 attempts"):
        fetch(server, tmp_path)
    assert len(server.sent) == 1 + transfer.MAX_ATTEMPTS - 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}),
        (
            {"Last-Modified": "Fri, 15 Jun 2018 13:01:00 GMT"},
            {"Last-Modified": "Sat, 16 Jun 2018 13:01:00 GMT"},
        ),
        (
            {"ETag": 'W/"1"', "Last-Modified": "Fri, 15 Jun 2018 13:01:00 GMT"},
            {"ETag": 'W/"1"', "Last-Modified": "Sat, 16 Jun 2018 13:01:00 GMT"},
        ),
    ],
)
def test_a_file_that_has_changed_is_fetched_anew(
    server: Server, tmp_path: Path, before: dict[str, str], after: dict[str, str]
):
    server.headers = before
    server.break_after = [40_000] + [0] * transfer.MAX_ATTEMPTS
    with pytest.raises(ConnectionError):
        fetch(server, tmp_path)
    assert server.sent[1].if_range == list(before.values())[-1]
    server.headers, server.break_after = after, []
    server.files["file"] = random_bytes(100_000, seed=1)
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]


def test_a_file_that_changes_meanwhile_is_refused(server: Server, tmp_path: Path):
    remote = look_up(f"{server.url}/file")
    server.headers = {"ETag": '"2"'}
    with pytest.raises(InputError, match=r'changed on the server \(version "1" before, "2" now\)'):
        Transfer(remote, tmp_path / "file").run()
    assert not (tmp_path / "file").exists()
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]


def test_a_server_that_tells_no_version(server: Server, tmp_path: Path):
    server.headers = {}
    server.break_after = [40_000]
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]
    assert [answer.if_range for answer in server.sent] == [None, None]


def test_another_length_than_told_before_is_refused(server: Server, tmp_path: Path):
    server.length = 90_000
    with pytest.raises(InputError, match="size 100000 before, 90000 now"):
        fetch(server, tmp_path)
    assert not (tmp_path / "file").exists()


def test_fewer_bytes_than_told_are_never_a_whole_file(server: Server, tmp_path: Path):
    server.sizes["file"] = 100_001
    with pytest.raises(ConnectionError, match="broke off 1 bytes before the end"):
        fetch(server, tmp_path)
    assert not (tmp_path / "file").exists()


def test_a_part_from_another_place_is_refused(server: Server, tmp_path: Path):
    server.break_after, server.part_starts_at = [40_000], 10
    with pytest.raises(InputError, match="sends bytes from 40010, asked for those from 40000"):
        fetch(server, tmp_path)


def test_a_part_that_does_not_say_where_it_is_from_is_refused(server: Server, tmp_path: Path):
    server.break_after, server.tells_parts = [40_000], False
    with pytest.raises(InputError, match="sends a part without saying which"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(server: Server, tmp_path: Path, status: int):
    server.statuses = [status]
    with pytest.raises(InputError, match=rf"http://.*/file: the server answers {status} "):
        fetch(server, tmp_path)
    server.statuses = [200, status]
    with pytest.raises(InputError, match=rf"http://.*/file: the server answers {status} "):
        fetch(server, tmp_path)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_error_is_tried_again(server: Server, tmp_path: Path, status: int):
    server.statuses = [status, status, 200, status, 200]
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]
    server.statuses = [status] * 20
    with pytest.raises(ConnectionError, match=f"the server answers {status} .*8 attempts"):
        look_up(f"{server.url}/file")


def test_no_server(tmp_path: Path):
    with running(Server()) as server:
        address = f"{server.url}/file"
    with pytest.raises(ConnectionError, match=f"{address}: no connection"):
        look_up(address)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://host/file", "host/file"])
def test_other_protocols_are_refused(address: str):
    with pytest.raises(InputError, match=r"expected an address that begins with http"):
        look_up(address)


def test_a_file_of_another_size_is_not_overwritten(server: Server, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"something of my own")
    with pytest.raises(InputError, match=r"/file: has 19 bytes, expected 100000; it is not over"):
        fetch(server, tmp_path)
    assert (tmp_path / "file").read_bytes() == b"something of my own"
    assert server.sent == []


def test_only_the_first_rows_are_fetched_and_more_are_added(server: Server, tmp_path: Path):
    content = server.files["rows"]
    path = fetch(server, tmp_path, "rows", 20)
    assert path.read_bytes() == content[: 20 * ROW]
    assert [answer.range for answer in server.sent] == [f"bytes=0-{20 * ROW - 1}"]

    server.forget()
    server.break_after = [5 * ROW + 3]
    assert fetch(server, tmp_path, "rows", 35).read_bytes() == content[: 35 * ROW]
    assert server.n_bytes_sent == 15 * ROW

    server.forget()
    assert fetch(server, tmp_path, "rows", 10).read_bytes() == content[: 35 * ROW]
    assert server.sent == []

    assert fetch(server, tmp_path, "rows").read_bytes() == content
    assert server.n_bytes_sent == 15 * ROW
    assert hidden(tmp_path) == []
    server.forget()
    assert fetch(server, tmp_path, "rows", 10).read_bytes() == content
    assert server.sent == []


def test_first_rows_from_a_server_that_sends_all(server: Server, tmp_path: Path):
    server.ranges = False
    path = fetch(server, tmp_path, "rows", 20)
    assert path.read_bytes() == server.files["rows"][: 20 * ROW]


def test_fewer_rows_end_an_unfinished_file(server: Server, tmp_path: Path):
    server.break_after = [30 * ROW + 7] + [0] * transfer.MAX_ATTEMPTS
    with pytest.raises(ConnectionError):
        fetch(server, tmp_path, "rows", 40)
    server.forget()
    assert fetch(server, tmp_path, "rows", 25).read_bytes() == server.files["rows"][: 30 * ROW]
    assert server.sent == []
    assert fetch(server, tmp_path, "rows", 31).read_bytes() == server.files["rows"][: 31 * ROW]
    assert server.n_bytes_sent == ROW


def test_rows_that_come_from_elsewhere_are_not_continued(server: Server, tmp_path: Path):
    own = random_bytes(20 * ROW, seed=2)
    (tmp_path / "rows").write_bytes(own)
    assert fetch(server, tmp_path, "rows", 20).read_bytes() == own
    with pytest.raises(
        InputError, match=r"has 20480 bytes \(20 rows\), expected 30720; it was not"
    ):
        fetch(server, tmp_path, "rows", 30)
    assert (tmp_path / "rows").read_bytes() == own


def test_rows_of_another_version_are_not_continued(server: Server, tmp_path: Path):
    fetch(server, tmp_path, "rows", 20)
    server.headers = {"ETag": '"2"'}
    with pytest.raises(InputError, match=r"file that is on the server now, and is not continued"):
        fetch(server, tmp_path, "rows", 30)


@pytest.mark.parametrize("n_bytes", [20 * ROW + 1, 51 * ROW])
def test_rows_that_are_cut_off_or_too_many_are_refused(
    server: Server, tmp_path: Path, n_bytes: int
):
    (tmp_path / "rows").write_bytes(bytes(n_bytes))
    with pytest.raises(InputError, match=f"has {n_bytes} bytes, expected 10240"):
        fetch(server, tmp_path, "rows", 10)


def test_more_rows_than_published_are_refused(server: Server, tmp_path: Path):
    with pytest.raises(InputError, match=r"has 51200 bytes \(50 rows\), but 52224 \(51 rows\) are"):
        fetch(server, tmp_path, "rows", 51)


@pytest.mark.parametrize("note", [None, "", "[]", '{"size": 1}'])
def test_an_unfinished_file_without_a_note_counts_for_nothing(
    server: Server, tmp_path: Path, note: str | None
):
    (tmp_path / ".download-file").write_bytes(bytes(40_000))
    if note is not None:
        (tmp_path / ".download-file.json").write_text(note)
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_two_processes_do_not_write_the_same_file(server: Server, tmp_path: Path):
    path = tmp_path / "file"
    message = rf"{path}: process \d+ \(.+\) has been writing it since"
    with another_process(written, path), pytest.raises(InputError, match=message):
        fetch(server, tmp_path)
    fetch(server, tmp_path)
    # What is complete may be read while somebody looks whether it is.
    with another_process(read, path):
        fetch(server, tmp_path)


def test_a_disk_that_fills_up_costs_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"\.download-file: the disk is full; make room"):
            fetch(server, tmp_path)
    server.forget()
    assert fetch(server, tmp_path).read_bytes() == server.files["file"]
    assert server.sent == []


# --- which files


def names(*arguments: object, **options: object) -> list[str]:
    return [file.name for file in select_files(*arguments, **options)]


EVERYBODY_NEEDS = [
    "label_idx.json",
    "features/PCAR256.vt",
    "features/val.hdf5",
    "features/train.hdf5",
]
VECTORS = "features/f100m/concatenated_PCAR256.raw"


def test_files_follow_the_background():
    assert names([0]) == EVERYBODY_NEEDS
    assert names([500]) == [*EVERYBODY_NEEDS, VECTORS]
    assert names([0, 1_000_000]) == [
        *EVERYBODY_NEEDS,
        "knngraph/ndis1000000.index",
        "knngraph/ndis1000000_k32_I_11.int32",
        "knngraph/ndis1000000_k32_D_11.float32",
        VECTORS,
    ]
    assert len(names(GRAPH_SIZES)) == 4 + 4 * 3 + 1
    assert len(names([0], everything=True)) == 4 + 4 * 3 + 1 + 2 + 6


def test_files_by_name():
    assert names([0], ["block1.hdf5", "label_idx.json", "features/f100m/block1.hdf5"]) == [
        "label_idx.json",
        "features/f100m/block1.hdf5",
    ]
    with pytest.raises(InputError, match=r"blok0\.hdf5: no published .* did you mean block0\.hdf5"):
        select_files([0], ["blok0.hdf5"])
    with pytest.raises(InputError, match="got 0, expected at least 1"):
        select_files([0], [VECTORS])


def test_published_addresses():
    addresses = {file.name: file.address() for file in PUBLISHED_FILES}
    # The original's README, and where its code reads the transform from.
    published = "https://dl.fbaipublicfiles.com/low-shot-diffusion"
    assert addresses["features/train.hdf5"] == f"{published}/features/train.hdf5"
    assert addresses["features/PCAR256.vt"] == f"{published}/features/f100m/PCAR256.vt"
    assert (
        addresses["knngraph/ndis100000_k32_D_11.float32"]
        == f"{published}/knngraph/ndis100000_k32_D_11.float32"
    )
    assert addresses["label_idx.json"].endswith("/label_idx.json")
    # README and download_models.sh of DeeperCluster.
    of_networks = "https://dl.fbaipublicfiles.com/deepcluster"
    elsewhere = {
        "deepercluster/ours.pth": f"{of_networks}/ours/ours.pth",
        "deepercluster/deepcluster_flickr.pth": f"{of_networks}/deepcluster/deepcluster_flickr.pth",
        "deepercluster/deepcluster_imagenet.pth.tar": f"{of_networks}/vgg16/checkpoint.pth.tar",
        "deepercluster/rotnet_flickr.pth": f"{of_networks}/rotnet/rotnet_flickr.pth",
        "deepercluster/rotnet_imagenet.pth": f"{of_networks}/rotnet/rotnet_imagenet.pth",
        "deepercluster/flickr_unique_ids.npy": f"{of_networks}/flickr_unique_ids.npy",
    }
    assert {name: addresses[name] for name in elsewhere} == elsewhere
    (split, *others) = PUBLISHED_FILES
    assert split.address("http://mirror/") == "http://mirror/label_idx.json"
    mirrored = {file.name: file.address("http://a") for file in others}
    assert mirrored == {
        name: f"http://a/{name}" if name in elsewhere else address.replace(published, "http://a")
        for name, address in addresses.items()
        if name != split.name
    }


# --- the command


@pytest.fixture
def mirror(server: Server) -> Server:
    """A server of small files under the published names."""
    server.files = {
        (file.server_path or file.name): random_bytes(20_000 + 1000 * number, seed=number)
        for number, file in enumerate(PUBLISHED_FILES)
        if file.by_default and file.n_background is None
    }
    server.files[VECTORS] = random_bytes(60 * ROW)
    return server


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def local_names(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name.replace("f100m/PCAR", "PCAR"): content for name, content in files.items()}


def test_the_command_fetches_what_is_missing(
    mirror: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setenv("DDIR", str(tmp_path / "data"))
    arguments = ["--base-url", mirror.url, "--n-background", "0,30"]
    (tmp_path / "data" / "features").mkdir(parents=True)
    (tmp_path / "data/features/val.hdf5").write_bytes(mirror.files["features/val.hdf5"])
    assert main(arguments) == 0
    expected = {**local_names(mirror.files), VECTORS: mirror.files[VECTORS][: 30 * ROW]}
    assert read_all(tmp_path / "data") == expected
    assert mirror.n_bytes_sent == sum(map(len, expected.values())) - len(
        expected["features/val.hdf5"]
    )
    assert "features/val.hdf5: kept" in caplog.text
    assert "features/train.hdf5: complete" in caplog.text
    assert "No graph was published for 30 background images" in caplog.text
    assert "with: kedro run --env imagenet --pipelines graph --params graph.n_back" in caplog.text
    mirror.forget()
    assert main(arguments) == 0
    assert mirror.sent == []


NETWORKS = [
    "deepercluster/ours.pth",
    "deepercluster/deepcluster_flickr.pth",
    "deepercluster/deepcluster_imagenet.pth.tar",
    "deepercluster/rotnet_flickr.pth",
    "deepercluster/rotnet_imagenet.pth",
]


def test_networks_and_image_ids_are_fetched_by_name(
    mirror: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    wanted = [*NETWORKS, "deepercluster/flickr_unique_ids.npy"]
    others = set(mirror.files)
    for number, name in enumerate(wanted):
        assert name not in others
        mirror.files[name] = random_bytes(30_000 + 1000 * number, seed=number)
    arguments = ["--folder", str(tmp_path), "--base-url", mirror.url]
    # Broken off in the middle, and continued.
    mirror.break_after = [10_000]
    short = [Path(name).name for name in wanted]
    assert main([*arguments, *short]) == 0
    assert read_all(tmp_path) == {name: mirror.files[name] for name in wanted}
    assert mirror.n_bytes_sent == sum(len(mirror.files[name]) for name in wanted)
    assert {answer.path for answer in mirror.sent} == set(wanted)
    capsys.readouterr()
    # Without names they are not asked for, with --all they are.
    assert main([*arguments, "--n-background", "0", "--list"]) == 0
    assert "deepercluster" not in capsys.readouterr().out
    assert main([*arguments, "--list", "--all"]) == 0
    rows = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    found = {row[0]: row[1:] for row in rows if row[0] in wanted}
    size = ["29.3 KiB"] * 3
    assert found["deepercluster/ours.pth"] == [*size, "-", "features.extractor=deepercluster"]
    assert found["deepercluster/flickr_unique_ids.npy"][3:] == ["-", "deepercluster on YFCC100M"]


def test_all_addresses_are_looked_at_before_anything_is_fetched(
    mirror: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    del mirror.files["features/train.hdf5"], mirror.files[VECTORS]
    (tmp_path / "label_idx.json").write_text("{}")
    assert main(["--folder", str(tmp_path), "--base-url", mirror.url]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/label_idx.json: has 2 bytes, expected 20000" in lines[0]
    assert f"{mirror.url}/features/train.hdf5: the server answers 404" in lines[1]
    assert lines[-1].startswith("Nothing was downloaded")
    assert mirror.sent == []
    assert main(["--folder", str(tmp_path), "--base-url", mirror.url, "val.hdf5"]) == 0
    assert (tmp_path / "features/val.hdf5").exists()


def test_the_disk_is_looked_at_before_anything_is_fetched(
    mirror: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    missing = sum(map(len, mirror.files.values())) - 10 * ROW
    arguments = ["--folder", str(tmp_path), "--base-url", mirror.url, "--n-background", "50"]
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(missing - 1))
    assert main(arguments) == 1
    assert re.search(r"the disk is too full, .* needed but only .* free", capsys.readouterr().err)
    assert mirror.sent == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(missing))
    assert main(arguments) == 0


def test_the_list(mirror: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--folder", str(tmp_path), "--base-url", mirror.url, "--n-background", "20"]
    assert main([*arguments, VECTORS, "label_idx.json"]) == 0
    del mirror.files["features/train.hdf5"]
    mirror.forget()
    capsys.readouterr()
    assert main([*arguments[:-1], "40", "--list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", head) == [
        "file", "wanted", "on the server", "on disk", "missing", "needed for",
    ]  # fmt: skip
    rows = {row[0]: row[1:] for row in (re.split(r"  +", line) for line in lines)}
    assert rows["label_idx.json"] == ["19.5 KiB"] * 3 + ["-", "baseline, diffusion"]
    assert rows["features/PCAR256.vt"][:4] == ["20.5 KiB", "20.5 KiB", "0 B", "20.5 KiB"]
    assert rows[VECTORS][:4] == ["40.0 KiB", "60.0 KiB", "20.0 KiB", "20.0 KiB"]
    assert rows["features/train.hdf5"][:4] == ["?"] * 4
    assert lines[-2] == f"62.0 KiB missing in {tmp_path}"
    assert lines[-1] == f"{mirror.url}/features/train.hdf5: the server answers 404 Not Found"
    assert mirror.sent == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no folder: expected --folder, or the environment variable DDIR"),
        (["--folder", "x", "--all", "val.hdf5"], "--all: got the names val.hdf5 as well"),
        (["--folder", "x", "nothing.raw"], "nothing.raw: no published file has this name"),
        (["--folder", "x", "--base-url", "/disk"], "expected an address that begins with http"),
    ],
)
def test_arguments_that_cannot_be_used(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.delenv("DDIR", raising=False)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_the_option_is_named_and_the_traceback_shown_where_it_is_wanted(
    wanted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(TRACEBACK_VARIABLE, wanted)
    name = "features/f100m/concatenated_PCAR256.raw"
    assert main(["--folder", "x", "--n-background", "0", name]) == 1
    *before, line = capsys.readouterr().err.splitlines()
    expected = "lowshot-download: --n-background: got 0, expected at least 1 to fetch vectors"
    assert line == expected
    assert any("in select_files" in each for each in before) == (wanted == "1")
    assert bool(before) == (wanted == "1")


@pytest.mark.parametrize("numbers", ["", "-1", "1e6", "1,,2", "all"])
def test_numbers_that_cannot_be_used(numbers: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--n-background", numbers])
    assert f"got {numbers!r}, expected integers of at least 0" in capsys.readouterr().err


def test_commands_of_the_page(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = {VECTORS: 100_000_000 * ROW}
    server.sizes = {
        (file.server_path or file.name): sizes.get(file.name, 7) for file in PUBLISHED_FILES
    }
    monkeypatch.setenv("DDIR", str(tmp_path))
    page = (ROOT / "docs" / "reproduce.md").read_text()
    commands = re.findall(r"^ {4}lowshot download\b(.*)$", page, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        arguments = shlex.split(command, comments=True)
        assert main([*arguments, "--list", "--base-url", server.url]) == 0


# --- in a process of its own


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lowshot_kedro.download", *arguments]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)]
)
def test_a_process_that_is_stopped_is_continued(
    mirror: Server, tmp_path: Path, number: signal.Signals, status: int
):
    content = random_bytes(5 << 20)
    mirror.files["features/train.hdf5"] = content
    mirror.hold_after = 4 << 20
    arguments = command("--folder", str(tmp_path), "--base-url", mirror.url, "train.hdf5")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert mirror.held.wait(20)
        partial = tmp_path / "features" / ".download-train.hdf5"
        while not partial.exists() or partial.stat().st_size < 2 << 20:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == status, errors
    mirror.released.set()
    begun = partial.stat().st_size
    assert 2 << 20 <= begun <= 4 << 20
    assert not (tmp_path / "features/train.hdf5").exists()

    mirror.hold_after = None
    mirror.forget()
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "features/train.hdf5").read_bytes() == content
    assert [(answer.range, answer.n_bytes) for answer in mirror.sent] == [
        (f"bytes={begun}-{len(content) - 1}", len(content) - begun)
    ]
    assert "continuing after" in result.stderr
    assert hidden(tmp_path / "features") == []


def test_proxies_of_the_environment_are_used(mirror: Server, tmp_path: Path):
    arguments = ["--folder", str(tmp_path), "--base-url", "http://nowhere.invalid/mirror"]
    result = subprocess.run(
        command(*arguments, "label_idx.json"),
        env={**os.environ, "http_proxy": mirror.url, "no_proxy": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "label_idx.json").read_bytes() == mirror.files["label_idx.json"]
