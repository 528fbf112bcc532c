"""Prototypes that are rectified by the query images."""

from __future__ import annotations

from lowshot_kedro.episodes.methods.easyfsl_method import EasyFSLMethod


class BDCSPNMethod(EasyFSLMethod):
    """Means of support images and of query images that are nearest to them, by the cosine."""

    name = "bd_cspn"
    title = "BD-CSPN"
    is_transductive = True
    source = (
        "J. Liu, L. Song and Y. Qin, Prototype Rectification for Few-Shot Learning, ECCV "
        "2020; easyfsl"
    )
    classifier = "BDCSPN"
