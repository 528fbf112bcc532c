"""What processes of torch.distributed do with the loss of SNCA, and one process beside them.

Imported by processes that a test starts: nothing here is slow to import but torch.
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from lowshot_kedro.errors import InputError
from lowshot_kedro.snca import SNCALoss

N_COLUMNS = 5
# How many images of each batch the first, second and third process have.
SHARES = {1: [(9,)], 2: [(5, 4), (0, 9), (8, 1)], 3: [(3, 3, 3), (9, 0, 0), (1, 0, 8)]}
DTYPES = (torch.float64, torch.float32)


def labels_of(case):
    rng = np.random.default_rng(1)
    return {
        "mixed": rng.integers(4, size=40),
        # All images of a class in one process.
        "sorted": np.arange(40) // 10,
        "one of each": np.arange(40),
        "one class": np.zeros(40, int),
        # Fewer images than some process could have two of.
        "few": np.array([0, 0, 1, 1, 0, 1, 0, 0, 0, 1]),
    }[case]


CASES = ("mixed", "sorted", "one of each", "one class", "few")


def train(case, dtype, n_processes, rank):
    """Three steps of a linear layer; values, weights, and the rows of the bank that are here."""
    labels = labels_of(case)
    rng = np.random.default_rng(2)
    bank, weights = rng.standard_normal((len(labels), N_COLUMNS)), np.eye(N_COLUMNS)
    inputs = torch.as_tensor(rng.standard_normal((len(labels), N_COLUMNS))).to(dtype)
    loss = SNCALoss(labels, N_COLUMNS, temperature=0.1, margin=0.05)
    loss.bank = torch.as_tensor(bank / np.linalg.norm(bank, axis=1, keepdims=True)).to(dtype)
    layer = torch.as_tensor(weights).to(dtype).requires_grad_()
    values = []
    for step, shares in enumerate(SHARES[n_processes] * (3 if n_processes == 1 else 1)):
        loss.momentum = 0.5 + step / 10
        batch = rng.permutation(len(labels))[:9]
        begin = sum(shares[:rank])
        index = torch.as_tensor(batch[begin : begin + shares[rank]])
        value = loss(torch.nn.functional.normalize(inputs[index] @ layer), index)
        (gradient,) = torch.autograd.grad(value, layer)
        if n_processes > 1:
            distributed.all_reduce(gradient)
        with torch.no_grad():
            layer -= 0.1 * gradient / n_processes
        values.append(value.item())
    return {
        "values": values,
        "weights": layer.detach().numpy(),
        "bank": loss.bank.numpy(),
        "rows": (loss.first_row, loss.last_row),
    }


def refusals(rank):
    """What each bad batch is refused with, here, and the loss of a good one after it."""
    loss = SNCALoss(np.arange(20) % 3, N_COLUMNS)
    loss.reset_bank(torch.Generator().manual_seed(0))
    ones = torch.ones(2, N_COLUMNS)
    own = torch.arange(2) + 2 * rank
    batches = {
        "repeated": (ones, torch.tensor([0, 1]) + rank),
        "outside": (ones, own + (20 if rank == 1 else 0)),
        "columns": (ones[:, : N_COLUMNS - (rank == 0)], own),
        "empty": (ones[:0], own[:0]),
        "none": (None if rank == 1 else ones, own),
    }
    found = {}
    for name, (embeddings, index) in batches.items():
        try:
            loss(embeddings, index)
        except InputError as error:
            found[name] = str(error)
    loss.temperature = 0.0625 if rank == 1 else 0.05
    try:
        loss(ones, own)
    except InputError as error:
        found["settings"] = str(error)
    loss.temperature = 0.05
    try:
        SNCALoss(np.arange(20) % (3 - (rank == 1)), N_COLUMNS)
    except InputError as error:
        found["labels"] = str(error)
    found["good"] = loss(ones, own).item()
    return found


def banks():
    """The bank at first, of a seed, and after saved rows and a whole bank are put into it."""
    labels = np.arange(30) % 3
    torch.manual_seed(distributed.get_rank() if distributed.is_initialized() else 0)
    loss = SNCALoss(labels, N_COLUMNS)
    found = {"first": loss.bank.clone()}
    loss.reset_bank(torch.Generator().manual_seed(7))
    found["of a seed"] = loss.bank.clone()
    state = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    other = SNCALoss(labels, N_COLUMNS)
    other.load_state_dict(state)
    found["loaded"] = other.bank.clone()
    whole = torch.arange(30.0)[:, None] * torch.ones(N_COLUMNS)
    other.load_state_dict({**state, "bank": whole})
    found["of a whole bank"] = other.bank.clone()
    other.bank = loss.bank
    found["of rows here"] = other.bank.clone()
    return {name: rows.numpy() for name, rows in found.items()}


def work(folder, rank):
    """Everything, in three processes and then in two; the results go to a file."""
    torch.set_num_threads(1)
    results = {}
    for n_processes in (3, 2):
        if rank >= n_processes:
            break
        store = Path(folder) / f"store{n_processes}"
        distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=n_processes
        )
        for case in CASES:
            for dtype in DTYPES:
                results[n_processes, case, dtype] = train(case, dtype, n_processes, rank)
        results[n_processes, "refusals"] = refusals(rank)
        results[n_processes, "banks"] = banks()
        distributed.destroy_process_group()
    (Path(folder) / f"{rank}.pickle").write_bytes(pickle.dumps(results))
