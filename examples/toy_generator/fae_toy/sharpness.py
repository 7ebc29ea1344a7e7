"""How steep neighbouring pixels are: the mean absolute difference, from 0 to 1, of samples over that of real ones."""

import numpy as np


class Sharpness:
    """See `fae_jax.evaluation.metrics.Metric`."""

    higher = ("sharpness",)

    def __init__(self):
        self.sum, self.count = 0.0, 0

    @classmethod
    def build(cls, section, classes):
        return cls()

    def update(self, batch):
        pixels = batch.images.astype(np.float64) / 255.0
        self.sum += sum(np.abs(np.diff(pixels, axis=axis)).mean((1, 2, 3)).sum() for axis in (1, 2)) / 2
        self.count += len(pixels)

    def merge(self, other):
        self.sum, self.count = self.sum + other.sum, self.count + other.count

    def state(self):
        return {"sum": np.asarray(self.sum), "count": np.asarray(self.count)}

    def restore(self, state):
        self.sum, self.count = float(state["sum"]), int(state["count"])

    def result(self, real):
        value = self.sum / self.count
        if not real:
            return {"sharpness": value}
        heldout = real["heldout"].sum / real["heldout"].count
        return {"sharpness": value, "sharpness_beside_heldout": value / heldout}
