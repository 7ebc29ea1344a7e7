"""The encoder's own published classifier, unchanged, on x and on x̂: the paper's zero-shot test of the latent.

    loss in points = 100 (top-1(x) − top-1(x̂)),   agreement = share of images with the same class from both     (1)

Top-1 needs the head's classes to be the data's: as many, in the same order, or named one by one in
`evaluation.probe.head_classes`. Agreement needs neither. A latent carries patches and no class token, so a head that
also reads that token is shown x̂ beside the class token of x, and once more with the mean class token of the training
images in its place ("patches_only"), so that only the patches can tell.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fae_jax.evaluation.vectors import reads_patches
from fae_jax.evaluation.views import View
from fae_jax.model import FAE

ALONE = "the encoder's head reads its class token alone, which the latent does not carry"


class OwnHead:
    """Shows the head batch after batch of held-out images, and keeps which classes it saw.

    Args:
      head_classes: the head's class of each of the data's classes; empty for the same ones in the same order.
      mean_token: mean class token, (d,), or None for an encoder without.

    Raises:
      ValueError: `head_classes` does not fit the data, or the head.
    """

    def __init__(
        self, fae: FAE, *, head_classes: tuple[int, ...] = (), mean_token: Float[np.ndarray, " d"] | None = None
    ):
        self.fae, self.mean_token = fae, mean_token
        self.head_classes = check_head_classes(head_classes, fae.config.data.classes)
        self.seen: dict[str, list[np.ndarray]] = {}
        self.labels: list[np.ndarray] = []
        self.classes = 0
        self.reads_patches = True

    @functools.cached_property
    def _classify(self) -> Any:
        head, params = self.fae.encoder.head, self.fae.encoder.params
        assert head is not None
        compiled = jax.jit(lambda params, patches, cls: head(params, patches, cls))
        return lambda patches, cls: compiled(params, patches, cls)

    def see(self, view: View) -> None:
        """Takes in one batch."""
        if not self.labels:
            self.reads_patches = reads_patches(self._classify, view)
        x, cls = view.features, view.outputs.cls
        cases = {"x": (x, cls)}
        if self.reads_patches:
            cases["reconstructed"] = view.reconstructed, cls
        if self.reads_patches and cls is not None and self.mean_token is not None:
            same = jnp.broadcast_to(jnp.asarray(self.mean_token, cls.dtype), cls.shape)
            cases |= {"x, patches": (x, same), "reconstructed, patches": (view.reconstructed, same)}
        for name, (patches, token) in cases.items():
            logits: Array = self._classify(patches, token)
            self.classes = logits.shape[-1]
            self.seen.setdefault(name, []).append(view.kept(logits.argmax(axis=-1)))
        self.labels.append(view.labels)

    def as_result(self) -> dict[str, Any]:
        """Equation (1), as plain JSON values.

        Raises:
          ValueError: `head_classes` names a class that the head has not.
        """
        seen = {name: np.concatenate(parts) for name, parts in self.seen.items()}
        labels, data = np.concatenate(self.labels), self.fae.config.data.classes
        if self.head_classes and max(self.head_classes) >= self.classes:
            raise ValueError(
                f"field evaluation.probe.head_classes names class {max(self.head_classes)}, but the head of "
                f"{self.fae.encoder.name!r} has {self.classes}"
            )
        known = bool(self.head_classes) or self.classes == data
        truth = np.asarray(self.head_classes)[labels] if self.head_classes else labels
        result: dict[str, Any] = {"classes": self.classes}

        def compared(x: str, reconstructed: str) -> dict[str, float]:
            scores = {}
            if known:
                scores["x"] = float(np.mean(seen[x] == truth))
                if reconstructed in seen:
                    scores["reconstructed"] = float(np.mean(seen[reconstructed] == truth))
                    scores["loss_in_points"] = 100.0 * (scores["x"] - scores["reconstructed"])
            if reconstructed in seen:
                scores["agreement"] = float(np.mean(seen[x] == seen[reconstructed]))
            return scores

        result |= compared("x", "reconstructed")
        if not known:
            result["no_accuracy"] = (
                f"the head has {self.classes} classes and the data {data}; name the head's class of each of the "
                "data's in evaluation.probe.head_classes"
            )
        if not self.reads_patches:
            result["no_reconstructed"] = ALONE
        if "x, patches" in seen:
            result["patches_only"] = compared("x, patches", "reconstructed, patches")
        return result


def check_head_classes(head_classes: tuple[int, ...], classes: int) -> tuple[int, ...]:
    """The classes, if there are none or as many as the data's.

    Raises:
      ValueError: there are others.
    """
    if head_classes and len(head_classes) != classes:
        raise ValueError(
            f"field evaluation.probe.head_classes names {len(head_classes)} classes, the data has {classes}"
        )
    return tuple(head_classes)
