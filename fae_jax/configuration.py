"""One experiment = one configuration: its fields, how they are overridden, checked and compared.

`default_config` holds every field there is, with what it means. A file in `configs/` starts from it and sets what
is particular to its experiment. On the command line `--config.section.field=value` overrides a field.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fae_jax.files.python_files import find_file, run_file

# Fields that change how a run is carried out, watched and used, never what is trained: they may differ at a restart.
OPERATIONAL = (
    "sampling.",
    "evaluation.",
    "logging.",
    "checkpoint.",
    "watch.",
    "mesh.",
    "compute.kernel",
    "compute.scan",
    "compute.remat",
    "data.tolerate",
    "compute.compilation_cache",
    "data.workers",
    "data.threads",
    "data.ahead",
    "data.in_memory",
    *(f"{stage}.microbatches" for stage in ("encoder_training", "features", "pixels", "finetune", "generator")),
    "cache.path",
)

# DINOv2's learning rates of a linear probe
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


def _training(
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1e-4,
    schedule: str = "cosine",
    warmup: int = 1000,
    weight_decay: float = 0.0,
    ema: tuple[float, ...] = (),
) -> dict[str, Any]:
    """What every training stage has."""
    return {
        "steps": steps,  # optimizer steps
        "batch": batch,  # examples a step, over all devices and hosts
        "microbatches": 1,  # parts a batch is computed in, one after the other, to save memory
        "learning_rate": learning_rate,  # AdamW, at its highest
        "betas": (0.9, 0.999),  # AdamW
        "weight_decay": weight_decay,  # AdamW, on matrices only
        "schedule": schedule,  # of the learning rate after the warm-up: constant or cosine
        "warmup": warmup,  # steps of linear warm-up from 0
        "last_learning_rate": 0.0,  # where the cosine ends
        "clip": 1.0,  # largest global gradient norm; 0 = do not clip
        "ema": ema,  # decays of parameter averages; what comes after uses the slowest
        "max_skipped": 100,  # steps with a non-finite loss or gradient that may be skipped in a row
    }


def default_config() -> ConfigDict:
    """Every field, with the paper's value where it prints one (main experiment: DINOv2-g/14, ImageNet 256)."""
    config = ConfigDict(
        {
            "name": "",  # of the experiment, for people
            "seed": 0,  # everything random derives from (seed, step, example)
            "data": {
                "source": "folder",  # digits, folder, … (fae_jax.data.sources.kinds)
                "path": "",  # where the source's images are
                "image_size": 256,  # side of the square centre crop, pixels
                "mixture": (),  # ((source, path, weight), …) instead of source and path: drawn from by weight
                "crop": "adm_centre",  # of training images: adm_centre or random_resized; the cache's is adm_centre
                "crop_area": (0.08, 1.0),  # random_resized: smallest and largest share of the image's area
                "flip": True,  # mirror half of the images; the latent cache then holds both
                "captions": False,  # the images have captions in place of classes
                "caption_dropout": 0.1,  # share of captions left empty
                "holdout": 0.0,  # share of a source without validation split that is held out
                "heldout_path": "",  # where held-out images are, if they are stored apart; then holdout is 0
                "features": "",  # folder of encoded images, shared by experiments; empty = encode at every step
                "classes": 1000,  # number of classes
                "tolerate": 100,  # images that may be undecodable before a run stops; others take their places
                "workers": 0,  # processes that read and decode
                "threads": 2,  # batches prepared at a time, in each worker
                "ahead": 4,  # batches kept ready, in each worker: the bound on memory
                "in_memory": False,  # decode every image once and keep it
            },
            "encoder": {
                "name": "dinov2_g14",  # a registered encoder (fae_jax.encoders) or an entry point
                "weights": "",  # file, folder or hub name; empty = the encoder's own default
                "train": False,  # train it first, here (quickstart); False = published weights
                "revision": "",  # commit or tag of a hub name; empty = the newest
                "input_size": 0,  # side images are resized to for it; 0 = what fits its patch
                "resize": "",  # how: bicubic, bicubic_antialias, …; empty = the encoder's own
                "interpolation": "",  # of its position table: bicubic, bicubic_offset, bicubic_antialias; empty = own
                "layers": (),  # blocks whose patches make up the feature, −1 the last; () = the last alone
                "combine": "sum",  # of those layers: sum (RAEv2) or mean
                "feature_norm": "none",  # none: raw features; standardise: per-channel mean 0, variance 1
                "patch": 14,  # side of a patch at the encoder's input; this and below are used if trained here
                "width": 384,  # channels
                "depth": 12,  # blocks
                "heads": 6,  # attention heads
                "hidden": 1536,  # inner width of the feed-forward
            },
            "compressor": {
                "kind": "attention",  # attention (one layer, the paper's), linear, transformer or identity
                "latent_width": 32,  # channels of the latent (identity: the encoder's)
                "posterior": {
                    "kind": "gaussian",  # gaussian, fixed_variance (for flows), rms (GAE) or sphere (PAE)
                    "sigma": 0.3,  # fixed_variance: standard deviation of the latent's noise
                    "log_variance_range": (-30.0, 20.0),  # gaussian: its log-variance is clipped to it
                },
                "attention": {
                    "heads": 24,  # attention heads
                    "head_width": 256,  # channels per head
                    "activation": "silu",  # after skip + attention: silu, gelu, none
                },
                "transformer": {
                    "depth": 6,  # blocks
                    "width": 0,  # channels of the blocks; 0 = the encoder's
                    "heads": 24,  # attention heads
                    "hidden": 4096,  # inner width of the SwiGLU
                },
            },
            "feature_decoder": {
                "kind": "transformer",  # transformer, or identity: goes with an identity compressor alone
                "transformer": {
                    "depth": 6,  # blocks
                    "width": 0,  # channels of the blocks; 0 = the encoder's, without an output linear
                    "heads": 24,  # attention heads
                    "hidden": 4096,  # inner width of the SwiGLU
                    "last_norm": True,  # end with an RMSNorm: goes with feature_norm=none, and only with it
                },
            },
            "pixel_decoder": {
                "width": 1024,  # channels
                "depth": 24,  # blocks
                "heads": 16,  # attention heads
                "hidden": 2736,  # inner width of the SwiGLU
            },
            "tokenizer": {
                "kind": "fae",  # image ↔ latent: fae
            },
            "condition": {
                "kind": "class",  # what a generator is told: none or class
                "dropout": 0.1,  # share of examples trained without it
            },
            "encoder_training": {
                **_training(steps=0, batch=256, learning_rate=1e-3, weight_decay=0.05),
                "mask": 0.4,  # share of patches hidden from the encoder
                "reconstruction_weight": 1.0,  # of the patches' pixel error beside the class loss
                "label_smoothing": 0.1,  # of the class loss
                "shift": 0,  # random translation, pixels
            },
            "features": {
                **_training(steps=1_000_000, batch=1024),
                "reduction": "mean",  # of error and KL: mean per element, or sum over those of an image (as printed)
                "beta": 5e-4,  # weight of the KL divergence, of posteriors that have one
                "feature_noise": 0.0,  # standard deviation of noise on the features the compressor sees
                "latent_noise": 0.0,  # spread of a noise level drawn for each image and added to its latent (GAE)
                "structure_weight": 0.0,  # of the Gram matrices' difference (PAE; losses/shaping.py, equation 1)
                "continuity_weight": 0.0,  # of the change under growing perturbations (PAE, equation 2)
                "continuity_reach": 0.3,  # standard deviation of the largest perturbation
                "continuity_levels": 3,  # perturbations; each is one more pass of the feature decoder
                "semantics_weight": 0.0,  # of what a linear layer cannot read off the latent (PAE, equation 3)
            },
            "pixels": {
                **_training(steps=1_000_000, batch=512, weight_decay=1e-4, ema=(0.999,)),
                "noise": 0.4,  # standard deviation of the noise added to the features (paper, for DINOv2)
                "noise_relative": False,  # noise is in units of the features' root mean square, not absolute
                "losses": (("l2", 1.0),),  # (term, weight) or (term, weight, first step): l1, l2
            },
            "finetune": {
                **_training(steps=100_000, batch=512, ema=(0.999,)),
                "losses": (("l2", 1.0),),  # as in pixels
            },
            "cache": {
                "batch": 1024,  # images encoded at once, over all devices
                "shard_size": 10_000,  # images per file
                "path": "",  # folder of latent caches, in a bucket only to read one; empty = latents/ in the workdir
            },
            "generator": {
                **_training(steps=2_000_000, batch=512, schedule="constant", warmup=0, ema=(0.9999,)),
                "kind": "flow_matching",  # flow_matching
                "flow_matching": {
                    "train_shift": 0.4,  # timestep shift in training; 1 = none, smaller = noisier
                    "network": "dit",  # dit
                    "dit": {
                        "width": 1152,  # channels
                        "depth": 28,  # blocks
                        "heads": 16,  # attention heads
                        "hidden": 3072,  # inner width of the feed-forward
                        "norm": "rms",  # rms (LightningDiT) or layer (SiT)
                        "feed_forward": "swiglu",  # swiglu (LightningDiT) or gelu_tanh (SiT)
                        "rotary": True,  # rotary positions (LightningDiT) beside the fixed table
                        "qk_norm": False,  # normalise queries and keys
                        "time_scale": 1.0,  # factor of times before they are embedded (LightningDiT, SiT: 1)
                    },
                },
            },
            "sampling": {
                "sampler": "euler",  # euler, heun (ODE) or euler_maruyama (SDE)
                "steps": 250,  # of the sampler
                "shift": 0.4,  # timestep shift of the sampling grid
                "last_step": 0.04,  # length of the SDE's last, deterministic step
                "guidance": ((0.9, 1.0, 0.9), (0.7, 0.9, 1.0), (0.0, 0.7, 2.5)),  # (from, to, weight) over time
                "batch": 256,  # images sampled at once
            },
            "evaluation": {
                "samples": 50_000,  # images per score
                "seed": 0,  # of the samples
                "probe": {
                    "linear": "sgd",  # sgd: DINOv2's protocol; logistic: regression, for thousands of images
                    "latent_pooling": "mean",  # of z's tokens: mean, or flat (one after the other)
                    "blocks": (1, 4),  # class tokens of the last so many blocks, where the encoder has one
                    "learning_rates": RATES,  # tried at once; the best on the held-out images counts
                    "steps": 12_500,  # of SGD
                    "batch": 1024,  # of SGD; each learning rate is multiplied by batch/256
                    "neighbours": (10, 20),  # voters of the nearest-neighbour rule
                    "temperature": 0.07,  # of their votes
                    "head_classes": (),  # classes of the encoder's own head that the data's classes are, in order
                    "limit": 0,  # images of a split at most, the first ones; 0 = all
                },
                "text": {
                    "tower": "",  # text tower that images are compared with; empty = the encoder's own
                    "weights": "",  # its file, folder or hub name; empty = the encoder's
                },
                "retrieval": {
                    "source": "",  # a kind with captions: coco, tar, …; empty = the held-out images
                    "path": "",  # where it is: of coco, the JSON file of captions
                    "images": "",  # of coco, the folder of images; empty = looked for near the JSON file
                    "limit": 0,  # images at most, the first ones; 0 = all
                },
                "zero_shot": {
                    "templates": ("a photo of a {}.",),  # said of a class, {} its name; their mean counts
                    "names": "",  # JSON file of class names, a list or {class: name}; empty = the source's own
                    "limit": 0,  # images at most, the first ones; 0 = all
                },
                "semantics": {
                    "images": 8,  # held-out images shown, spread evenly over the split
                    "patches": 16,  # foreground patches of an image that are looked for in the next one
                },
            },
            "compute": {
                "dtype": "bfloat16",  # of matrix products; parameters, norms, softmax and losses are float32
                "residual": "float32",  # of the stream that blocks add to: float32, or bfloat16 for half the memory
                "kernel": "auto",  # of attention: auto, xla, cpu, cudnn (NVIDIA), splash (TPU)
                "scan": True,  # compile one block and loop (fast to compile); False unrolls (fast on a CPU)
                "compilation_cache": "auto",  # of programs: a folder, off, or auto (the user's on accelerators)
                "remat": "none",  # what the backward pass keeps: none (= all), dots, branches, qkv, attention, full
            },
            "mesh": {
                "replica": 1,  # copies of the state, across slices
                "fsdp": -1,  # devices the state is sharded over; −1 = all that are left
                "tensor": 1,  # devices one matrix product is split over
            },
            "logging": {
                "every": 100,  # steps between lines of metrics
                "preview_every": 10_000,  # steps between preview images; 0 = only at the end
                "tensorboard": True,  # write event files beside metrics.jsonl
                "wandb": "",  # project at Weights & Biases to show the run in; empty = none
                "profile": (),  # steps (first, last) to trace into profile/; empty = none
            },
            "checkpoint": {
                "every": 5_000,  # steps between checkpoints; one is written at the end in any case
                "keep": 2,  # newest checkpoints kept
                "keep_at": (),  # steps whose checkpoints are kept for good
                "pause_at": 0,  # step after which a stage stops, saved, as a signal would stop it; 0 = none
            },
            "watch": {
                "data": 600.0,  # seconds to wait for a batch before the run ends, saying so; 0 = for ever
                "step": 3600.0,  # the same for a step (the first with its compilation), a checkpoint or a preview
                "hosts": 30.0,  # seconds without a word from a host after which the run ends on all hosts
            },
        }
    )
    return config.lock()


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"section.field": value}, sequences as tuples."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = _frozen(value)
    return flat


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def load_config(path: str) -> ConfigDict:
    """Runs `get_config()` of a Python file; a bare name means the file of that name in `configs/`.

    Raises:
      FileNotFoundError: there is no such file; those that ship are named.
      ValueError: the file does not define a valid configuration.
    """

    def read(module: Any) -> ConfigDict:
        config = module.get_config()
        flatten(config)
        return config

    file = find_file(path, shipped_configs(), "configuration")
    config = run_file(file, "configuration", read)
    reference = flatten(default_config())
    for name in flatten(config):
        if name not in reference:
            raise ValueError(f"configuration {file}: {_unknown(name, reference)}")
    return config


