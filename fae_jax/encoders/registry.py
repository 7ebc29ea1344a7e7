"""The plug: a name becomes a frozen encoder, here or in anybody's package.

A third-party package adds an encoder by naming a builder in its entry points, without touching this repository:

    [project.entry-points."fae_jax.encoders"]
    my_encoder = "my_package.module:build"

A builder is `build(*, weights: str | None, image_size: int, **options) -> Encoder`. Options it names in its signature
are fields of the configuration's section `encoder`; dtype, kernel and scan are always given. What an encoder costs is
known without its weights where the builder has an `outline(*, image_size: int, **options) -> Encoder`, whose `params`
are `jax.ShapeDtypeStruct`s: an argument of `register`, or an attribute of an entry point's builder.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fae_jax.files.names import nearest

ENTRY_POINT_GROUP = "fae_jax.encoders"
TEXT_ENTRY_POINT_GROUP = "fae_jax.text_encoders"


class EncoderOutput(NamedTuple):
    """An encoder's output for a batch of images; parts an encoder does not have are None.

    Attributes:
      patches: the final-norm patch tokens, (b, n, d), affine included.
      cls: the final-norm class token, (b, d).
      pooled: the vector the encoder's own head reads, or a text embedding is compared with, (b, p).
      layers: (patches, cls) of each layer that was asked for, in that order, each through the last norm.
    """

    patches: Array
    cls: Array | None = None
    pooled: Array | None = None
    layers: tuple[tuple[Array, Array | None], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """A frozen encoder.

    Attributes:
      name: the name it was asked for by.
      apply: (params, pixels as `preprocess` leaves them) → `EncoderOutput`; a pure function.
      params: its weights, a nested dict of arrays.
      preprocess: images (b, y, x, 3) in [−1, 1] → pixels as `apply` wants them; a pure function.
      grid: rows and columns of patch tokens.
      width: channels of a patch token.
      weights_hash: SHA-256 of the weights, hexadecimal.
      settings: whatever else changes its output (position interpolation, resize kind), as plain JSON values.
      head: (params, patches, cls) → logits of the encoder's own published head, or None.
      pool: (params, patches, cls) → the vector a text embedding is compared with, (b, p), or None.
      keep: (params, pixels, count) → what `apply` gives, with the last `count` blocks as its `layers`, or None.
    """

    name: str
    apply: Callable[[Any, Array], EncoderOutput]
    params: Any
    preprocess: Callable[[Array], Array]
    grid: tuple[int, int]
    width: int
    weights_hash: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    head: Callable[[Any, Array, Array | None], Array] | None = None
    pool: Callable[[Any, Array, Array | None], Array] | None = None
    keep: Callable[[Any, Array, int], EncoderOutput] | None = None

    def features(self, params: Any, images: Float[Array, "b y x 3"]) -> Float[Array, "b n d"]:
        """Patch tokens of images in [−1, 1], float32; the encoder takes no gradient."""
        tokens = self.apply(jax.lax.stop_gradient(params), self.preprocess(images)).patches
        return jax.lax.stop_gradient(tokens.astype(np.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A frozen text tower.

    Attributes:
      name: the name it was asked for by.
      apply: (params, token numbers (b, n), mask (b, n) of tokens that are not padding) → tokens (b, n, d) after the
        last norm, and the pooled vector (b, p) or None; a pure function.
      params: its weights, a nested dict of arrays.
      tokenize: captions → token numbers (b, length) and mask (b, length), NumPy.
      length: tokens a caption may have.
      width: channels of a token.
      weights_hash: SHA-256 of the weights, hexadecimal.
      scale, bias: logits are scale · cosine(image, text) + bias; None where the tower has no image beside it.
    """

    name: str
    apply: Callable[..., Any]
    params: Any
    tokenize: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
    length: int
    width: int
    weights_hash: str
    scale: float | None = None
    bias: float | None = None

    def logits(
        self, images: Float[Array | np.ndarray, "b p"], texts: Float[Array | np.ndarray, "t p"]
    ) -> Float[Array, "b t"]:
        """How well each image's pooled vector fits each text's.

        Raises:
          ValueError: the tower was not trained beside one for images.
        """
        if self.scale is None:
            raise ValueError(f"the text tower {self.name!r} compares no images; use one from CLIP or SigLIP")
        images, texts = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (images, texts))
        return self.scale * jnp.matmul(images, texts.T, precision="highest") + (self.bias or 0.0)


Builder = Callable[..., Encoder]
_builders: dict[str, Builder] = {}
_outlines: dict[str, Builder] = {}
_text_builders: dict[str, Callable[..., TextEncoder]] = {}


def register(name: str, builder: Builder, outline: Builder | None = None) -> None:
    """Makes `builder` answer to `name` in this process, and `outline` to who has no weights."""
    _builders[name] = builder
    if outline is not None:
        _outlines[name] = outline


def register_text(name: str, builder: Callable[..., TextEncoder]) -> None:
    """Makes `builder` answer to the text tower `name` in this process."""
    _text_builders[name] = builder


