import multiprocessing
import pickle

import numpy as np
import pytest
import torch

from tests.snca import processes

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What three processes found, by number of processes and case, in the order of ranks."""
    folder = tmp_path_factory.mktemp("processes")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.snca.processes"])
    workers = [context.Process(target=processes.work, args=(folder, rank)) for rank in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    # Whoever waits for others for ever was left alone by one that failed.
    for worker in workers:
        worker.kill()
    files = [folder / f"{rank}.pickle" for rank in range(3)]
    assert all(file.exists() for file in files)
    found = [pickle.loads(file.read_bytes()) for file in files]
    return {key: [of[key] for of in found if key in of] for key in found[1]}


@pytest.mark.parametrize("dtype", processes.DTYPES)
@pytest.mark.parametrize("case", processes.CASES)
@pytest.mark.parametrize("n_processes", [2, 3])
def test_several_processes_find_what_one_finds(results, n_processes, case, dtype):
    """Over steps of which the parts have all sizes down to none."""
    expected = processes.train(case, dtype, 1, 0)
    found = results[n_processes, case, dtype]
    assert len(found) == n_processes
    tolerance = TOLERANCE[dtype]
    for one in found:
        assert one["values"] == found[0]["values"]
        np.testing.assert_allclose(one["values"], expected["values"], rtol=tolerance)
        np.testing.assert_allclose(one["weights"], expected["weights"], atol=tolerance)
    bank = np.concatenate([one["bank"] for one in found])
    np.testing.assert_allclose(bank, expected["bank"], atol=tolerance)
    ends = [one["rows"] for one in found]
    assert [first for first, _ in ends] == [0, *(last for _, last in ends[:-1])]
    sizes = [len(one["bank"]) for one in found]
    assert sizes == [last - first for first, last in ends]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("n_processes", [2, 3])
def test_all_processes_refuse_what_one_refuses(results, n_processes):
    found = results[n_processes, "refusals"]

    def messages(name):
        return [refusals[name] for refusals in found]

    def of_another(rank):
        return f"process {rank} has refused its part of the batch"

    repeated = "index: got 1, more than once; expected each image once in a batch"
    assert messages("repeated") == [repeated] * n_processes
    empty = "index: got '(0,)', expected at least one image"
    assert messages("empty") == [empty] * n_processes
    own = {
        "outside": (1, "index: got 22, expected 0 to 19"),
        "columns": (0, "embeddings: got 'float32 (2, 4)', expected floating point (B, 5)"),
        "none": (1, "embeddings: got None, expected a tensor"),
    }
    for name, (rank, message) in own.items():
        expected = [of_another(rank)] * n_processes
        expected[rank] = message
        assert messages(name) == expected
    others = ["temperature: got 0.05, expected 0.0625 as in process 1"] * n_processes
    others[1] = "temperature: got 0.0625, expected 0.05 as in process 0"
    assert messages("settings") == others
    other_data = [f"labels or dim: other than in process {int(rank != 1)}" for rank in range(3)]
    assert messages("labels") == other_data[:n_processes]
    assert len({refusals["good"] for refusals in found}) == 1


@pytest.mark.parametrize("n_processes", [2, 3])
def test_rows_of_the_bank_are_the_same_however_many_processes(results, n_processes):
    expected = processes.banks()
    found = results[n_processes, "banks"]
    for name, rows in expected.items():
        np.testing.assert_array_equal(np.concatenate([of[name] for of in found]), rows)
    assert not np.array_equal(expected["first"], expected["of a seed"])
