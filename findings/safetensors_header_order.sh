#!/usr/bin/env bash
# safetensors 0.8.0: the same tensors with the same metadata, saved by several processes, give files
# that differ: the texts of the header stand in another order in each of them. Within a process the
# order stays, also for a second file. Content that is loaded is the same, but checksums of files,
# caches keyed by them and "the same training, the same bytes" do not hold. With no metadata, or one
# text, all files are the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "safetensors==0.8.0" "numpy==2.4.6"
cat > "$folder/save.py" <<'PYTHON'
import hashlib
import sys

import numpy as np
from safetensors.numpy import save

n_texts = int(sys.argv[1])
metadata = {f"key{number}": f"value{number}" for number in range(n_texts)} or None
content = save({"weight": np.arange(6, dtype=np.float32)}, metadata)
print(hashlib.sha256(content).hexdigest())
PYTHON
"$folder/venv/bin/python" -c 'import safetensors; print("safetensors", safetensors.__version__)'
count() {
    for _ in $(seq 12); do "$folder/venv/bin/python" "$folder/save.py" "$1"; done | sort -u | wc -l
}
for n_texts in 0 1 8; do
    found=$(count "$n_texts")
    echo "$n_texts texts of metadata: $found different file(s) from 12 processes"
    if [ "$n_texts" -le 1 ]; then test "$found" -eq 1; else test "$found" -gt 1; fi || {
        echo "this has changed" >&2
        exit 1
    }
done
