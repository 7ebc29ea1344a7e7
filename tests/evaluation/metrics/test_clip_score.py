"""The CLIP score against its equation, and towers that do not belong together."""

import numpy as np
import pytest

from fae_jax.encoders import TextEncoder, register_text
from fae_jax.encoders.text import TextOutput
from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.metrics.clip_score import ClipScore, ClipScoreSection

TABLE = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
SECTION = ClipScoreSection(extractor="looks:pooled", tower="first_letters")
TEXTS = ("a cat", "two dogs", "größe")


def first_letters(*, weights: str | None, **options: object) -> TextEncoder:
    def tokenize(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.array([[ord(text[0]) % 60] for text in texts], np.int32)
        return tokens, np.ones_like(tokens, bool)

    def apply(params: dict, tokens: np.ndarray, mask: np.ndarray) -> TextOutput:
        return TextOutput(params["table"][tokens], params["table"][tokens[:, 0]])

    return TextEncoder(
        name="first_letters",
        apply=apply,
        params={"table": TABLE},
        tokenize=tokenize,
        length=1,
        width=3,
        weights_hash="0" * 64,
    )


def taken(vectors: np.ndarray, labels: np.ndarray, parts: int = 1) -> ClipScore:
    register_text("first_letters", first_letters)
    metric = ClipScore.build(SECTION, TEXTS)
    for rows in np.array_split(np.arange(len(labels)), parts):
        images = np.zeros((len(rows), 1, 1, 3), np.uint8)
        metric.update(
            Batch(images=images, labels=labels[rows], look=lambda name, rows=rows: {"pooled": vectors[rows]})
        )
    return metric


def test_it_is_the_mean_of_positive_cosines():
    vectors, labels = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32), np.arange(9) % 3
    texts = TABLE[[ord(TEXTS[label][0]) % 60 for label in labels]]
    cosines = [v @ t / np.linalg.norm(v) / np.linalg.norm(t) for v, t in zip(vectors, texts, strict=True)]
    result = taken(vectors, labels, parts=2).result({})["clip_score"]
    assert min(cosines) < 0 < max(cosines)
    assert result["value"] == pytest.approx(100 * np.mean(np.maximum(cosines, 0)), rel=1e-5)
    assert result["samples"] == 9 and result["tower"]["name"] == "first_letters"
    whole, other = taken(vectors[:5], labels[:5]), ClipScore.build(SECTION, TEXTS)
    other.restore(taken(vectors[5:], labels[5:]).state())
    whole.merge(other)
    assert whole.result({})["clip_score"]["value"] == pytest.approx(result["value"])


def test_towers_of_two_networks_are_refused():
    with pytest.raises(
        ValueError, match="looks:pooled gives 4 channels of an image and the text tower first_letters 3"
    ):
        taken(np.ones((2, 4), np.float32), np.zeros(2, int))
