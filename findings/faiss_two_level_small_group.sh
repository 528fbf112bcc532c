#!/usr/bin/env bash
# faiss-cpu 1.15.1: faiss.contrib.clustering.two_level_clustering gives each group of the first level
# clusters in proportion to its size, rounded down (rebalance=True, the default). A group too small for
# one gets none, and the whole clustering ends with an error about an inner variable: 1003 rows of which
# 3 are far from the others cannot be divided into 8, 16 or 100 clusters, and the error says neither
# which rows nor what to do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "faiss-cpu==1.15.1" "numpy==2.4.6" "scipy==1.17.1"
"$folder/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np
from faiss.contrib.clustering import two_level_clustering

rs = np.random.RandomState(0)
rows = np.concatenate([rs.randn(1000, 8), 100 + rs.randn(3, 8)]).astype(np.float32)
print("faiss", faiss.__version__)
for n_clusters in (8, 16, 100):
    try:
        two_level_clustering(rows, 4, n_clusters, seed=3)
    except RuntimeError as error:
        said = str(error).partition("Error: ")[2]
        print(f"{n_clusters} clusters in 4 groups: RuntimeError, {said}")
        assert "clus.k > 0" in said, "this has changed"
    else:
        raise AssertionError("this has changed")
# Without the three rows it works.
centroids = two_level_clustering(rows[:1000], 4, 16, seed=3)[0]
print("without the 3 rows:", centroids.shape)
assert centroids.shape == (16, 8)
PYTHON
