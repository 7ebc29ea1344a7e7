"""Which patches are alike in x, in x̂ and in z: similarity maps, and matches from image to image.

    map of patch q in an image f        s(p) = f_p·f_q / (‖f_p‖ ‖f_q‖)                                       (1)
    match of patch q in another one g    m(q) = argmax_p  g_p·f_q / (‖g_p‖ ‖f_q‖)                             (2)

x and x̂ are taken in the space the autoencoder works in (raw, or standardised per channel). Queries are chosen in x
and asked in every space: k-means with two clusters tells an image's foreground, the cluster with the smaller share of
its patches on the border, from the background; k-means with as many clusters as queries divides the foreground, and
the patch nearest to each centre is a query (16, as in the paper's figures). All is a function of the images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans

from fae_jax.evaluation.voting import unit

SPACES = ("x", "reconstructed", "z")


def _clusters(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """k-means of unit vectors: (cluster of each, centres)."""
    model = KMeans(count, n_init=4, random_state=0).fit(vectors.astype(np.float64))
    return model.labels_, model.cluster_centers_


def _flat(features: Float[np.ndarray, "y x d"]) -> Float[np.ndarray, "n d"]:
    return unit(features.reshape(-1, features.shape[-1]))


def foreground(features: Float[np.ndarray, "y x d"]) -> Bool[np.ndarray, "y x"]:
    """Which patches stand before the background; all of them where the patches are all alike."""
    vectors, grid = _flat(features), features.shape[:2]
    if len(np.unique(vectors, axis=0)) < 2:
        return np.ones(grid, bool)
    labels = _clusters(vectors, 2)[0].reshape(grid)
    border = np.ones(grid, bool)
    border[1:-1, 1:-1] = False
    shares = [border[labels == cluster].mean() for cluster in (0, 1)]
    return labels == int(shares[1] < shares[0])


def queries(
    features: Float[np.ndarray, "y x d"], mask: Bool[np.ndarray, "y x"], count: int
) -> Int[np.ndarray, "q 2"]:
    """Rows and columns of at most `count` different patches of the foreground, in reading order."""
    places = np.argwhere(mask)
    vectors = _flat(features)[mask.reshape(-1)]
    different = len(np.unique(vectors, axis=0))
    if different > count:
        _, centres = _clusters(vectors, count)
        places = places[np.unique((vectors @ unit(centres).T).argmax(axis=0))]
    return places[:count]


def similarity_map(features: Float[np.ndarray, "y x d"], query: Int[np.ndarray, " 2"]) -> Float[np.ndarray, "y x"]:
    """Equation (1)."""
    vectors = _flat(features)
    place = int(query[0]) * features.shape[1] + int(query[1])
    return (vectors @ vectors[place]).reshape(features.shape[:2])


def matches(
    features: Float[np.ndarray, "y x d"], other: Float[np.ndarray, "y x d"], asked: Int[np.ndarray, "q 2"]
) -> Int[np.ndarray, "q 2"]:
    """Equation (2): rows and columns in `other`; of equally similar patches the first."""
    vectors = _flat(features)[asked[:, 0] * features.shape[1] + asked[:, 1]]
    best = (vectors @ _flat(other).T).argmax(axis=1)
    return np.stack(np.divmod(best, other.shape[1]), axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matches:
    """What was found in pairs of images.

    Attributes:
      spaces: x, reconstructed and z of the images, (n, y, x, channels).
      asked: of each image, its queries.
      matched: of each space and pair (image 2i → image 2i + 1), which patch each query is matched with.
    """

    spaces: Mapping[str, Float[np.ndarray, "n y x _"]]
    asked: list[Int[np.ndarray, "_ 2"]]
    matched: Mapping[str, list[Int[np.ndarray, "_ 2"]]]

    @classmethod
    def of(cls, spaces: Mapping[str, np.ndarray], patches: int) -> Matches:
        """Looks for `patches` queries in every image and matches those of every first image of a pair.

        Raises:
          ValueError: the images are not pairs.
        """
        x = spaces["x"]
        if not len(x) or len(x) % 2:
            raise ValueError(f"patches are matched from image to image in pairs, got {len(x)} images")
        asked = [queries(features, foreground(features), patches) for features in x]
        matched = {
            name: [matches(values[i], values[i + 1], asked[i]) for i in range(0, len(values), 2)]
            for name, values in spaces.items()
        }
        return cls(spaces=spaces, asked=asked, matched=matched)

    def typical(self, image: int) -> Int[np.ndarray, " 2"]:
        """The query nearest to the mean of an image's queries in x: the one whose map is shown."""
        places, features = self.asked[image], self.spaces["x"][image]
        vectors = _flat(features)[places[:, 0] * features.shape[1] + places[:, 1]]
        return places[int((vectors @ vectors.mean(axis=0)).argmax())]

    def agreement(self, space: str) -> dict[str, float]:
        """How far a space says the same as x; see the module."""
        pairs = list(zip(self.matched["x"], self.matched[space], strict=True))
        steps = np.concatenate([there - here for here, there in pairs])
        correlations = [
            _correlation(similarity_map(x, query), similarity_map(other, query))
            for x, other, asked in zip(self.spaces["x"], self.spaces[space], self.asked, strict=True)
            for query in asked
        ]
        return {
            "similarity_maps": float(np.mean(correlations)),
            "matches": float(np.mean((steps == 0).all(axis=1))),
            "matches_within_one": float(np.mean((np.abs(steps) <= 1).all(axis=1))),
            "match_error": float(np.mean(np.hypot(*steps.T))),
        }

    def as_result(self) -> dict[str, Any]:
        """The entries of the result that come from here."""
        return {
            "queries": sum(map(len, self.asked)),
            "agreement_with_x": {name: self.agreement(name) for name in SPACES[1:]},
        }


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's, 0 where one of the two is constant."""
    a, b = (np.asarray(values, np.float64).reshape(-1) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths > 0 else 0.0
