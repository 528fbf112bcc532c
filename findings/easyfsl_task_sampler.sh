#!/usr/bin/env bash
# easyfsl 1.5.0: its TaskSampler, through which its tutorials and benchmarks draw episodes, cannot be
# made with torch 2.14.1, which easyfsl's requirements allow. It passes data_source=None to
# torch.utils.data.Sampler, which no longer takes an argument. A batch sampler that yields lists of
# positions takes its place.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "easyfsl==1.5.0" "torch==2.14.1" "torchvision==0.29.1" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from easyfsl.samplers import TaskSampler


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, number):
        return torch.zeros(3, 4, 4), number % 4

    def get_labels(self):
        return [number % 4 for number in range(20)]


print("easyfsl", version("easyfsl"), "torch", version("torch"))
try:
    TaskSampler(Images(), n_way=2, n_shot=1, n_query=2, n_tasks=3)
except TypeError as error:
    print("TaskSampler:", error)
else:
    raise AssertionError("this has changed")
PYTHON
