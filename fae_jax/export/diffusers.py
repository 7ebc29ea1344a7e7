"""A trained model as a folder that `diffusers` loads, with the PyTorch code that computes it.

    model_index.json                         the pipeline's class and its two components
    pipeline.py                              class labels → images
    vae/, transformer/                       config.json, weights, and modeling_fae.py

None of diffusers' own classes computes an FAE (0.42). `AutoencoderRAE` decodes an encoder's features, not latents of
them; its decoder has a GELU feed-forward, a fixed position table and a class token where ours has SwiGLU, a learned
table and none. `DiTTransformer2DModel` has LayerNorm, GELU and a time embedding in each block; no RMSNorm, rotary
positions or SwiGLU. So the code travels along: docs/pytorch, which this package neither imports nor needs.
"""

from __future__ import annotations

import operator
import shutil
from collections.abc import Mapping
from pathlib import Path as LocalPath
from typing import Any

from fae_jax.autoencoder.decoders import PixelDecoderSection
from fae_jax.autoencoder.released import OPTIONS
from fae_jax.bundle import described, trained_parts
from fae_jax.files.moving import new_folder
from fae_jax.files.paths import Path
from fae_jax.files.storage import sha256
from fae_jax.files.writing import write_atomically, write_json
from fae_jax.parallel.hosts import fetch
from fae_jax.parts import Parts
from fae_jax.weights import flatten, write_tensors

COMPONENTS = {"vae": "FAEAutoencoder", "transformer": "FAETransformer"}
WRITTEN_FOR = "0.42.1"  # the version of diffusers that this was tried with
PLAIN: dict[
    str, dict[str, Any]
] = {  # fields that the PyTorch code does not know, and their values without which it computes something else
    "generator.flow_matching": {"prediction": "velocity"},
    "generator.flow_matching.dit": {"patch": 1, "middle": 0, "head_width": 0},
    "sampling": {"shift_base": 0, "last": "mean", "last_step_before_shift": False, "guided_channels": 0, "guide": ""},
}
READ = {
    "tokenizer": ("fae",),
    "compressor": ("attention", "linear", "identity"),
    "feature_decoder": ("transformer", "identity"),
}


def pytorch_files() -> LocalPath:
    """The folder of the PyTorch code: beside the package in a checkout, inside it when installed."""
    beside = LocalPath(__file__).parents[2] / "docs" / "pytorch"
    return beside if beside.is_dir() else LocalPath(__file__).parents[1] / "pytorch"


def write_diffusers(
    parts: Parts, folder: Path, *, ema: str | None = "", provenance: Mapping[str, Any] | None = None
) -> Path:
    """See the module; `folder`, which is returned, is there whole or not at all.

    Args:
      parts, ema, provenance: see `fae_jax.bundle.write_bundle`.

    Raises:
      ValueError: the folder is not empty, a part is not trained yet, there is no generator, or the PyTorch code does
        not know a kind that the model has.
    """
    config = parts.config
    for name, kinds in READ.items():
        kind = getattr(config, name).kind
        if kind not in kinds:
            raise ValueError(f"the format diffusers does not know the {name} {kind!r}: use bundle or stablehlo")
    unread = {name for name in OPTIONS if getattr(config.pixel_decoder, name) != getattr(PixelDecoderSection, name)}
    if unread:
        raise ValueError(
            f"the format diffusers knows the defaults of pixel_decoder.{', '.join(sorted(unread))} alone: use bundle "
            "or stablehlo"
        )
    if config.generator.kind != "flow_matching" or config.generator.flow_matching.network != "dit":
        raise ValueError("the format diffusers knows the network dit of flow_matching alone: use bundle or stablehlo")
    for section, fields in PLAIN.items():
        for name, value in fields.items():
            given = getattr(operator.attrgetter(section)(config), name)
            if given != value:
                raise ValueError(
                    f"the format diffusers does not know {section}.{name}={given!r}: use bundle or stablehlo"
                )
    sampler, guidance = config.sampling.sampler, config.sampling.guidance
    if sampler in ("adams_bashforth", "dopri5") or any(len(each) > 3 for each in guidance):
        raise ValueError(
            "the format diffusers knows euler, heun and euler_maruyama, and classifier-free guidance: set "
            "sampling.sampler and sampling.guidance, or use bundle or stablehlo"
        )
    if not parts.has_generator:
        raise ValueError("the format diffusers needs a generator: run `fae train generator`, or use bundle")
    names = {"vae": [part for part in trained_parts(parts) if part != "generator"], "transformer": ["generator"]}
    if config.encoder.train:
        names["vae"].insert(0, "encoder")
    code = pytorch_files()
    models = (code / "modeling_fae.py").read_text().replace("from read_bundle import FAE\n", "")
    modeling = (code / "read_bundle.py").read_text() + "\n\n" + models  # diffusers fetches one file of a component
    with new_folder(folder, last="model_index.json") as into:
        for component, kind in COMPONENTS.items():
            trees = {part: fetch(parts.params(part, ema if part == "generator" else "")) for part in names[component]}
            tensors = flatten(trees)
            content = described(parts, ema, provenance)
            shapes = {name: list(leaf.shape) for name, leaf in tensors.items()}
            about = {"_class_name": kind, "_diffusers_version": WRITTEN_FOR, "content": content, "shapes": shapes}
            write_tensors(into / component / "diffusion_pytorch_model.safetensors", tensors)
            write_json(into / component / "config.json", about)
            write_atomically(into / component / "modeling_fae.py", modeling)
        shutil.copyfile(code / "pipeline.py", into / "pipeline.py")
        write_atomically(into / "README.md", _card(config, provenance))
        index = {component: ["modeling_fae", kind] for component, kind in COMPONENTS.items()}
        files = {str(path.relative_to(into)): sha256(path) for path in sorted(into.rglob("*")) if path.is_file()}
        write_json(into / "files.json", files)
        about = {"_class_name": ["pipeline", "FAEPipeline"], "_diffusers_version": WRITTEN_FOR, **index}
        write_json(into / "model_index.json", about)
    return folder


def _card(config: Any, provenance: Mapping[str, Any] | None) -> str:
    made_of = "\n".join(f"- {name}: `{value}`" for name, value in (provenance or {}).items())
    return f"""---
library_name: diffusers
---
# {config.name or "FAE"}

A Feature Auto-Encoder (arXiv 2512.07829), written by fae_jax. Its code is in this folder: read it before trusting it.

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("this folder", trust_remote_code=True)
images = pipe(class_labels=[0, 1], seed=0).images
```

{made_of}
"""
