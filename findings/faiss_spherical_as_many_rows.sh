#!/usr/bin/env bash
# faiss-cpu 1.15.1: spherical k-means, whose centroids have length 1, copies the rows as they are when
# there are as many rows as clusters. One row more, and the centroids have length 1. An inner product
# with such centroids then prefers long ones: more than half of the rows are not assigned to themselves.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "faiss-cpu==1.15.1" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np

rows = np.random.RandomState(0).randn(301, 8).astype(np.float32)
print("faiss", faiss.__version__)
lengths = {}
for n_rows in (300, 301):
    kmeans = faiss.Kmeans(8, 300, spherical=True, niter=5, min_points_per_centroid=1)
    kmeans.train(rows[:n_rows])
    found = np.linalg.norm(kmeans.centroids, axis=1)
    lengths[n_rows] = found
    print(f"{n_rows} rows, 300 clusters: centroids of length {found.min():.3f} to {found.max():.3f}")
    if n_rows == 300:
        assigned = kmeans.index.search(rows[:300], 1)[1][:, 0]
        elsewhere = int((assigned != np.arange(300)).sum())
        print(f"  {elsewhere} of 300 rows, each of which is a centroid, are assigned to another one")
        assert elsewhere > 100, "this has changed"
assert lengths[300].max() > 3, "this has changed"
assert np.allclose(lengths[301], 1, atol=1e-5), "this has changed"
PYTHON
