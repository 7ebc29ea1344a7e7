"""A trained model as a folder that stands on its own: configuration, facts, weights, and a card.

    bundle.json                 configuration, facts of the encoder, statistics of the latents, provenance, and the
                                SHA-256 of every other file
    PART.safetensors            the parameters of a part: compressor, feature_decoder, pixel_decoder, generator; all
                                parts of a tokenizer that no stage trains
    encoder/                    the encoder, where it was trained for this model; a published one is named by its
                                hash, and so is a text tower
    README.md                   the model card

No images, no latents, no optimizer. `fae_jax.load` opens it; the hub holds it as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import jax

from fae_jax import __version__
from fae_jax.conditions import make_condition, reads_text
from fae_jax.config import check, from_json, to_json
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.encoders.frozen import with_trained
from fae_jax.files.moving import new_folder
from fae_jax.files.paths import Path, as_path
from fae_jax.files.storage import local_copy, sha256
from fae_jax.files.writing import write_atomically, write_json
from fae_jax.parallel.hosts import fetch
from fae_jax.parallel.mesh import make_mesh
from fae_jax.parallel.rules import shardings
from fae_jax.parts import Parts, generator_of
from fae_jax.tokenizers import tokenizer_kind
from fae_jax.tokenizers.fae import Facts
from fae_jax.weights import load_tree, save_tree

FILE, FORMAT = "bundle.json", 1
FILES = (FILE, "*.safetensors", "encoder/*")  # what the hub is asked for


def write_bundle(
    parts: Parts, folder: Path, *, ema: str | None = "", provenance: Mapping[str, Any] | None = None
) -> Path:
    """Writes a model's parts, one after the other; `folder`, which is returned, is there whole or not at all.

    Args:
      parts: what is there; a model without generator is written without one.
      ema: of the generator, see `Parts.params`.
      provenance: plain JSON values that say what it was made of, and its scores.

    Raises:
      ValueError: the folder is not empty, or a part is not trained yet.
    """
    names, config = trained_parts(parts), parts.config
    with new_folder(folder, last=FILE) as into:
        for part in names:
            save_tree(into / f"{part}.safetensors", fetch(parts.params(part, ema if part == "generator" else "")))
        if config.encoder.train and "encoder" in parts.tokenizer.encodes:
            for name in _ENCODER_FILES:
                write_atomically(into / "encoder" / name, (as_path(config.encoder.weights) / name).read_bytes())
        content = described(parts, ema, provenance)
        write_atomically(into / "README.md", _card(content, names))
        files = {str(path.relative_to(into)): sha256(path) for path in sorted(into.rglob("*")) if path.is_file()}
        write_json(into / FILE, {**content, "files": files})
    return folder


def trained_parts(parts: Parts) -> list[str]:
    """Names of what is written: the tokenizer's parts, and "generator" where there is one."""
    tokenizer = parts.tokenizer
    names = [part for part in dict.fromkeys((*tokenizer.encodes, *tokenizer.decodes)) if _is_written(tokenizer, part)]
    return [*names, "generator"] if parts.has_generator else names


def _is_written(tokenizer: Any, part: str) -> bool:
    """What stages trained is; an encoder that they worked with is named by its hash, which their facts hold."""
    return part in tokenizer.trained or not tokenizer.trained