def shipped_configs() -> Path:
    """The folder of configurations: beside the package in a checkout, inside it when installed."""
    beside = Path(__file__).parents[1] / "configs"
    return beside if beside.is_dir() else Path(__file__).parent / "configs"


def override(config: ConfigDict, overrides: Iterable[tuple[str, str]]) -> ConfigDict:
    """A copy of `config` with (dotted name, text) pairs applied.

    Raises:
      ValueError: a field is unknown (the nearest is named) or the text is not of its type.
    """
    result = ConfigDict(config).copy_and_resolve_references()
    known = flatten(result)
    with result.unlocked():
        for name, text in overrides:
            if name not in known:
                raise ValueError(_unknown(name, known))
            result.update_from_flattened_dict({name: parse_value(name, text, known[name])})
    return result


def with_values(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A copy of `config` with {dotted name: value} applied; values are of the fields' own types.

    Whole numbers stand for floats, lists for tuples, and NumPy's numbers for Python's.

    Raises:
      ValueError: a field is unknown (the nearest is named) or a value is not of its type.
    """
    result = ConfigDict(config).copy_and_resolve_references()
    known = flatten(result)
    with result.unlocked():
        for name, given in values.items():
            if name not in known:
                raise ValueError(_unknown(name, known))
            value, kind = _frozen(given.item() if hasattr(given, "item") else given), type(known[name])
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind:
                raise ValueError(f"field {name} is of type {kind.__name__} (now {known[name]!r}), got {given!r}")
            result.update_from_flattened_dict({name: value})
    return result


def parse_value(name: str, text: str, current: Any) -> Any:
    """Reads `text` as a value of the type of `current`.

    Raises:
      ValueError: it is not one.
    """
    kind = type(current)
    problem = ValueError(f"field {name} is of type {kind.__name__} (now {current!r}), got {text!r}")
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise problem
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError):
        raise problem from None
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and isinstance(value, list | int | float):
        value = tuple(value) if isinstance(value, list) else (value,)
    if type(value) is not kind:
        raise problem
    return _frozen(value)


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    leaf = [k for k in known if k.split(".")[-1] == name.split(".")[-1]]
    nearest = near or leaf[:1] or [k for k in known if k.startswith(name.split(".")[0])][:1]
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"field {name} does not exist{hint}"


def to_json(config: ConfigDict) -> str:
    """The configuration as indented JSON, keys in their order."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Inverse of `to_json`.

    Raises:
      ValueError: not JSON, or a field this version does not know or of another type.
    """
    config = default_config()
    known = flatten(config)
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not fields")
    for name, value in flatten(content).items():
        if name not in known:
            raise ValueError(_unknown(name, known))
        if type(value) is int and type(known[name]) is float:
            value = float(value)
        if type(value) is not type(known[name]):
            raise ValueError(f"field {name} is of type {type(known[name]).__name__}, got {value!r}")
        with config.unlocked():
            config.update_from_flattened_dict({name: value})
    return config


def differences(ours: ConfigDict, theirs: ConfigDict) -> list[str]:
    """Fields that decide the result and differ, each as `name: theirs → ours`."""
    mine, other = flatten(ours), flatten(theirs)
    return [
        f"{name}: {other.get(name)!r} → {mine.get(name)!r}"
        for name in {**other, **mine}
        if mine.get(name) != other.get(name) and not name.startswith(OPERATIONAL)
    ]
