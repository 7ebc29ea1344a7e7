"""Seconds of a training step of every stage, of sampling and of decoding, beside PyTorch in the same run.

    python benchmarks/training.py                                             # sizes for two cores
    python benchmarks/training.py --size paper --batch 256 --torch compile    # on a GPU, bf16 in both

Stages run on features and latents that are there already: the frozen encoder has a benchmark of its own (encoder.py).
Both sides do the same work (AdamW, clipping, no average; the parameter counts of both are printed) on random numbers,
warm up, then take turns; the best and the median of the turns are shown. `diffusers`' DiT has LayerNorm, a tanh-GELU
feed-forward and no rotary positions, so `generator` and `sampling` compare ours switched to that structure, and
`lightning` shows the paper's. `titok` is a step of the pixel decoder and of a PatchGAN, with LPIPS (random weights)
and LeCam beside the squared difference, without the logits of ConvNeXt.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from machine import describe

from fae_jax.conditions import make_condition
from fae_jax.config import check, default_config
from fae_jax.diffusion.guidance import guided
from fae_jax.diffusion.path import training_pair
from fae_jax.diffusion.samplers import make_sampler, sample, sample_keys
from fae_jax.generators import make_generator
from fae_jax.losses.pixel import pixel_loss, pixel_terms
from fae_jax.model import guidance_schedule
from fae_jax.nn.params import init_params
from fae_jax.parallel.mesh import make_mesh
from fae_jax.parallel.xla_flags import keep_freed_memory, set_flags
from fae_jax.stages.features import features_loss
from fae_jax.stages.pixels import networks, players
from fae_jax.tokenizers.fae import Facts, FAETokenizer
from fae_jax.training.optimizer import make_optimizer
from fae_jax.training.state import Player, create_state
from fae_jax.training.step import compile_step

GUIDANCE = 2.5
STAGES = ("features", "pixels", "titok", "generator", "lightning", "decoding", "sampling")
TITOK = (("l2", 0.25), ("lpips", 1.0), ("gan", 0.1))


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths, depths and batch of a comparison; tokens are 16×16, latents 32 wide."""

    features: int
    compressor: tuple[int, int]  # heads, channels per head
    feature_decoder: tuple[int, int, int]  # depth, heads, hidden
    pixel_decoder: tuple[int, int, int, int]  # width, depth, heads, hidden
    dit: tuple[int, int, int, int]  # width, depth, heads, hidden of the paper's SwiGLU
    batch: int
    sampling_steps: int
    discriminator: int  # channels of its first stage


SIZES = {
    "laptop": Size(384, (6, 256), (6, 6, 1024), (384, 6, 6, 1024), (512, 8, 8, 1365), 8, 5, 32),
    "paper": Size(1536, (24, 256), (6, 24, 4096), (1024, 24, 16, 2736), (1152, 28, 16, 3072), 64, 50, 128),
}


def configure(size: Size, batch: int) -> Any:
    """The configuration of a size; bfloat16 and scanned blocks where there is an accelerator."""
    config = default_config()
    accelerator = jax.default_backend() != "cpu"
    with config.unlocked():
        config.update_from_flattened_dict(
            {
                "compressor.attention.heads": size.compressor[0],
                "compressor.attention.head_width": size.compressor[1],
                **{
                    f"feature_decoder.transformer.{name}": value
                    for name, value in zip(("depth", "heads", "hidden"), size.feature_decoder, strict=True)
                },
                **{
                    f"pixel_decoder.{name}": value
                    for name, value in zip(("width", "depth", "heads", "hidden"), size.pixel_decoder, strict=True)
                },
                **{
                    f"generator.flow_matching.dit.{name}": value
                    for name, value in zip(("width", "depth", "heads", "hidden"), size.dit, strict=True)
                },
                "pixel_losses.gan.channels": size.discriminator,
                "pixel_losses.gan.lecam": 1e-3,
                "compute.dtype": "bfloat16" if accelerator else "float32",
                "compute.scan": accelerator,
            }
        )
    for stage in ("features", "pixels", "generator"):
        config[stage].batch, config[stage].ema = batch, ()
        config[stage].weight_decay = 0.0
    return config


