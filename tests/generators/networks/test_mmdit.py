"""The MMDiT: its counts, its equations with padding left out altogether, its start, what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, layer, linear, parameters, rms_norm, silu
from running import TINY

from fae_jax.conditions.label import ClassLabel
from fae_jax.config import check, load_config, override
from fae_jax.generators import make_generator
from fae_jax.generators.networks.dit import DiT
from fae_jax.generators.networks.mmdit import MMDiT, MMDiTSection
from fae_jax.nn.compute import ComputeSection

GRID, LENGTHS = (2, 3), (5, 2, 0)


def small(**changes):
    fields = {"grid": GRID, "width": 16, "depth": 3, "heads": 2, "hidden": 24}
    return MMDiT(**{**fields, **changes})


def inputs(seed=0):
    random = np.random.default_rng(seed)
    mask = np.arange(5)[None] < np.array(LENGTHS)[:, None]
    drawn = {"latents": (3, 6, 4), "tokens": (3, 5, 10), "pooled": (3, 7)}
    arrays = {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in drawn.items()}
    text = {"tokens": arrays["tokens"], "mask": jnp.asarray(mask), "pooled": arrays["pooled"]}
    return arrays["latents"], jnp.asarray([0.0, 0.4, 1.0]), text


def streams_of(p, tokens, condition, heads, grid, length, last):
    """Equations (1) and (2) of one example, text first."""
    streams, vectors, joint = {"text": tokens[:, :length], "image": tokens[:, length:]}, {}, []
    for name, x in streams.items():
        modulation = linear(p[f"{name}_modulation"], silu(condition))[:, None]
        vectors[name] = np.split(modulation, 2 if last and name == "text" else 6, axis=-1)
        shift, scale = vectors[name][:2]
        normed = (1 + scale) * rms_norm({}, x) + shift
        query, key, value = (
            reference.heads_of(part, heads) for part in np.split(linear(p[f"{name}_qkv"], normed), 3, axis=-1)
        )
        if name == "image":
            query, key = reference.rotary(query, grid), reference.rotary(key, grid)
        joint.append((query, key, value))
    mixed = reference.attention(*(np.concatenate(parts, axis=1) for parts in zip(*joint, strict=True)))
    mixed = mixed.reshape(*mixed.shape[:2], -1)
    done = []
    for name, own in (("text", mixed[:, :length]), ("image", mixed[:, length:])):
        if last and name == "text":
            continue
        _, _, gate, shift, scale, second = vectors[name]
        x = streams[name] + gate * linear(p[f"{name}_out"], own)
        fed = reference.feed_forward(p[f"{name}_feed_forward"], (1 + scale) * rms_norm({}, x) + shift, "swiglu")
        done.append(x + second * fed)
    return np.concatenate(done, axis=1)


def stated(p, latents, time, tokens, heads):
    """The network for one example and the text tokens that it really has."""
    width = p["embed"]["kernel"].shape[1]
    x, y = linear(p["embed"], latents) + reference.sincos(width, GRID), linear(p["text_embed"], tokens)
    mean = y.mean(axis=1) if y.shape[1] else np.zeros((1, width))
    condition = reference.time_embedding(p["time"], time, 1.0) + linear(p["pooled"], mean)
    both = np.concatenate([y, x], axis=1)
    for i in range(reference.depth_of(p["blocks"])):
        both = streams_of(layer(p["blocks"]["block"], i), both, condition, heads, GRID, y.shape[1], False)
    x = streams_of(p["last_block"], both, condition, heads, GRID, y.shape[1], True)
    shift, scale = (row + condition[:, None] for row in np.asarray(p["last_table"], np.float64))
    return linear(p["to_velocity"], (1 + scale) * rms_norm({}, x) + shift)


def test_is_its_equations_and_padding_changes_nothing():
    module, (latents, time, text) = small(), inputs()
    params = parameters(module, latents, time, text)
    run = jax.jit(lambda text: module.apply({"params": params}, latents, time, text))
    out = run(text)
    z, tokens = np.asarray(latents, np.float64), np.asarray(text["tokens"], np.float64)
    for i, length in enumerate(LENGTHS):
        want = stated(params, z[i : i + 1], np.asarray(time)[i : i + 1], tokens[i : i + 1, :length], 2)
        assert_close(out[i : i + 1], want, 1e-5)
    other = jnp.where(text["mask"][..., None], text["tokens"], 1e3)
    np.testing.assert_array_equal(run({**text, "tokens": other}), out)
    assert np.abs(np.asarray(run({**text, "tokens": text["tokens"] + 0.1}) - out))[:2].max() > 1e-3


def test_a_head_in_the_middle_reads_the_images_tokens_there():
    module, (latents, time, text) = small(middle=1), inputs()
    params = parameters(module, latents, time, text)
    assert [reference.depth_of(params[name]) for name in ("blocks", "upper_blocks")] == [1, 1]
    apply = functools.partial(module.apply, {"params": params}, latents, time, text, middle=True)
    said = jax.jit(lambda: [apply(tokens_after=after) for after in (1, 2, 3)])()
    last, middle, _ = said[0]
    z, y = (
        np.asarray(latents[:1], np.float64),
        linear(params["text_embed"], np.asarray(text["tokens"][:1], np.float64)),
    )
    x = linear(params["embed"], z) + reference.sincos(16, GRID)
    told = reference.time_embedding(params["time"], np.zeros(1), 1.0) + linear(params["pooled"], y.mean(axis=1))
    both = np.concatenate([y, x], axis=1)
    ends = {}
    for name in ("blocks", "upper_blocks"):
        both = streams_of(layer(params[name]["block"], 0), both, told, 2, GRID, 5, False)
        ends[name] = both[:, 5:]
    ends["last"] = streams_of(params["last_block"], both, told, 2, GRID, 5, True)
    for ours, read, name, out in (
        (middle, "blocks", "middle", "middle_velocity"),
        (last, "last", "last", "to_velocity"),
    ):
        shift, scale = (row + told[:, None] for row in np.asarray(params[f"{name}_table"], np.float64))
        assert_close(ours[:1], linear(params[out], (1 + scale) * rms_norm({}, ends[read]) + shift), 1e-5)
    for (_, _, tokens), x in zip(said, ends.values(), strict=True):
        assert_close(tokens[:1], x, 1e-5)
    with pytest.raises(ValueError, match="no head at a middle block"):
        small().init(jax.random.key(0), latents, time, text, middle=True)
    with pytest.raises(ValueError, match="middle=3 must be below depth=3"):
        MMDiTSection(depth=3, middle=3).check()


@pytest.mark.parametrize(
    ("width", "depth", "heads", "hidden", "side", "channels", "together"),
    [(1024, 16, 16, 2816, 16, 32, 603_326_496), (1536, 24, 24, 4096, 24, 64, 2_016_955_456)],
)
def test_parameters_of_the_paper(width, depth, heads, hidden, side, channels, together):
    """603.46 M and 2,017.84 M are printed; the split is the module's."""
    module = MMDiT(grid=(side, side), width=width, depth=depth, heads=heads, hidden=hidden)
    text = {"tokens": jnp.zeros((1, 2, 2048)), "mask": jnp.ones((1, 2), bool), "pooled": jnp.zeros((1, 2048))}
    latents = jnp.zeros((1, side * side, channels))
    shapes = jax.eval_shape(module.init, jax.random.key(0), latents, jnp.zeros(1), text)
    values = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert values == together
    printed = {1024: 603.46e6, 1536: 2017.84e6}[width]
    assert abs(values + module.fixed_values - printed) / printed < 3e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flow_matching", "mean_flow"])
