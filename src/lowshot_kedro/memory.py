"""Memory: what this process takes, has taken at most, and can still take."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_highest_seen = 0


def peak_rss_bytes() -> int:
    """Largest resident memory of this process since it started, in bytes."""
    return max(_highest_seen, recent_peak_rss_bytes())


def recent_peak_rss_bytes() -> int:
    """Largest resident memory since :func:`restart_peak` (Linux), else since the start."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int:
    """Resident memory of this process now (Linux), else its peak."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return peak_rss_bytes()


def restart_peak() -> None:
    """Begin a new measurement of the peak; without effect where the system offers none."""
    global _highest_seen
    _highest_seen = peak_rss_bytes()
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")


def format_bytes(n_bytes: float) -> str:
    """`1536` → `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def format_gigabytes(n_bytes: float) -> str:
    """`1330000000` → `1.33 GB`, as memory budgets are typed."""
    return f"{n_bytes / 1e9:.3g} GB"


def available_bytes() -> int:
    """Memory that this process can still take: what is free, or what its control group allows."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # "max" is no number
        allowed = int((_CGROUP / "memory.max").read_text())
        taken = int((_CGROUP / "memory.current").read_text())
        limits.append(max(allowed - taken + _cached_bytes(), 0))
    return min(limits)


def _cached_bytes() -> int:
    """What the control group is charged for files that the system would drop when needed."""
    with suppress(OSError):
        for line in (_CGROUP / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    return 0
