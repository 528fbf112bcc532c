#!/usr/bin/env bash
# torch 2.14.1 for CPUs: torch.linalg.lu_factor of a batch of positive definite 200 × 200 matrices is
# right with one thread and wrong with two: P @ L @ U is then no longer the matrix, without an error or
# a warning. qpth, and whatever factors batches, needs torch.set_num_threads(1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "torch==2.14.1" "numpy==2.4.6"
timeout 60 "$folder/venv/bin/python" - <<'PYTHON'
import torch

generator = torch.Generator().manual_seed(0)
factor = torch.randn(4, 200, 200, dtype=torch.float64, generator=generator)
matrices = factor @ factor.mT + torch.eye(200, dtype=torch.float64)
print("torch", torch.__version__)
errors = {}
for threads in (1, 2):
    torch.set_num_threads(threads)
    permutation, lower, upper = torch.lu_unpack(*torch.linalg.lu_factor(matrices))
    difference = (permutation @ lower @ upper - matrices).abs().max() / matrices.abs().max()
    errors[threads] = difference.item()
    print(f"{threads} thread(s): P @ L @ U differs from the matrices by {errors[threads]:.1e}")
assert errors[1] < 1e-12 < 1e-3 < errors[2], "this has changed"
PYTHON