def as_diffusers(config: Any) -> Any:
    """The configuration with `diffusers`' DiT: see the module."""
    dit = config.generator.flow_matching.dit
    dit.update({"norm": "layer", "feed_forward": "gelu_tanh", "rotary": False, "hidden": 4 * dit.width})
    return config


class Ours:
    """Compiled programs of this project, as functions to time, on one batch of random numbers."""

    def __init__(self, config: Any, size: Size, batch: int):
        self.config, self.batch, self.mesh = config, batch, make_mesh()
        checked, zeros, ones = check(config), (0.0,) * size.features, (1.0,) * size.features
        facts = {"encoder": "", "weights": "", "settings": {}, "grid": (16, 16), "width": size.features, "tokens": 1}
        self.tokenizer = FAETokenizer.build(checked, Facts(**facts, mean=zeros, std=ones))
        condition = make_condition(checked)
        self.dit = make_generator(checked, grid=(16, 16), channels=32, condition=condition).network
        keys = jax.random.split(jax.random.key(0), 4)
        self.features = jax.random.normal(keys[0], (batch, 256, size.features))
        self.latents = jax.random.normal(keys[1], (batch, 256, 32))
        self.pixels = jax.random.uniform(keys[2], (batch, 256, 256, 3), minval=-1, maxval=1)
        self.labels = jnp.arange(batch, dtype=jnp.int32) % 1000

    def _train(self, init: Callable[..., Any], loss: Callable[..., Any], section: Any, batch: Any) -> tuple[Any, int]:
        return self._play({"one": Player(init=init, loss=loss, optimizer=make_optimizer(section))}, {}, batch)

    def _play(self, players: dict[str, Player], frozen: Any, batch: Any) -> tuple[Any, int]:
        state = create_state(players, 0, self.mesh)
        count = sum(leaf.size for own in state.players.values() for leaf in jax.tree.leaves(own.params))
        step = compile_step(players, 1, 0, self.mesh)

        def run() -> None:
            nonlocal state
            state, metrics = step(state, frozen, batch)
            jax.block_until_ready(metrics)

        return run, count

    def features_step(self) -> tuple[Any, int]:
        tokenizer, section = self.tokenizer, self.config.features

        def init(key: Array) -> Any:
            return {
                "compressor": init_params(tokenizer.compressor, key, self.features[:1]),
                "feature_decoder": init_params(tokenizer.feature_decoder, key, self.latents[:1]),
            }

        def loss(params: Any, frozen: Any, batch: Any, keys: Array, step: Array) -> Any:
            return features_loss(tokenizer, section, params, frozen, batch, keys, step)

        return self._train(init, loss, section, {"features": self.features})

    def pixels_step(self) -> tuple[Any, int]:
        decoder, section = self.tokenizer.pixel_decoder, self.config.pixels
        terms = pixel_terms((("l2", 1.0),))

        def loss(params: Any, frozen: Any, batch: Any, keys: Array, step: Array) -> Any:
            noise = jax.vmap(lambda key: jax.random.normal(key, batch["features"].shape[1:]))(keys)
            decoded = decoder.apply({"params": params}, batch["features"] + section.noise * noise)
            return pixel_loss(terms, decoded, batch["image"], step)[:2]

        batch = {"features": self.features, "image": self.pixels}
        return self._train(lambda key: init_params(decoder, key, self.features[:1]), loss, section, batch)

    def titok_step(self) -> tuple[Any, int]:
        with self.config.unlocked():
            self.config.pixels.losses = TITOK
        parts: Any = types.SimpleNamespace(tokenizer=self.tokenizer, config=check(self.config))
        shapes = {name: network.shapes for name, (network, _) in networks("pixels", parts.config).items()}
        frozen = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(0), leaf.shape) * 0.02, shapes)
        batch = {"features": self.features, "image": ((self.pixels + 1) * 127.5).astype(jnp.uint8)}
        return self._play(players("pixels", parts), frozen, batch)

    def _dit(self, key: Array) -> Any:
        return init_params(self.dit, key, self.latents[:1], jnp.zeros(1), self.labels[:1])

    def generator_step(self) -> tuple[Any, int]:
        def loss(params: Any, frozen: Any, batch: Any, keys: Array, step: Array) -> Any:
            pair = training_pair(keys, batch["latents"], 1.0)
            velocity = self.dit.apply({"params": params}, pair.noisy, pair.time, batch["label"])
            return jnp.mean((velocity - pair.velocity) ** 2), {}

        batch = {"latents": self.latents, "label": self.labels}
        return self._train(self._dit, loss, self.config.generator, batch)

    def decoding(self) -> tuple[Any, int]:
        feature_decoder, pixel_decoder = self.tokenizer.feature_decoder, self.tokenizer.pixel_decoder
        params = (
            init_params(feature_decoder, jax.random.key(0), self.latents[:1]),
            init_params(pixel_decoder, jax.random.key(1), self.features[:1]),
        )

        @jax.jit
        def decode(params: Any, latents: Array) -> Array:
            features = feature_decoder.apply({"params": params[0]}, latents)
            return pixel_decoder.apply({"params": params[1]}, features)

        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        return lambda: jax.block_until_ready(decode(params, self.latents)), count

    def sampling(self, steps: int) -> tuple[Any, int]:
        params = self._dit(jax.random.key(0))
        sampler = make_sampler("euler", steps=steps, shift=1.0, last_step=0.04)
        schedule = guidance_schedule(GUIDANCE, ())

        @jax.jit
        def run(params: Any, keys: Array, labels: Array) -> Array:
            velocity = guided(lambda z, t, label: self.dit.apply({"params": params}, z, t, label), schedule, 1000)
            return sample(sampler, lambda z, t: velocity(z, t, labels), keys, (256, 32))

        keys = sample_keys(0, jnp.arange(self.batch))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        return lambda: jax.block_until_ready(run(params, keys, self.labels)), count


