"""SNCA: embeddings learnt for nearest neighbours, with a bank of every image.

Z. Wu, A. Efros and S. Yu, "Improving Generalization via Scalable Neighborhood Component Analysis",
ECCV 2018.
"""

from lowshot_kedro.extras import require

require("torch", __name__)

from lowshot_kedro.snca.loss import SNCALoss

__all__ = ["SNCALoss"]