def names() -> list[str]:
    """Every encoder that can be asked for, those of installed packages included."""
    return _names(_builders, ENTRY_POINT_GROUP)


def text_names() -> list[str]:
    """Every text tower that can be asked for, those of installed packages included."""
    return _names(_text_builders, TEXT_ENTRY_POINT_GROUP)


def _names(builders: dict[str, Any], group: str) -> list[str]:
    return sorted({*builders, *(point.name for point in entry_points(group=group))})


def _find(kind: str, name: str, builders: dict[str, Any], group: str) -> Any:
    if name not in builders:
        for point in entry_points(group=group, name=name):
            builders[name] = point.load()
    if name not in builders:
        raise ValueError(f"{kind} {name!r} is unknown; {nearest(name, _names(builders, group), limit=99)}")
    return builders[name]


def create(name: str, *, weights: str | None, image_size: int, **options: Any) -> Encoder:
    """Builds the encoder called `name`.

    Args:
      name: a registered name, or one in the `fae_jax.encoders` entry points.
      weights: a file, a folder or a hub name; None for the builder's own default.
      image_size: side of the square images it will read.
      **options: passed to the builder.

    Raises:
      ValueError: no encoder has that name (the nearest one is suggested), it has no such option, or its weights do
        not fit it.
      FileNotFoundError, OSError: they are not there or cannot be read.
    """
    builder = _find("encoder", name, _builders, ENTRY_POINT_GROUP)
    taken = inspect.signature(builder).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        for option in options:
            if option not in taken:
                raise ValueError(f"encoder {name!r} has no option {option!r}; leave encoder.{option} at its default")

    def build() -> Encoder:
        return _tried(builder(weights=weights, image_size=image_size, **options), image_size)

    return _made("encoder", name, weights, build)


def _made(kind: str, name: str, weights: str | None, build: Callable[[], Any]) -> Any:
    """What `build` makes; whatever else a damaged file makes a reader raise becomes one ValueError."""
    try:
        return build()
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise ValueError(
            f"the {kind} {name!r} cannot be built from {weights or 'its own weights'}: they are damaged or another "
            f"network's ({reason[:200]})"
        ) from error


def _tried(encoder: Encoder, image_size: int) -> Encoder:
    """The encoder, if it gives features of the shape it promises; nothing is computed.

    Raises:
      ValueError: it does not.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    patches = jax.eval_shape(
        lambda params, x: encoder.apply(params, encoder.preprocess(x)).patches, encoder.params, images
    )
    promised = (1, encoder.grid[0] * encoder.grid[1], encoder.width)
    if patches.shape != promised:
        raise ValueError(f"the encoder {encoder.name!r} promises features {promised} but returns {patches.shape}")
    return encoder


def has_outline(name: str) -> bool:
    """Whether `outline` needs no weights."""
    return name in _outlines or hasattr(_builders.get(name), "outline")


def outline(name: str, *, weights: str | None, image_size: int, **options: Any) -> Encoder:
    """The encoder called `name` with shapes in the place of its weights, where its builder can say them; otherwise
    `create`, of which only the shapes are kept.

    Raises:
      ValueError: no encoder has that name; the nearest one is suggested.
      FileNotFoundError: it cannot be told without weights, and they are not there.
    """
    builder = _find("encoder", name, _builders, ENTRY_POINT_GROUP)
    told = _outlines.get(name) or getattr(builder, "outline", None)
    if told is not None:
        return told(image_size=image_size, **options)
    made = create(name, weights=weights, image_size=image_size, **options)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), made.params)
    return dataclasses.replace(made, params=shapes)


def create_text(name: str, *, weights: str | None, **options: Any) -> TextEncoder:
    """Builds the text tower called `name`; a builder is `build(*, weights: str | None, **options) -> TextEncoder`.

    Raises:
      ValueError: no text tower has that name (the nearest one is suggested), or its weights do not fit it.
      FileNotFoundError, OSError: they are not there or cannot be read.
    """
    builder = _find("text tower", name, _text_builders, TEXT_ENTRY_POINT_GROUP)
    taken = inspect.signature(builder).parameters
    if "place" not in taken and not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        options.pop("place", None)  # a small tower is placed by whoever asked, when it is made
    return _made("text tower", name, weights, lambda: builder(weights=weights, **options))


def outline_text(name: str, *, weights: str | None, **options: Any) -> TextEncoder:
    """The text tower called `name` with shapes in the place of its weights: by its builder where that takes
    `abstract=True`; otherwise by `create_text`, of which only the shapes are kept.

    Raises:
      ValueError, FileNotFoundError, OSError: see `create_text`.
    """
    builder = _find("text tower", name, _text_builders, TEXT_ENTRY_POINT_GROUP)
    if "abstract" in inspect.signature(builder).parameters:
        return create_text(name, weights=weights, **options, abstract=True)
    made = create_text(name, weights=weights, **options)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), made.params)
    return dataclasses.replace(made, params=shapes)
