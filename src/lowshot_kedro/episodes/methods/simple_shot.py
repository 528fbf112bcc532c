"""SimpleShot without the mean of base classes."""

from __future__ import annotations

from lowshot_kedro.episodes.methods.easyfsl_method import EasyFSLMethod


class SimpleShotMethod(EasyFSLMethod):
    """Cosines with the means of vectors of length 1, the paper's L2N.

    Its CL2N subtracts the mean of the base classes first, which not every data set has.
    """

    name = "simple_shot"
    title = "SimpleShot"
    source = (
        "Y. Wang, W.-L. Chao, K. Q. Weinberger and L. van der Maaten, SimpleShot: Revisiting "
        "Nearest-Neighbor Classification for Few-Shot Learning, 2019; easyfsl"
    )
    notes = "L2N; the same classes as nearest class mean."
    classifier = "SimpleShot"
