"""Scripts that run in this process, which has loaded already what takes them seconds to load."""

from __future__ import annotations

import importlib
import multiprocessing
import runpy
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from lowshot_kedro import native
from tests.benchmarks.printed import read
from tests.projects import ROOT

Script = Callable[..., None]
Measured = Callable[..., tuple[str, dict[str, Any]]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Runs a script in this process, which has loaded already what takes the scripts seconds."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = native.get_num_threads(), torch.get_num_threads()

    def run(script: str, *options: str) -> None:
        path = str(ROOT / "benchmarks" / script)
        monkeypatch.setattr("sys.argv", [path, *options])
        runpy.run_path(path, run_name="__main__")

    yield run
    importlib.import_module("common.machine").set_threads(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture
def refusal(here: Script, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a script that ends with a message, and gives the message."""

    def run(script: str, *options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            here(script, *options)
        assert ended.value.code, "ended as if all went well"
        return " ".join(f"{capsys.readouterr().err} {ended.value.code}".split())

    return run


class Main(ModuleType):
    """The script that runs, as processes that it starts name it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.modules["__main__"], name)


@pytest.fixture
def results(
    here: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Measured:
    """What a person reads, and the line of JSON, of a script that runs in this process.

    The processes that it starts are copies of one that has loaded the libraries. They are as
    separate as those that load them anew.
    """
    context = multiprocessing.get_context("forkserver")
    preloaded = ("datasets", "networks", "snca")
    context.set_forkserver_preload([f"lowshot_kedro.{name}" for name in preloaded])
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    monkeypatch.setitem(sys.modules, "__mp_main__", Main("__mp_main__"))

    def run(script: str, *options: str) -> tuple[str, dict[str, Any]]:
        capsys.readouterr()
        here(script, *options)
        return read(script, capsys.readouterr().out)

    return run
