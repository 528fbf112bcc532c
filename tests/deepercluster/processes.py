"""What processes of torch.distributed cluster together, and one process beside them."""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from lowshot_kedro.deepercluster import hierarchical_kmeans, kmeans
from lowshot_kedro.deepercluster.lloyd import KMeansSettings, kmeans_of
from lowshot_kedro.deepercluster.rows import ArrayRows, Share
from lowshot_kedro.errors import InputError
from lowshot_kedro.training.processes import Processes

NUMBERS = (8, 4, 2)
ROWS = np.random.default_rng(0).standard_normal((203, 11)).astype(np.float32)
# Centroids that are empty after the first pass.
FAR = np.concatenate([ROWS[:9], ROWS[:3] + 1000])


def joined(processes, part):
    """A part of each process, in the order of their ranks."""
    return processes.gather(torch.from_numpy(np.ascontiguousarray(part))).numpy()


def uneven(processes):
    """Clusters of some rows, of which processes have more or fewer, and the last one none."""
    n_parts = max(processes.n_processes - 1, 1)
    cuts = [len(ROWS) * part**2 // n_parts**2 for part in range(n_parts + 1)] + [len(ROWS)]
    first, end = cuts[processes.rank], cuts[processes.rank + 1]
    share = Share(ArrayRows(ROWS, first, end), first, len(ROWS), processes)
    members = np.arange(first, end)
    found = kmeans_of(
        share, 12, KMeansSettings(4, 3), init=FAR, members=members[members % 3 > 0] - first
    )
    report = found.report
    return [
        joined(processes, found.labels),
        joined(processes, found.distances),
        found.centroids,
        np.array(report.objectives),
        np.array(report.n_empty),
        report.sizes,
    ]


def cluster():
    """Everything that is to have the same bits for any number of processes, as arrays."""
    processes = Processes.of_default_group(torch.device("cpu"))
    results = [*kmeans(ROWS, 12, n_iterations=4, seed=1), *kmeans(ROWS, 12, init=FAR)]
    for how in ("fixed", "proportional"):
        results += hierarchical_kmeans(ROWS, 3, 21, clusters_per_super=how)
    return [np.asarray(each) for each in [*results, *uneven(processes)]]


def refusals(rank):
    """What processes are refused with together, if one of them is given something else."""
    found = {}
    with_nan = ROWS.copy()
    with_nan[150, 2] = np.nan
    bad = ROWS + (rank == 1)
    for name, rows, k in (("nan", with_nan, 5), ("rows", bad, 5), ("k", ROWS, 5 + (rank == 1))):
        try:
            kmeans(rows, k)
        except InputError as error:
            found[name] = str(error)
    return found


def work(folder, rank):
    """As many as eight processes, then four, then two; the results go to a file."""
    torch.set_num_threads(1)
    results = {}
    for n_processes in NUMBERS:
        if rank >= n_processes:
            break
        store = f"file://{Path(folder) / f'store{n_processes}'}"
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=n_processes)
        results[n_processes] = cluster(), refusals(rank)
        distributed.destroy_process_group()
    (Path(folder) / f"{rank}.pickle").write_bytes(pickle.dumps(results))
