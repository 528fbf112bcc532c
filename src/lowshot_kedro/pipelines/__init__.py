"""Wiring: which function reads and writes which catalog entry.

Every pipeline is a namespace: its nodes are called `pca.train_pca`, and kedro-viz draws it as one
box. Catalog entries and parameters have no prefix; pipelines meet in them.
"""

from lowshot_kedro.extras import require

require("kedro", __name__)