class Theirs:
    """The same in PyTorch; see `torch_peers`."""

    def __init__(self, size: Size, batch: int, *, threads: int, compiled: bool):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.size, self.batch, self.compiled = torch, size, batch, compiled
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.labels = torch.arange(batch, device=self.device) % 1000

    def _ready(self, model: Any, train: bool = True) -> tuple[Any, Any, int]:
        import torch_peers

        model = model.to(self.device).train(train)
        count = sum(parameter.numel() for parameter in model.parameters())
        optimizer = self.torch.optim.AdamW(model.parameters(), **torch_peers.ADAMW) if train else None
        return self.torch.compile(model) if self.compiled else model, optimizer, count

    def _random(self, *shape: int) -> Any:
        return self.torch.randn(*shape, device=self.device)

    def _feature_decoder(self) -> Any:
        import torch_peers

        depth, heads, hidden = self.size.feature_decoder
        width = self.size.features
        return torch_peers.Decoder(
            tokens=256, channels=32, width=width, depth=depth, heads=heads, hidden=hidden, out=None
        )

    def _pixel_decoder(self) -> Any:
        import torch_peers

        width, depth, heads, hidden = self.size.pixel_decoder
        return torch_peers.Decoder(
            tokens=256, channels=self.size.features, width=width, depth=depth, heads=heads, hidden=hidden, out=768
        )

    def features_step(self) -> tuple[Any, int]:
        import torch_peers

        heads, head_width = self.size.compressor
        model = torch_peers.Autoencoder(
            features=self.size.features,
            latent=32,
            heads=heads,
            head_width=head_width,
            decoder=self._feature_decoder(),
        )
        model, optimizer, count = self._ready(model)
        return torch_peers.autoencoder_step(
            model, self._random(self.batch, 256, self.size.features), optimizer
        ), count

    def pixels_step(self) -> tuple[Any, int]:
        import torch_peers

        model, optimizer, count = self._ready(self._pixel_decoder())
        features, pixels = self._random(self.batch, 256, self.size.features), self._random(self.batch, 256, 768)
        return torch_peers.pixels_step(model, features, pixels, optimizer), count

    def titok_step(self) -> tuple[Any, int]:
        import torch_pixels

        decoder, ours, count = self._ready(self._pixel_decoder())
        discriminator, theirs, more = self._ready(torch_pixels.Discriminator(self.size.discriminator))
        networks = (decoder, discriminator, self._ready(torch_pixels.LPIPS(), False)[0])
        features, images = self._random(self.batch, 256, self.size.features), self._random(self.batch, 3, 256, 256)
        return torch_pixels.titok_step(networks, features, images.clamp(-1, 1), (ours, theirs)), count + more

    def _dit(self, train: bool) -> tuple[Any, Any, int]:
        import torch_peers

        width, depth, heads, _ = self.size.dit
        model = torch_peers.make_dit(side=16, channels=32, width=width, depth=depth, heads=heads, classes=1000)
        return self._ready(model, train)

    def generator_step(self) -> tuple[Any, int]:
        import torch_peers

        model, optimizer, count = self._dit(True)
        return torch_peers.dit_step(model, self._random(self.batch, 32, 16, 16), self.labels, optimizer), count

    def decoding(self) -> tuple[Any, int]:
        both = self.torch.nn.Sequential(self._feature_decoder(), self._pixel_decoder())
        model, _, count = self._ready(both, False)
        latents, half = self._random(self.batch, 256, 32), self.device == "cuda"

        def run() -> Any:
            with self.torch.inference_mode(), self.torch.autocast("cuda", self.torch.bfloat16, enabled=half):
                return model(latents)

        return run, count

    def sampling(self, steps: int) -> tuple[Any, int]:
        import torch_peers

        model, _, count = self._dit(False)
        return torch_peers.dit_sample(model, self._random(self.batch, 32, 16, 16), self.labels, 1000, steps), count

    def wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()


