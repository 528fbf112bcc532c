#!/usr/bin/env bash
# scikit-learn 1.9.1 with pandas 3.1.1: labels in a nullable integer column (Int64) that differ, above
# 2^53, become one class. The column is complete, no value is missing, and nothing warns. The same
# labels as a numpy int64 array, or as a plain int64 column, stay two classes.
# Seen with KNeighborsClassifier and with LogisticRegression; column_or_1d gives float64 for such a
# column. Ids of this size are usual where they come from hashes or snowflake-like counters.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "scikit-learn==1.9.1" "pandas==3.1.1" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import pandas as pd
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils import column_or_1d

warnings.simplefilter("error")
X = np.array([[0.0], [0.1], [5.0], [5.1]])
ids = [2**53, 2**53, 2**53 + 1, 2**53 + 1]
columns = {
    "numpy int64": np.array(ids),
    "pandas int64": pd.Series(ids, dtype="int64"),
    "pandas Int64": pd.Series(ids, dtype="Int64"),
}
found = {}
for name, y in columns.items():
    found[name] = len(KNeighborsClassifier(1).fit(X, y).classes_)
    print(f"scikit-learn {sklearn.__version__}, pandas {pd.__version__}, {name}:",
          found[name], "classes,", column_or_1d(y).dtype)
assert found == {"numpy int64": 2, "pandas int64": 2, "pandas Int64": 1}, "this has changed"
try:
    LogisticRegression().fit(X, columns["pandas Int64"])
except ValueError as error:
    print("LogisticRegression:", str(error).splitlines()[0])
else:
    raise AssertionError("this has changed")
PYTHON
