"""How near x̂ is to x, over all tokens i of all images, summed batch by batch:

cosine = mean_i  x_i·x̂_i / (‖x_i‖ ‖x̂_i‖)                                                 (1)
explained variance = 1 − Σ_i ‖x_i − x̂_i‖² / Σ_i ‖x_i − x̄‖²                                (2)
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass
class Agreement:
    """Sums over the tokens seen so far, float64.

    Attributes:
      centre: (d,), near x̄; sums are taken around it so that a large mean costs no digits.
    """

    centre: Float[np.ndarray, " d"] | None = None
    tokens: int = 0
    cosines: float = 0.0
    residual: float = 0.0
    total: float = 0.0
    offset: Float[np.ndarray, " d"] | float = 0.0

    def add(self, features: Float[np.ndarray, "b n d"], reconstructed: Float[np.ndarray, "b n d"]) -> None:
        """Takes in x and x̂ of a batch; a token of length zero has cosine 0.

        Raises:
          ValueError: x and x̂ differ in shape.
        """
        if features.shape != reconstructed.shape:
            raise ValueError(f"x is {features.shape} but its reconstruction {reconstructed.shape}")
        first, second = np.asarray(features, np.float64), np.asarray(reconstructed, np.float64)
        if self.centre is None:
            self.centre = first.mean((0, 1))
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        self.cosines += float(((first * second).sum(-1) / np.where(lengths > 0, lengths, np.inf)).sum())
        self.residual += float(((first - second) ** 2).sum())
        moved = first - self.centre
        self.total += float((moved**2).sum())
        self.offset = self.offset + moved.sum((0, 1))
        self.tokens += first.shape[0] * first.shape[1]

    @property
    def cosine(self) -> float:
        """Equation (1)."""
        return self.cosines / self.tokens

    @property
    def explained_variance(self) -> float:
        """Equation (2), with x̄ the mean of each channel over all tokens."""
        spread = self.total - float(np.sum(np.square(self.offset))) / self.tokens
        return 1.0 - self.residual / spread
