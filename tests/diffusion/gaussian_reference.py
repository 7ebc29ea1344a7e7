"""Float64 NumPy statements of the path over data with known laws: an independent reference.

Data are mixtures of normals N(m_k, S_k²) with weights π_k, the same law for every channel. At time t a component
is N((1 − t) m_k, a_k) with a_k = (1 − t)² S_k² + t²; E[z | z_t] and E[ε | z_t] follow by Bayes.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Mixture:
    """`weights`, `means` and `deviations` of the components."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def _posterior(self, x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        weights, means, deviations = (np.asarray(v) for v in (self.weights, self.means, self.deviations))
        variance = (1 - t) ** 2 * deviations**2 + t**2
        residual = x[..., None] - (1 - t) * means
        logits = np.log(weights) - 0.5 * residual**2 / variance - 0.5 * np.log(variance)
        responsibility = np.exp(logits - logits.max(-1, keepdims=True))
        responsibility /= responsibility.sum(-1, keepdims=True)
        return responsibility, residual, variance, means + (1 - t) * deviations**2 * residual / variance

    def data(self, x: np.ndarray, t: float) -> np.ndarray:
        """E[z | z_t = x]."""
        responsibility, _, _, data = self._posterior(x, t)
        return (responsibility * data).sum(-1)

    def noise(self, x: np.ndarray, t: float) -> np.ndarray:
        """E[ε | z_t = x]."""
        responsibility, residual, variance, _ = self._posterior(x, t)
        return (responsibility * t * residual / variance).sum(-1)

    def velocity(self, x: np.ndarray, t: float) -> np.ndarray:
        """E[ε − z | z_t = x]."""
        return self.noise(x, t) - self.data(x, t)