def described(parts: Parts, ema: str | None, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `bundle.json` holds of a model, as plain JSON values; its parameters have been read."""
    facts = getattr(parts.tokenizer, "facts", None)
    latents = None
    if parts.has_generator:
        latents = {"statistics": parts.statistics.to_json(), "classes": list(parts.classes)}
    return {
        "format": FORMAT,
        "version": __version__,
        "config": json.loads(to_json(with_trained(parts.config, ""))),
        "facts": facts and json.loads(json.dumps(dataclasses.asdict(facts))),
        "latents": latents,
        "generator": parts.read_generator.get(ema, {}),
        "text": make_condition(parts.config).identity if parts.has_generator and reads_text(parts.config) else None,
        "provenance": dict(provenance or {}),
    }


_ENCODER_FILES = ("config.json", "model.safetensors")


def _made_with(config: Mapping[str, Any]) -> str:
    kind = config["tokenizer"]["kind"]
    return f"Encoder `{config['encoder']['name']}`" if kind == "fae" else f"Tokenizer `{kind}`"


def _card(content: Mapping[str, Any], names: list[str]) -> str:
    config = content["config"]
    kept = ", ".join(f"{name} {value}" for name, value in content["generator"].items()) or "none"
    made_of = "\n".join(f"- {name}: `{value}`" for name, value in content["provenance"].items())
    return f"""---
library_name: fae_jax
---
# {config["name"] or "FAE"}

A Feature Auto-Encoder (arXiv 2512.07829) written by fae_jax {content["version"]}.

{_made_with(config)}, {config["data"]["image_size"]} pixels; parts: {", ".join(names)}; generator:
{kept}.

```python
import fae_jax

fae = fae_jax.load("this folder")
```

{made_of}
"""


class Bundle(Parts):
    """See `fae_jax.parts.Parts`. Files are compared with their hashes when they are first read.

    Args:
      folder: what `write_bundle` wrote, here or in a bucket, of which only the files that are used are fetched.

    Raises:
      FileNotFoundError: it is no bundle.
      ValueError: `bundle.json` is damaged, or another version's.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        file = folder / FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} is not a bundle: it has no {FILE}; `fae export --format bundle` makes one"
            )
        try:
            self._content = json.loads(file.read_text())
            if self._content["format"] != FORMAT:
                raise ValueError(f"it is of format {self._content['format']}, and this version reads {FORMAT}")
            config = from_json(json.dumps(self._content["config"]))
            _ = self._content["files"], self._content["facts"], self._content["latents"]
        except (ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{file} cannot be read ({reason}): export the model again") from error
        self.config = with_trained(check(config), str(folder / "encoder"))
        self.mesh = make_mesh()

    def _checked(self, name: str) -> str:
        """The path on this machine of a file whose hash is the recorded one."""
        path = self.folder / name
        recorded = self._content["files"].get(name)
        if recorded is None or not path.is_file():
            known = ", ".join(self._content["files"])
            raise ValueError(f"the bundle {self.folder} has no {name}; it holds {known}")
        here = local_copy(str(path))
        if sha256(here) != recorded:
            raise ValueError(f"{path} is not the file that was exported (its hash differs): export the model again")
        return here

    def _tower(self) -> Any:
        params, recorded = self.text(), self._content.get("text")
        here = make_condition(self.config).identity
        if here != recorded:
            raise ValueError(
                f"the bundle {self.folder} was trained with the text tower {recorded}, and this is {here}"
            )
        return params

    @functools.cached_property
    def tokenizer(self) -> Any:
        kind = tokenizer_kind(self.config)
        facts = self._content["facts"]
        if self.config.encoder.train and facts:
            for name in _ENCODER_FILES:
                self._checked(f"encoder/{name}")
        return kind.build(self.config, Facts.from_json(facts)) if facts else kind.outline(self.config)

    @property
    def _latents(self) -> Mapping[str, Any]:
        if not self.has_generator:
            raise ValueError(f"the bundle {self.folder} has no generator: it encodes and decodes alone")
        return self._content["latents"]

    @property
    def has_generator(self) -> bool:
        return self._content["latents"] is not None

    @property
    def statistics(self) -> LatentStatistics:
        return LatentStatistics.from_json(self._latents["statistics"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._latents["classes"])

    def params(self, part: str, ema: str | None = "") -> Any:
        if part == "generator":
            held = self._content.get("generator", {})
            if ema != "":
                raise ValueError(f"a bundle holds one set of the generator's weights ({held}), not {ema}")
            _ = self._latents
            self.read_generator[ema] = held
            like = jax.eval_shape(generator_of(self).init, jax.random.key(0))
        elif part == "text":
            return self._tower()
        elif _is_written(self.tokenizer, part):
            like = self.tokenizer.shapes(part)
        else:
            params = self.tokenizer.load(part)
            return jax.device_put(params, shardings(params, self.mesh))
        params = load_tree(self._checked(f"{part}.safetensors"), like)
        return jax.device_put(params, shardings(params, self.mesh))