def programs(stage: str, size: Size, options: argparse.Namespace) -> Iterator[tuple[str, Any, int]]:
    """(who, function, parameters) of each side."""
    config = configure(size, options.batch)
    ours = Ours(as_diffusers(config) if stage in ("generator", "sampling") else config, size, options.batch)
    method = {"lightning": "generator", "decoding": "decoding", "sampling": "sampling"}.get(stage, stage)
    name = method if method in ("decoding", "sampling") else f"{method}_step"
    arguments = (size.sampling_steps,) if stage == "sampling" else ()
    yield "fae_jax", *getattr(ours, name)(*arguments)
    if options.torch != "none" and stage != "lightning":
        theirs = Theirs(size, options.batch, threads=options.threads, compiled=options.torch == "compile")
        run, count = getattr(theirs, name)(*arguments)

        def timed() -> None:
            run()
            theirs.wait()

        yield "torch", timed, count


def measure(stage: str, size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    found = list(programs(stage, size, options))
    seconds: dict[str, list[float]] = {who: [] for who, _, _ in found}
    for turn in range(options.warmup + options.repeats):
        for who, run, _ in found:
            begun = time.perf_counter()
            run()
            if turn >= options.warmup:
                seconds[who].append(time.perf_counter() - begun)
    row: dict[str, Any] = {"stage": stage, "size": options.size, "batch": options.batch}
    for who, _, count in found:
        row[who] = {
            "parameters": count,
            "seconds_best": round(min(seconds[who]), 4),
            "seconds_median": round(statistics.median(seconds[who]), 4),
            "images_per_second": round(options.batch / min(seconds[who]), 2),
        }
    if "torch" in row:
        row["times_as_fast"] = round(row["torch"]["seconds_best"] / row["fae_jax"]["seconds_best"], 3)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown."""
    lines = ["| program | batch | fae_jax, s | PyTorch, s | images/s | times as fast |", "|---|---|---|---|---|---|"]
    for row in rows:
        ours, theirs = row["fae_jax"], row.get("torch", {})
        lines.append(
            f"| {row['stage']} | {row['batch']} | {ours['seconds_best']} | {theirs.get('seconds_best', '–')} "
            f"| {ours['images_per_second']} | {row.get('times_as_fast', '–')} |"
        )
    return "\n".join(lines)


def main() -> None:
    keep_freed_memory()  # it and the flags: as `fae` begins
    set_flags()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="laptop")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--batch", type=int, help="default: the size's")
    parser.add_argument("--torch", choices=("eager", "compile", "none"), default="eager")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's on a CPU")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    size = SIZES[options.size]
    options.batch = options.batch or size.batch
    print(json.dumps(describe()), flush=True)
    rows = []
    for stage in options.stages:
        rows.append(measure(stage, size, options))
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
