"""Low-shot image classification by label propagation over large k-NN graphs."""

__version__ = "0.1.0"
