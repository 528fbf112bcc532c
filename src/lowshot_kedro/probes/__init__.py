"""What an embedding is worth: classification of images by their nearest neighbours."""

from lowshot_kedro.probes.knn import TIES, Gallery, knn_scores, strict_top_k

__all__ = ["TIES", "Gallery", "knn_scores", "strict_top_k"]
