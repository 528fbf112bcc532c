#!/usr/bin/env bash
# pacmap 0.9.1: the seed that an estimator is given belongs to the process. The estimator that was made
# last decides for all of them, so an estimator with random_state=0 gives the map of random_state=1 if
# another one was made before it is fitted, and no map twice if that one has no seed. What
# get_params() says of the first stays 0.
# A fit with a seed also sets faiss to one thread, in the whole process and for good. No search for
# neighbours, and no such setting, is done if pair_neighbors is given.
# And a second fit of an estimator to other rows, as many of them, keeps the neighbours of the first,
# which save_pairs=False prevents.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "pacmap==0.9.1" "faiss-cpu==1.15.1" "numpy==2.4.6" "scikit-learn==1.9.1" "numba==0.68.1"
OMP_NUM_THREADS=2 "$folder/venv/bin/python" - <<'PYTHON'
import logging
from importlib.metadata import version

import faiss
import numpy as np
import pacmap

logging.disable(logging.WARNING)
random = np.random.default_rng(0)
X, Z = (random.normal(size=(500, 20)).astype(np.float32) for _ in range(2))

before = faiss.omp_get_max_threads()
of_seed_0 = pacmap.PaCMAP(random_state=0).fit_transform(X)
after = faiss.omp_get_max_threads()
of_seed_1 = pacmap.PaCMAP(random_state=1).fit_transform(X)
assert not np.array_equal(of_seed_0, of_seed_1)

estimator = pacmap.PaCMAP(random_state=0)
pacmap.PaCMAP(random_state=1)
found = estimator.fit_transform(X)
is_first, is_second = np.array_equal(found, of_seed_0), np.array_equal(found, of_seed_1)
print(f"pacmap {version('pacmap')}, random_state={estimator.get_params()['random_state']}:",
      "the map of seed 1" if is_second else "the map of seed 0" if is_first else "another map")

print(f"faiss {faiss.__version__}: {before} threads before a fit with a seed, {after} after it")

fresh = pacmap.PaCMAP(random_state=0).fit_transform(Z)
estimator = pacmap.PaCMAP(random_state=0).fit(X)
again = np.array_equal(estimator.fit_transform(Z), fresh)
estimator = pacmap.PaCMAP(random_state=0).fit(X, save_pairs=False)
without = np.array_equal(estimator.fit_transform(Z), fresh)
print("a second fit gives what a first one gives:", again, "and with save_pairs=False:", without)
assert is_second and not is_first, "this has changed"
assert (before, after) == (2, 1), "this has changed"
assert not again and without, "this has changed"
PYTHON
