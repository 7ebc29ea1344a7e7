"""Images found by captions and captions by images, from x and from x̂, exactly and in blocks.

    text to image   R@k = share of captions whose image is among the k images of highest cosine               (1)
    image to text   R@k = share of images with at least one of their captions among the k captions               (2)

for k = 1, 5, 10, the protocol of COCO retrieval (5,000 images with five captions each). Of equal cosines the first
in the list counts. `evaluation/retrieval.json`:

    schema                  1
    encoder, text_tower     names and SHA-256 of weights; tokens a caption may have
    source, fingerprint     of the captioned images
    images, captions      how many
    x, reconstructed        {text_to_image, image_to_text}: {"1", "5", "10"}: equations (1) and (2)
    no_reconstructed        why there is no x̂, where the encoder's pooling reads its class token alone
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fae_jax.data.sources.coco import CocoSource
from fae_jax.data.sources.columns import Columns
from fae_jax.data.sources.kinds import open_source
from fae_jax.data.sources.listing import Source
from fae_jax.evaluation.streams import Streams
from fae_jax.evaluation.tasks import Outcome, check_heldout
from fae_jax.evaluation.text_side import TextSide
from fae_jax.evaluation.views import View, walk
from fae_jax.evaluation.voting import most_similar
from fae_jax.model import FAE
from fae_jax.section import at_least, option, subsection


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalSection:
    """Captioned images."""

    source: str = option("", "a kind with captions: coco, tar, …; empty = the held-out images")
    path: str = option("", "where it is: of coco, the JSON file of captions", path=True)
    images: str = option("", "coco: the folder of images; empty = looked for near the JSON file", path=True)
    columns: Columns = subsection(Columns)
    limit: int = option(0, "images at most, the first ones; 0 = all", at_least(0))


AMONG = (1, 5, 10)
NO_CAPTIONS = "have no captions; name captioned ones in evaluation.retrieval.source and evaluation.retrieval.path"


def recalls(
    images: Float[np.ndarray, "n p"], texts: Float[np.ndarray, "m p"], owners: Int[np.ndarray, " m"]
) -> dict[str, dict[str, float]]:
    """Equations (1) and (2).

    Args:
      images, texts: vectors of any length.
      owners: of each text, the position of its image.

    Raises:
      ValueError: an image has no text.
    """
    if set(np.unique(owners)) != set(range(len(images))):
        raise ValueError("every image needs at least one caption, and every caption an image")
    _, near_images = most_similar(texts, images, min(max(AMONG), len(images)))
    _, near_texts = most_similar(images, texts, min(max(AMONG), len(texts)))
    hits = {
        "text_to_image": near_images == owners[:, None],
        "image_to_text": owners[near_texts] == np.arange(len(images))[:, None],
    }
    return {way: {str(k): float(hit[:, :k].any(axis=1).mean()) for k in AMONG} for way, hit in hits.items()}


def evaluate_retrieval(side: TextSide, views: Iterable[View]) -> dict[str, Any]:
    """The result, as plain JSON values, without `source`; images without a caption are left out.

    Raises:
      ValueError: no image has a caption, or images and texts have vectors of another width.
    """
    vectors: dict[str, list[np.ndarray]] = {}
    captions: list[str] = []
    owners: list[int] = []
    count = 0
    for view in views:
        every = view.captions
        kept = np.array([bool(texts) for texts in every], bool)
        for own in every:
            if own:
                captions += own
                owners += [count] * len(own)
                count += 1
        for name, rows in side.images(view).items():
            vectors.setdefault(name, []).append(rows[kept])
    texts = side.texts(captions)
    images = {name: np.concatenate(parts) for name, parts in vectors.items()}
    side.check_width(images["x"], texts)
    result = {"schema": 1, **side.as_result(), "images": count, "captions": len(captions)}
    return result | {name: recalls(rows, texts, np.array(owners)) for name, rows in images.items()}


class Retrieval:
    """The task; see the module."""

    Section = RetrievalSection
    needs = ("features",)
    higher = ("text_to_image", "image_to_text")

    def __init__(self, fae: FAE, streams: Streams):
        self.fae, self.streams, self.settings = fae, streams, fae.config.evaluation.retrieval

    @staticmethod
    def possible(config: Any) -> None:
        if not config.evaluation.retrieval.source:
            check_heldout(config)
            if not config.data.captions:
                raise ValueError(f"the images of this experiment {NO_CAPTIONS}")

    def check(self) -> None:
        self._source()
        _ = self.streams.text.tower

    def _source(self) -> Source:
        """The captioned images.

        Raises:
          ValueError, FileNotFoundError: there are none.
        """
        fields = self.settings
        if fields.source == "coco" and fields.path and fields.images:
            return CocoSource(fields.path, split="train", holdout=0.0, seed=0, images=fields.images)
        if fields.source:
            source = open_source(
                fields.source, path=fields.path or None, split="train", holdout=0.0, seed=0, columns=fields.columns
            )
        else:
            source = self.streams.source("heldout")
        if not getattr(source, "captioned", False):
            raise ValueError(f"the images of {fields.path or fields.source} {NO_CAPTIONS}")
        return source

    def run(self) -> Outcome:
        source = self._source()
        views = walk(self.fae, source, what="retrieval", limit=self.settings.limit)
        about = {"source": self.settings.source or self.fae.config.data.source, "fingerprint": source.fingerprint}
        return Outcome(evaluate_retrieval(self.streams.text, views) | about)
