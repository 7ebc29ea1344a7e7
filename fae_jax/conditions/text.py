"""A text: its tokens through a frozen tower, run where the image's latent is read, so that nothing is stored of it.

With E the tower, s its tokens (b, n) and m which of them are not padding:

    tokens = m · E(s),   pooled = the tower's own vector, or Σ m E(s) / Σ m                     (1)

Loaders, users and caches hold s and m alone. The empty text is "nothing": m = 0, and so tokens = 0 and pooled = 0,
which is also what a dropped example is told, and what guidance compares with where no negative prompt is given.
Of several captions of an image, which one is read is drawn by the loader, from (seed, step, example).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from fae_jax.encoders import TextEncoder, create_text, outline_text
from fae_jax.encoders.pretrained import find_files
from fae_jax.encoders.published import TEXT_TOWERS
from fae_jax.encoders.text import masked_mean
from fae_jax.section import at_least, option

SAMPLE = 60  # letters of a prompt that a message repeats


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConditionSection:
    """The text that a generator reads."""

    tower: str = option(
        "flan_t5_xl",
        "frozen text tower (`fae weights list`); minilm_l6 comes as a package, without a hub (docs/text.md)",
    )
    weights: str = option("", "its file, folder or hub name; empty = the tower's own", path=True)
    tokenizer: str = option("", "its tokenizer's file or folder; empty = beside the weights", path=True)
    length: int = option(0, "tokens that are read of a text, longer ones are cut; 0 = the tower's own", at_least(0))
    skip: int = option(0, "the tower's last blocks that are left out: earlier ones keep words apart", at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """See `fae_jax.conditions.Condition`. What is asked for, {"text_tokens", "text_mask"}, becomes by `encode` what a
    network is told: {"tokens": float32 (b, n, d), "mask": bool (b, n), "pooled": float32 (b, p)}.

    Attributes:
      tower, weights, tokenizer, length, skip: see `TextConditionSection`.
      dtype: of the tower's products.
      dropout: share of examples that are trained without their text.
      instead: one example of what `encode` gives, which takes the place of "nothing"; None for nothing.
    """

    tower: str
    weights: str = ""
    tokenizer: str = ""
    length: int = 0
    skip: int = 0
    dtype: str = "float32"
    dropout: float = 0.0
    instead: Any = None
    classes: ClassVar[int] = 0

    Section = TextConditionSection

    @classmethod
    def build(cls, section: TextConditionSection, *, dropout: float, config: Any) -> Text:
        """From the section `condition.text`."""
        return cls(**dataclasses.asdict(section), dropout=dropout, dtype=config.compute.dtype)

    # The tower

    @property
    def _request(self) -> tuple[tuple[str, Any], ...]:
        given = {"weights": self.weights or None, "length": self.length or None, "tokenizer": self.tokenizer or None}
        skip = {"skip": self.skip} if self.skip else {}  # towers of other packages need not know it
        return tuple({**given, "dtype": self.dtype, **skip}.items())

    @property
    def outline(self) -> TextEncoder:
        """The tower without its weights."""
        return _outlined(self.tower, self._request)

    def opened(self, place: Callable[[Any], Any] | None = None) -> TextEncoder:
        """The tower, read when first asked for in a process.

        Args:
          place: shapes of its parameters → where they lie.

        Raises:
          ValueError, FileNotFoundError, OSError: its weights or its tokenizer are not there or do not fit.
        """
        key = (self.tower, self._request)
        if key not in _OPENED:
            more: dict[str, Any] = {"place": place} if place else {}
            _OPENED[key] = create_text(self.tower, **dict(self._request), **more)
        return _OPENED[key]

    def check(self) -> None:
        """Looks for the tower's files, without reading its weights.

        Raises:
          ValueError, FileNotFoundError, OSError: the tower is unknown, or they are not there.
        """
        _ = self.outline
        if self.tower in TEXT_TOWERS or self.tower == "pretrained":
            find_files(self.weights or None, TEXT_TOWERS.get(self.tower))

    @property
    def identity(self) -> dict[str, Any]:
        """Which tower it is: its name, the hash of its weights, tokens that are read, blocks that are left out."""
        tower = self.opened()
        left_out = {"skip": self.skip} if self.skip else {}
        return {"tower": tower.name, "weights": tower.weights_hash, "tokens": tower.length, **left_out}

    # What is asked for

    @property
    def reads(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        length = self.outline.length
        return {"text_tokens": ((length,), jnp.int32), "text_mask": ((length,), jnp.bool_)}

    def tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Texts → what a batch holds of them."""
        tokens, mask = self.opened().tokenize(list(texts))
        some = np.array([bool(text.strip()) for text in texts], bool)
        return {"text_tokens": tokens, "text_mask": mask & some[:, None]}

    def cut(self, texts: Sequence[str]) -> dict[int, int]:
        """Places of texts that are longer than what is read of them, and the tokens they have."""
        tower = self.opened()
        count = getattr(tower.tokenize, "count", lambda text: 0)
        lengths = {place: count(text) for place, text in enumerate(texts)}
        return {place: length for place, length in lengths.items() if length > tower.length}

    def of(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        return {name: batch[name] for name in self.reads}

    def request(self, prompts: Any) -> dict[str, np.ndarray]:
        """Raises ValueError: they are not texts."""
        if prompts is None or isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError("this model draws from text: give prompts, a list of texts, and no classes")
        if not len(prompts):
            raise ValueError("prompts must be a list of at least one text")
        for prompt in prompts:
            try:
                prompt.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError(f"the prompt {prompt[:SAMPLE]!r} is not valid text: write it in UTF-8") from None
        return self.tokens(prompts)

    # What a network is told

    def encode(self, params: Any, asked: Mapping[str, Array | np.ndarray]) -> dict[str, Array]:
        """Equation (1); `params` are the tower's, and take no gradient."""
        mask = jnp.asarray(asked["text_mask"])
        output = self.outline.apply(jax.lax.stop_gradient(params), asked["text_tokens"], mask)
        told = {"tokens": output.tokens, "mask": mask, "pooled": output.pooled}
        if output.pooled is None:
            told["pooled"] = masked_mean(output.tokens, mask)
        told = jax.tree.map(lambda leaf: leaf if leaf.dtype == bool else leaf.astype(jnp.float32), told)
        return self._without(told, ~jnp.any(mask, axis=1))

    def _without(self, told: Mapping[str, Array], gone: Array) -> dict[str, Array]:
        """`told` with the examples that are `gone` told nothing, and padding zero."""
        mask = told["mask"] & ~gone[:, None]
        tokens = jnp.where(mask[..., None], told["tokens"], 0)
        return {"tokens": tokens, "mask": mask, "pooled": jnp.where(gone[:, None], 0, told["pooled"])}

    @functools.cached_property
    def _shapes(self) -> dict[str, Any]:
        """Shapes of what a network is told about one example."""
        asked = {name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, (shape, dtype) in self.reads.items()}
        return jax.eval_shape(self.encode, self.outline.params, asked)

    def none(self, count: int) -> dict[str, Array]:
        if self.instead is not None:
            return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape[1:])), self.instead)
        return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), self._shapes)

    def drop(self, keys: Key[Array, " b"], condition: Mapping[str, Array]) -> dict[str, Array]:
        dropped = jax.vmap(lambda key: jax.random.bernoulli(key, self.dropout))(keys)
        return self._without(condition, dropped)


_OPENED: dict[Any, TextEncoder] = {}  # towers by what was asked for: experiments of one process share them


@functools.cache
def _outlined(tower: str, request: tuple[tuple[str, Any], ...]) -> TextEncoder:
    return outline_text(tower, **dict(request))
