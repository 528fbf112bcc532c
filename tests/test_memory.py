import os
import subprocess
import sys

import pytest

from lowshot_kedro import memory as memory_module
from lowshot_kedro.memory import available_bytes, format_bytes, peak_rss_bytes, rss_bytes


@pytest.mark.parametrize(
    "n_bytes, text",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 2**20, "5.0 MiB"),
        (1.25 * 2**30, "1.2 GiB"),
        (102_400_000_000, "95.4 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (5000 * 2**40, "5000.0 TiB"),
        (-1536, "-1.5 KiB"),
    ],
)
def test_format_bytes(n_bytes, text):
    assert format_bytes(n_bytes) == text


# In a process of its own: the peak of this one may be far above what an array adds.
MEASURE = """
import numpy as np
from lowshot_kedro.memory import peak_rss_bytes, recent_peak_rss_bytes, restart_peak
before = peak_rss_bytes()
array = np.ones(25_000_000)
touched = peak_rss_bytes()
del array
restart_peak()
print(before, touched, recent_peak_rss_bytes(), peak_rss_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux restarts the peak")
def test_the_peak_follows_a_large_array():
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    before, touched, recent, highest = map(int, result.stdout.split())
    assert 5_000_000 < before < 500_000_000
    assert touched - before == pytest.approx(200_000_000, rel=0.1)
    assert touched - recent == pytest.approx(200_000_000, rel=0.1)
    # The kernel counts in batches, so that the same peak is not read to the byte.
    assert highest == pytest.approx(touched, rel=0.01)


def test_the_peak_without_proc_is_the_one_of_the_process(monkeypatch, tmp_path):
    # What was seen before a peak was restarted, by other tests, the system does not know any more.
    monkeypatch.setattr(memory_module, "_highest_seen", 0)
    measured = peak_rss_bytes()
    monkeypatch.setattr(memory_module, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(memory_module, "_CLEAR_REFS", tmp_path / "absent folder" / "clear_refs")
    monkeypatch.setattr(memory_module, "_highest_seen", 0)
    memory_module.restart_peak()
    assert memory_module.peak_rss_bytes() == pytest.approx(measured, rel=0.2)


# In a process of its own, as above.
MEASURE_NOW = """
import numpy as np
from lowshot_kedro.memory import rss_bytes
before = rss_bytes()
array = np.ones(25_000_000)
touched = rss_bytes()
del array
print(before, touched, rss_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is resident now")
def test_resident_memory_grows_and_shrinks():
    result = subprocess.run(
        [sys.executable, "-c", MEASURE_NOW], capture_output=True, text=True, check=True
    )
    before, touched, after = map(int, result.stdout.split())
    assert 5_000_000 < before < 500_000_000
    assert touched - before == pytest.approx(200_000_000, rel=0.1)
    assert touched - after == pytest.approx(200_000_000, rel=0.1)


def test_resident_memory_is_at_most_the_peak():
    # The kernel counts in batches.
    assert 5_000_000 < rss_bytes() <= 1.01 * peak_rss_bytes()


def test_resident_memory_without_proc_is_the_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(memory_module, "_STATUS", tmp_path / "absent")
    assert memory_module.rss_bytes() == memory_module.peak_rss_bytes()


@pytest.fixture
def system(monkeypatch, tmp_path):
    """Writes what the system says; as long as it is not called, it says nothing."""
    monkeypatch.setattr(memory_module, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory_module, "_CGROUP", tmp_path)

    def write(available_kb=None, allowed=None, current=None):
        if available_kb is not None:
            text = f"MemTotal: 999 kB\nMemFree: 1 kB\nMemAvailable:   {available_kb} kB\n"
            (tmp_path / "meminfo").write_text(f"{text}Cached: 2 kB\n")
        for name, value in (("max", allowed), ("current", current)):
            if value is not None:
                (tmp_path / f"memory.{name}").write_text(f"{value}\n")

    return write


def physical_bytes():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_without_further_knowledge_all_memory_is_available(system):
    assert available_bytes() == physical_bytes()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"available_kb": 300}, 300 * 1024),
        ({"available_kb": 300, "allowed": 10**6, "current": 10**5}, 300 * 1024),
        ({"available_kb": 300, "allowed": 10**5, "current": 10**4}, 90_000),
        ({"allowed": 10**5, "current": 10**4}, 90_000),
        ({"available_kb": 300, "allowed": "max", "current": 10**4}, 300 * 1024),
        ({"available_kb": 300, "allowed": 10**5}, 300 * 1024),
        ({"available_kb": 300, "current": 10**5}, 300 * 1024),
        ({"available_kb": 300, "allowed": 10**5, "current": 10**5 + 1}, 0),
        ({"available_kb": 0}, 0),
    ],
)
def test_the_tightest_limit_is_what_is_available(system, found, expected):
    system(**found)
    assert available_bytes() == expected


def test_more_than_there_is_is_never_available(system):
    system(available_kb=10**15, allowed=10**18, current=0)
    assert available_bytes() == physical_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_some_memory_of_this_machine_is_available():
    assert 10**6 < available_bytes() <= physical_bytes()


def test_what_is_charged_for_files_can_still_be_taken(system, tmp_path):
    system(allowed=10**5, current=9 * 10**4)
    (tmp_path / "memory.stat").write_text("anon 40000\nfile 50000\ninactive_file 30000\n")
    assert available_bytes() == 40_000