def test_every_objective_and_its_sampler_take_it(kind):
    """A step with a text whose padding is changed has the same loss and gradient, and samples are finite."""
    latents, _, text = inputs()

    class Told(ClassLabel):
        encode = None

        def none(self, count):
            return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), text)

    fields = [("generator.kind", kind), (f"generator.{kind}.network", "mmdit")]
    sizes = {"width": 16, "depth": 2, "heads": 2, "hidden": 24}
    fields += [(f"generator.{kind}.mmdit.{name}", str(value)) for name, value in sizes.items()]
    config = check(override(load_config(str(TINY)), fields))
    generator = make_generator(config, grid=GRID, channels=4, condition=Told(classes=0))
    params = reference.randomise(jax.eval_shape(generator.init, jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), 3)
    grad = jax.jit(jax.value_and_grad(lambda p, text: generator.loss(p, latents, text, keys, jnp.zeros(()))[0]))
    other = {**text, "tokens": jnp.where(text["mask"][..., None], text["tokens"], 7.0)}
    for ours, theirs in zip(jax.tree.leaves(grad(params, text)), jax.tree.leaves(grad(params, other)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    settings = dataclasses.replace(config.sampling, guidance=((0.0, 1.0, 2.0),), steps=2)
    assert np.isfinite(jax.jit(lambda p: generator.sample(p, keys, text, settings))(params)).all()


def test_reads_text_alone_and_a_dit_none():
    sizes = {"grid": GRID, "compute": ComputeSection()}
    with pytest.raises(ValueError, match="the network mmdit reads text, .* set condition.kind=text"):
        MMDiT.build(MMDiTSection(), condition=ClassLabel(classes=3), **sizes)

    class Read(ClassLabel):
        encode = None

    with pytest.raises(ValueError, match="embeds a class, and this generator reads text: choose network=mmdit"):
        DiT.build(DiT.Section(), condition=Read(classes=3), **sizes)
    with pytest.raises(ValueError, match="heads=3 must divide width=1024"):
        MMDiTSection(heads=3).check()
