"""Recall against its definition written out, and images and captions whose vectors are colours."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from fake_fae import FakeFAE, Images, fake_encoder

from fae_jax.encoders import registry
from fae_jax.encoders.registry import TextEncoder
from fae_jax.evaluation import voting
from fae_jax.evaluation.tasks.retrieval import evaluate_retrieval, recalls
from fae_jax.evaluation.tasks.zero_shot import class_vectors, evaluate_zero_shot, read_names
from fae_jax.evaluation.text_side import ALONE, TextSide
from fae_jax.evaluation.views import walk

WORDS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "": (1.0, 1.0, 1.0)}
COLOURS = np.array([(255, 90, 60), (80, 255, 50), (70, 60, 255)], np.uint8)


def tower(*, scale=10.0, width=3, **_):
    """A text tower that knows three words, and takes the last one in a text."""
    table = jnp.asarray(list(WORDS.values()))[:, :width]

    def tokenize(captions):
        said = [[word.strip(".") for word in text.split() if word.strip(".") in WORDS][-1:] for text in captions]
        numbers = [[list(WORDS).index(words[0] if words else "")] for words in said]
        return np.array(numbers, np.int32), np.ones((len(captions), 1), bool)

    return TextEncoder(
        name="words",
        apply=lambda params, tokens, mask: SimpleNamespace(pooled=table[tokens[:, 0]]),
        params={},
        tokenize=tokenize,
        length=1,
        width=3,
        weights_hash="1" * 64,
        scale=scale,
    )


@pytest.fixture
def side(monkeypatch):
    """A function that makes the text side of a fake FAE."""
    monkeypatch.setattr(registry, "_text_builders", dict(registry._text_builders))

    def make(pool=lambda params, patches, cls: patches.mean(axis=1) + 1, **options):
        registry.register_text("fake", lambda **given: tower(**options))
        return TextSide(FakeFAE(fake_encoder(pool=pool), blue=-1.0))

    return make


def brute(images, texts, owners, k):
    """Recall as its definition says it, one question at a time."""
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    found = [
        owners[i] in sorted(range(len(images)), key=lambda j: -cosine(text, images[j]))[:k]
        for i, text in enumerate(texts)
    ]
    said = [
        any(owners[j] == i for j in sorted(range(len(texts)), key=lambda j: -cosine(image, texts[j]))[:k])
        for i, image in enumerate(images)
    ]
    return np.mean(found), np.mean(said)


def test_recall_is_its_definition_with_several_captions_across_blocks(monkeypatch):
    monkeypatch.setattr(voting, "QUERIES", 9)
    monkeypatch.setattr(voting, "REFERENCES", 16)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(30, 8)).astype(np.float32)
    owners = rng.permutation(np.r_[np.arange(30), rng.integers(0, 30, 60)])
    texts = (images[owners] + rng.normal(scale=1.2, size=(90, 8))).astype(np.float32)
    found = recalls(images, texts, owners)
    for k in (1, 5, 10):
        text_to_image, image_to_text = brute(images, texts, owners, k)
        assert found["text_to_image"][str(k)] == pytest.approx(text_to_image)
        assert found["image_to_text"][str(k)] == pytest.approx(image_to_text)
    assert 0.1 < found["text_to_image"]["1"] < found["image_to_text"]["1"] < 0.95


def test_a_image_without_caption_is_refused_by_recall():
    with pytest.raises(ValueError, match="at least one caption"):
        recalls(np.eye(3), np.eye(3), np.array([0, 0, 1]))


def coloured(captions):
    source = Images(len(captions), captions=captions)
    source.images = np.broadcast_to(COLOURS[np.arange(len(captions)) % 3, None, None], (len(captions), 2, 2, 3))
    return source


def test_any_caption_counts_and_images_without_are_left_out(side):
    captions = [("something red", "red"), ("green", "green red"), ("blue",), ()]  # the last word counts
    made = side()
    result = evaluate_retrieval(made, walk(made.fae, coloured(captions), what="x"))
    assert (result["images"], result["captions"]) == (3, 5)
    assert result["x"]["image_to_text"]["1"] == 1.0 and result["x"]["text_to_image"]["1"] == pytest.approx(4 / 5)
    # x̂ has no blue: the blue image is found by its caption no more, nor the caption by it
    assert result["reconstructed"]["text_to_image"]["1"] == pytest.approx(3 / 5)
    assert result["reconstructed"]["image_to_text"]["1"] == pytest.approx(2 / 3)
    assert result["encoder"]["name"] == "fake" and result["text_tower"]["weights"] == "1" * 64


def test_a_pooling_of_the_class_token_alone_has_no_reconstruction(side):
    made = side(pool=lambda params, patches, cls: cls + 1)
    result = evaluate_retrieval(made, walk(made.fae, coloured([("red",), ("green",), ("blue",)]), what="x"))
    assert result["no_reconstructed"] == ALONE and "reconstructed" not in result
    assert result["x"]["text_to_image"]["1"] == 1.0


def test_classes_are_named_by_the_tower(side):
    made = side()
    names, source = ["red", "green", "blue"], coloured([()] * 9)
    source.captioned = False
    views = walk(made.fae, source, what="x")
    result = evaluate_zero_shot(made, views, names=names, templates=("a photo of a {}.", "{}"))
    assert result["top_1"]["x"] == 1.0 and result["top_1"]["reconstructed"] == pytest.approx(2 / 3)
    assert result["loss_in_points"] == pytest.approx(100 / 3) and result["agreement"] == pytest.approx(2 / 3)
    assert result["top_5"] == {"x": 1.0, "reconstructed": 1.0} and result["images"] == 9
    turned = evaluate_zero_shot(made, walk(made.fae, source, what="x"), names=names[::-1], templates=("{}",))
    assert turned["top_1"]["x"] == pytest.approx(1 / 3)


def test_templates_are_averaged_as_unit_vectors(side):
    vectors = class_vectors(side(), ["red", "green"], ("{}", "{} blue"))
    want = np.array([[0.5, 0, 0.5], [0, 0.5, 0.5]])
    np.testing.assert_allclose(vectors, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-6)


def test_names_of_classes(tmp_path):
    file = tmp_path / "names.json"
    assert read_names("", ("tabby_cat", "dog")) == ["tabby cat", "dog"]
    file.write_text('["cat", "dog"]')
    assert read_names(str(file), ("n1", "n2")) == ["cat", "dog"]
    file.write_text('{"n2": "dog", "n1": "cat", "n3": "eel"}')
    assert read_names(str(file), ("n1", "n2")) == ["cat", "dog"]
    for content, said in (("{", "not JSON"), ('["cat"]', "holds 1 names, the data has 2"), ('{"n1": "cat"}', "'n2'")):
        file.write_text(content)
        with pytest.raises(ValueError, match=said):
            read_names(str(file), ("n1", "n2"))
    with pytest.raises(FileNotFoundError, match="do not exist"):
        read_names(str(tmp_path / "none.json"), ("n1",))


def test_what_has_no_text_side_says_so(side):
    with pytest.raises(ValueError, match="'fake' pools no vector"):
        TextSide(FakeFAE())
    made = side(width=2)
    with pytest.raises(ValueError, match="pools 3 channels and the text tower 'fake' 2"):
        evaluate_retrieval(made, walk(made.fae, coloured([("red",)] * 3), what="x"))
    with pytest.raises(ValueError, match="'fake' compares no images"):
        _ = side(scale=None).tower
    fae = FakeFAE(fake_encoder(pool=lambda params, patches, cls: patches.mean(1)))
    fae.config.evaluation.text.tower = "clip_b33"
    with pytest.raises(ValueError, match="there is no text tower 'clip_b33'"):
        TextSide(fae)
    with pytest.raises(ValueError, match="no text to compare"):
        made.texts([])
