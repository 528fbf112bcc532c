#!/usr/bin/env bash
# h5py 3.16.0: a dataset that is reached through an external link gives the offset of its numbers in
# the file that the link leads to, while the path it is opened by, its key and its name look as if it
# lay in the file that was opened. Whoever reads or maps contiguous numbers past the library, as is
# usual for large arrays, reads other bytes of the file that was opened, without any error. What tells
# the two cases apart is dataset.file.filename, or get(key, getlink=True).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "h5py==3.16.0" "numpy==2.4.6"
cd "$folder"
venv/bin/python - <<'PYTHON'
from pathlib import Path

import h5py
import numpy as np

numbers = np.arange(1000, dtype="<f4")
with h5py.File("other.h5", "w") as file:
    file["first"] = np.full(10, -1, dtype="<f4")
    file["features"] = numbers
with h5py.File("opened.h5", "w") as file:
    file["own"] = np.full(5000, 7, dtype="<f4")
    file["features"] = h5py.ExternalLink("other.h5", "features")

with h5py.File("opened.h5", "r") as file:
    dataset = file["features"]
    offset = dataset.id.get_offset()
    name, place = dataset.name, Path(dataset.file.filename).name
    assert np.array_equal(dataset[:], numbers)
with h5py.File("other.h5", "r") as file:
    assert offset == file["features"].id.get_offset(), "this has changed"

mapped = np.memmap("opened.h5", dtype="<f4", mode="r", offset=offset, shape=1000)
print(f"h5py {h5py.__version__}: file opened.h5, dataset {name}, offset {offset}, in {place}")
print("first numbers through h5py:", numbers[:3], "at this offset of opened.h5:", mapped[:3])
assert name == "/features" and place == "other.h5", "this has changed"
assert not np.array_equal(mapped, numbers), "this has changed"
PYTHON
