"""Texts as a condition: what is read of them, what "nothing" is, padding, dropping, negative prompts, refusals."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.conditions import make_condition, told
from fae_jax.conditions.text import Text, TextConditionSection
from fae_jax.encoders import TextEncoder, register_text
from fae_jax.encoders.captions import Tokenizer
from fae_jax.encoders.text import TextOutput

LENGTH = 6


def letters(*, weights: str | None, length: int | None = None, tokenizer: str | None = None, dtype: str = "float32"):
    """A tower that embeds letters, each by a row of a table, and adds what attention would see beside: their sum."""
    tokenize = Tokenizer(
        encode=lambda text: [*(ord(c) % 50 + 2 for c in text), 1], length=length or LENGTH, padding=0, end=1
    )

    def apply(params, tokens, mask):
        rows = params["table"][tokens]
        return TextOutput(rows + jnp.sum(jnp.where(mask[..., None], rows, 0), axis=1, keepdims=True))

    table = np.random.default_rng(0).normal(size=(52, 4)).astype(np.float32)
    return TextEncoder(
        name="letters",
        apply=apply,
        params={"table": table},
        tokenize=tokenize,
        length=length or LENGTH,
        width=4,
        weights_hash="0" * 64,
    )


@pytest.fixture(scope="module", autouse=True)
def registered():
    register_text("letters", letters)


def condition(**changes) -> Text:
    return Text(tower="letters", **changes)


def asked(text: Text, prompts: list[str]):
    return told(text, {"text": text.opened().params}, text.request(prompts))


def test_padding_is_zero_and_the_empty_text_is_nothing():
    text = condition()
    out = asked(text, ["abc", "", " \n", "abcdefghij"])
    assert {name: leaf.shape for name, leaf in out.items()} == {"tokens": (4, 6, 4), "mask": (4, 6), "pooled": (4, 4)}
    assert np.asarray(out["mask"]).sum(1).tolist() == [4, 0, 0, 6]
    assert not np.asarray(out["tokens"])[~np.asarray(out["mask"])].any()
    np.testing.assert_allclose(out["pooled"][0], np.asarray(out["tokens"])[0, :4].mean(0), rtol=1e-6)
    nothing = text.none(2)
    for name, leaf in nothing.items():
        np.testing.assert_array_equal(out[name][1:3], leaf, err_msg=name)
    longer = asked(condition(length=9), ["abc"])
    for name in ("tokens", "mask"):
        np.testing.assert_array_equal(longer[name][:, :LENGTH], out[name][:1])
    assert text.cut(["abc", "abcdefghij", "abcde"]) == {1: 11} and text.identity["tokens"] == LENGTH


def test_another_packages_tower_need_not_know_where_its_parameters_go():
    tower = condition(length=LENGTH + 1).opened(lambda shapes: pytest.fail("nobody asks"))
    assert tower.params["table"].shape == (52, 4)


def test_captions_are_dropped_in_the_share_asked_for():
    text = condition(dropout=0.25)
    out = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2000, axis=0), asked(text, ["abc"]))
    dropped = text.drop(jax.random.split(jax.random.key(0), 2000), out)
    gone = ~np.asarray(dropped["mask"]).any(axis=1)
    assert 0.2 < gone.mean() < 0.3
    for name, leaf in out.items():
        np.testing.assert_array_equal(np.asarray(dropped[name])[~gone], np.asarray(leaf)[~gone])
        assert not np.asarray(dropped[name])[gone].any()


def test_a_negative_prompt_takes_the_place_of_nothing():
    text = condition()
    against = asked(text, ["xyz"])
    stood_in = Text(tower="letters", instead=against).none(3)
    for name, leaf in against.items():
        np.testing.assert_array_equal(stood_in[name], np.repeat(leaf, 3, axis=0))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (np.zeros(3, np.int32), "draws from text: give prompts, a list of texts, and no classes"),
        (None, "draws from text: give prompts"),
        ("a cat", "a list of texts"),
        ([], "at least one text"),
        (["a\ud800"], r"the prompt 'a\\ud800' is not valid text: write it in UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(prompts, message):
    with pytest.raises(ValueError, match=message):
        condition().request(prompts)


def test_it_is_made_of_the_configuration_and_an_unknown_tower_is_named():
    section = types.SimpleNamespace(kind="text", dropout=0.2, text=TextConditionSection(tower="letters", length=4))
    config = types.SimpleNamespace(condition=section, compute=types.SimpleNamespace(dtype="bfloat16"))
    made = make_condition(config)
    assert (made.tower, made.length, made.dropout, made.dtype) == ("letters", 4, 0.2, "bfloat16")
    assert made.reads == {"text_tokens": ((4,), jnp.int32), "text_mask": ((4,), jnp.bool_)}
    with pytest.raises(ValueError, match="text tower 'lettres' is unknown; did you mean 'letters'"):
        Text(tower="lettres").check()
