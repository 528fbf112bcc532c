"""A feature file that is not on disk."""

import numpy as np


class MemoryFeatures:
    """Follows lowshot_kedro.blocks.FeatureMatrix and notes what is read."""

    def __init__(self, array, name):
        self.name = name
        self.array = np.asarray(array, dtype=np.float32)
        self.n_rows, self.n_columns = self.array.shape
        self.labels = np.zeros(self.n_rows, dtype=np.int32)
        self.broken_images = ()
        self.reads = []

    def read(self, first, last, out=None):
        assert 0 <= first <= last <= self.n_rows
        self.reads.append((first, last))
        if out is None:
            return self.array[first:last].copy()
        out[:] = self.array[first:last]
        return out
