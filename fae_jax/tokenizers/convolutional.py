"""Published convolutional autoencoders as tokenizers, the baselines of the field: no stage trains them.

    image → encoder (μ, log σ²) on a grid of f × f pixels → patches of p × p cells → tokens of p² c channels
    tokens → cells → decoder → image

A token holds its cells in the order (y, x, c), as in DiT and SiT, and the generator standardises tokens per channel,
so that a published scaling factor has no part in it.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.autoencoder import kl, tiny
from fae_jax.autoencoder.posterior import Posterior, certain
from fae_jax.encoders.pretrained import Files, find_files
from fae_jax.encoders.published import Published
from fae_jax.nn.embeddings import patchify, unpatchify
from fae_jax.section import at_least, one_of, option, whole_numbers
from fae_jax.weights import hash_tree, mapping, open_tensors
from fae_jax.weights.mapping import NameMap
from fae_jax.weights.releases import Release
from fae_jax.weights.tensors import Tensors

SD_VAE = "stabilityai/sd-vae-ft-mse"
_TAESD = "https://github.com/madebyollin/taesd/raw/5cccb12dc72074a4be35680c3b108548a7c69978"
RELEASES = {
    f"taef2_{half}": Release(name=f"taef2_{half}", urls=(f"{_TAESD}/taef2_{half}.pth",), sha256=sha256)
    for half, sha256 in (
        ("encoder", "10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6"),
        ("decoder", "0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5"),
    )
}
TINY = {"taef2": (32, True), "taef1": (16, False), "taesd3": (16, False), "taesdxl": (4, False), "taesd": (4, False)}


class Convolutional(abc.ABC):
    """See `fae_jax.tokenizers.Tokenizer`.

    Args:
      encoder, decoder: the networks, without parameters.
      image_size: side of the images.
      factor: f.
      channels: c.
      patch: p.
      settings: what identifies a latent beside the weights.
      weights: part → what to call its file, and its tensors; none for an outline.

    Raises:
      ValueError: the image is no whole number of tokens, or a file is of another network.
    """

    trained: Mapping[str, Any] = {}
    encodes = ("image_encoder",)
    decodes = ("image_decoder",)

    def __init__(
        self,
        *,
        encoder: Any,
        decoder: Any,
        image_size: int,
        factor: int,
        channels: int,
        patch: int,
        settings: Mapping[str, Any],
        weights: Mapping[str, tuple[str, Tensors]],
    ):
        if image_size % (factor * patch):
            raise ValueError(
                f"field data.image_size={image_size} must be a multiple of {factor * patch}: a token is {patch} × "
                f"{patch} cells of {factor} × {factor} pixels (tokenizer.{self.name}.patch)"
            )
        self.grid = (image_size // factor // patch,) * 2
        self.channels = patch * patch * channels
        self._networks = {"image_encoder": encoder, "image_decoder": decoder}
        self._sides = {"image_encoder": (image_size, 3), "image_decoder": (image_size // factor, channels)}
        self._patch, self._settings, self._weights = patch, dict(settings), weights
        for part, (source, tensors) in weights.items():
            shapes = {name: tuple(leaf.shape) for name, leaf in mapping.flatten(self.shapes(part)).items()}
            mapping.check(source, self.names_of(part, tensors), shapes, tensors)

    name: str

    @abc.abstractmethod
    def names_of(self, part: str, tensors: Tensors) -> NameMap:
        """How a file holds a part."""

    @abc.abstractmethod
    def encode(self, params: Mapping[str, Any], images: Float[Array, "b y x 3"]) -> Posterior: ...

    @abc.abstractmethod
    def decode(self, params: Mapping[str, Any], latents: Float[Array, "b n c"]) -> Float[Array, "b y x 3"]: ...

    def looped(self, dtype: str = "") -> Convolutional:
        """With the decoder in `dtype` where it is given."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        if dtype:
            decoder = self._networks["image_decoder"].clone(dtype=jnp.dtype(dtype))
            made._networks = {**self._networks, "image_decoder": decoder}
        return made

    def load(self, part: str) -> Any:
        source, tensors = self._weights[part]
        return mapping.load(source, self.names_of(part, tensors), tensors, self.shapes(part))

    @functools.cache  # noqa: B019 -- lives as long as the model
    def shapes(self, part: str) -> Any:
        side, channels = self._sides[part]
        given = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
        return jax.eval_shape(self._networks[part].init, jax.random.key(0), given)["params"]

    def identity(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "encoder": self.name,
            "encoder_weights": hash_tree(params["image_encoder"]),
            "encoder_settings": self._settings,
            "compressor": "none",
        }

    def _run(self, params: Mapping[str, Any], part: str, x: Array) -> Array:
        return self._networks[part].apply({"params": params[part]}, x)

    def _tokens(self, cells: Float[Array, "b y x c"]) -> Float[Array, "b n d"]:
        return patchify(cells, self._patch)

    def _cells(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b y x c"]:
        return unpatchify(tokens, self.grid, self._patch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KLSection:
    """An autoencoder of latent diffusion; the defaults are SD-VAE's, 8 × 8 pixels to 4 channels."""

    weights: str = option(
        "",
        f"file, folder or hub name, in the layout of diffusers or of latent-diffusion (VA-VAE); empty = {SD_VAE}",
        path=True,
    )
    revision: str = option("", "commit or tag of a hub name; empty = the newest")
    widths: tuple[Any, ...] = option(
        (128, 256, 512, 512),
        "channels of each level, the grid halved between them (VA-VAE: 128, 128, 256, 256, 512)",
        whole_numbers(1, some=True),
    )
    layers: int = option(2, "residual blocks of a level", at_least(1))
    channels: int = option(4, "channels of a cell of the latent (VA-VAE: 32)", at_least(1))
    groups: int = option(32, "groups of the norms", at_least(1))
    attention: str = option(
        "middle", "none, middle, or coarsest: also in the coarsest level (VA-VAE)", one_of(*kl.ATTENTION)
    )
    quant: bool = option(True, "1×1 convolutions on both sides of the latent")
    patch: int = option(2, "a token is so many cells of the latent each way (VA-VAE: 1)", at_least(1))

    def check(self) -> None:
        for width in self.widths:
            if width % self.groups:
                raise ValueError(f"groups={self.groups} must divide each of widths={self.widths}")


class KLTokenizer(Convolutional):
    """`fae_jax.autoencoder.kl`."""

    Section = KLSection
    name = "autoencoder_kl"

    @classmethod
    def outline(cls, config: Any) -> KLTokenizer:
        """Without weights."""
        return cls._made(config, {})

    @classmethod
    def build(cls, config: Any, facts: None = None) -> KLTokenizer:
        """With the weights of `tokenizer.autoencoder_kl.weights`, opened and compared.

        Raises:
          ValueError, FileNotFoundError, OSError: see `find_files` and `Convolutional`.
        """
        section = config.tokenizer.autoencoder_kl
        entry = Published(repository=SD_VAE, fields={})
        files = find_files(section.weights or None, entry, revision=section.revision or None)
        _same_structure(section, files)
        return cls._made(config, dict.fromkeys(kl.PARTS, (files.source, files.tensors)))

    @classmethod
    def _made(cls, config: Any, weights: Mapping[str, tuple[str, Tensors]]) -> KLTokenizer:
        section = config.tokenizer.autoencoder_kl
        structure = {name: getattr(section, name) for name in ("layers", "channels", "groups", "attention", "quant")}
        structure["widths"] = tuple(section.widths)
        network = {**structure, "dtype": jnp.dtype(config.compute.dtype)}
        return cls(
            encoder=kl.KLEncoder(**network),
            decoder=kl.KLDecoder(**network),
            image_size=config.data.image_size,
            factor=2 ** (len(section.widths) - 1),
            channels=section.channels,
            patch=section.patch,
            settings={
                **structure,
                "widths": list(section.widths),
                "patch": section.patch,
                "dtype": config.compute.dtype,
            },
            weights=weights,
        )

    def names_of(self, part: str, tensors: Tensors) -> NameMap:
        return kl.names_of(part, self.shapes(part), tensors)

    def encode(self, params: Mapping[str, Any], images: Float[Array, "b y x 3"]) -> Posterior:
        mean, log_variance = kl.moments(self._run(params, "image_encoder", images))
        return Posterior(self._tokens(mean), self._tokens(log_variance))

    def decode(self, params: Mapping[str, Any], latents: Float[Array, "b n c"]) -> Float[Array, "b y x 3"]:
        return jnp.clip(self._run(params, "image_decoder", self._cells(latents)), -1, 1)


def _same_structure(section: KLSection, files: Files) -> None:
    """Raises ValueError where the config.json beside the weights describes another network; names what to set."""
    theirs: dict[str, Any] = {}
    for field, name in (
        ("widths", "block_out_channels"),
        ("layers", "layers_per_block"),
        ("channels", "latent_channels"),
        ("groups", "norm_num_groups"),
        ("quant", "use_quant_conv"),
    ):
        if name in files.fields:
            value = files.fields[name]
            theirs[field] = tuple(value) if isinstance(value, list) else value
    blocks = {"DownEncoderBlock2D", "AttnDownEncoderBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D"}
    used = [*files.fields.get("down_block_types", ()), *files.fields.get("up_block_types", ())]
    unknown = sorted({*used} - blocks) or [name for name in [files.fields.get("act_fn", "silu")] if name != "silu"]
    if unknown:
        raise ValueError(f"{files.source} has {', '.join(unknown)}, which the tokenizer autoencoder_kl has not")
    if "mid_block_add_attention" in files.fields or used:
        coarsest = any(name.startswith("Attn") for name in used)
        middle = files.fields.get("mid_block_add_attention", True)
        theirs["attention"] = "coarsest" if coarsest else "middle" if middle else "none"
    wrong = [f"{name}={value}" for name, value in theirs.items() if value != _plain(getattr(section, name))]
    if wrong:
        raise ValueError(f"{files.source} is another network: in tokenizer.autoencoder_kl set {', '.join(wrong)}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinySection:
    """A tiny autoencoder that imitates a large one, 8 × 8 pixels to a cell."""

    variant: str = option(
        "taef2", f"{', '.join(TINY)}: {', '.join(str(c) for c, _ in TINY.values())} channels", one_of(*TINY)
    )
    encoder: str = option(
        "", "safetensors file or folder; empty = what `fae weights pull` brought (taef2)", path=True
    )
    decoder: str = option("", "as encoder", path=True)
    patch: int = option(2, "a token is so many cells of the latent each way", at_least(1))


class TinyTokenizer(Convolutional):
    """`fae_jax.autoencoder.tiny`."""

    Section = TinySection
    name = "taesd"

    @classmethod
    def outline(cls, config: Any) -> TinyTokenizer:
        """Without weights."""
        return cls._made(config, {})

    @classmethod
    def build(cls, config: Any, facts: None = None) -> TinyTokenizer:
        """With the weights of `tokenizer.taesd`, opened and compared.

        Raises:
          ValueError, FileNotFoundError: they are not there, or of another network.
        """
        section, weights = config.tokenizer.taesd, {}
        for half in ("encoder", "decoder"):
            path, known = getattr(section, half), f"{section.variant}_{half}"
            if not path and known not in RELEASES:
                raise FileNotFoundError(
                    f"tokenizer.taesd.{half} is not set: name the folder that `fae weights convert {known}.pth --out "
                    "FOLDER` wrote"
                )
            path = path or str(RELEASES[known].folder(known))
            weights[f"image_{half}"] = (path, open_tensors(path))
        return cls._made(config, weights)

    @classmethod
    def _made(cls, config: Any, weights: Mapping[str, tuple[str, Tensors]]) -> TinyTokenizer:
        section = config.tokenizer.taesd
        channels, pooled = TINY[section.variant]
        network = {"channels": channels, "pooled": pooled, "dtype": jnp.dtype(config.compute.dtype)}
        return cls(
            encoder=tiny.TinyEncoder(**network),
            decoder=tiny.TinyDecoder(**network),
            image_size=config.data.image_size,
            factor=tiny.FACTOR,
            channels=channels,
            patch=section.patch,
            settings={"variant": section.variant, "patch": section.patch, "dtype": config.compute.dtype},
            weights=weights,
        )

    def names_of(self, part: str, tensors: Tensors) -> NameMap:
        return tiny.names_of(self.shapes(part))

    def encode(self, params: Mapping[str, Any], images: Float[Array, "b y x 3"]) -> Posterior:
        return certain(self._tokens(self._run(params, "image_encoder", (images + 1) / 2)))

    def decode(self, params: Mapping[str, Any], latents: Float[Array, "b n c"]) -> Float[Array, "b y x 3"]:
        return jnp.clip(2 * self._run(params, "image_decoder", self._cells(latents)) - 1, -1, 1)
