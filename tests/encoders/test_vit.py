import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.encoders.vit import ViT, ViTConfig
from fae_jax.nn.embeddings import rotary_table

TINY = ViTConfig(patch=4, width=16, depth=3, heads=2, hidden=24, table_grid=(4, 4), registers=2, layer_scale=0.3)


def make(config: ViTConfig, size=(16, 16), **fields):
    """A network whose every weight differs from the value it starts with, and two images."""
    module, noise = ViT(config, **fields), np.random.default_rng(1)
    images = jnp.asarray(noise.standard_normal((2, *size, config.channels), np.float32))

    def fill(path, leaf):
        start = 1.0 if "scale" in jax.tree_util.keystr(path[-1:]) else 0.0
        return jnp.asarray(start + 0.2 * noise.standard_normal(leaf.shape, np.float32))

    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    return module, jax.tree_util.tree_map_with_path(fill, shapes), images


@functools.partial(jax.jit, static_argnums=0, static_argnames=("layers",))
def run(module, variables, images, **fields):
    return module.apply(variables, images, **fields)


def layer_norm(x, p, epsilon=1e-6):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + epsilon) * p["scale"] + p["bias"]


def reference(config, params, image):
    """The network in NumPy, one image, one token at a time where that is clearer."""
    from scipy.special import erf, softmax

    trunk = params["trunk"]
    p, (rows, columns) = config.patch, (image.shape[0] // config.patch, image.shape[1] // config.patch)
    tokens = []
    for y in range(rows):
        for x in range(columns):
            square = image[y * p : (y + 1) * p, x * p : (x + 1) * p].reshape(-1)
            tokens.append(square @ trunk["patch_embed"]["kernel"] + trunk["patch_embed"]["bias"])
    tokens = np.stack(tokens) + trunk["position_table"][1:]
    x = np.concatenate([trunk["cls_token"] + trunk["position_table"][:1], trunk["registers"], tokens])
    for layer in range(config.depth):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], trunk["blocks"]["block"])
        attention = block["attention"]
        h = layer_norm(x, block["attention_norm"])
        qkv = h @ attention["qkv"]["kernel"] + attention["qkv"]["bias"]
        q, k, v = np.split(qkv, 3, axis=-1)
        e = config.width // config.heads
        heads = []
        for i in range(config.heads):
            cut = slice(i * e, (i + 1) * e)
            heads.append(softmax(q[:, cut] @ k[:, cut].T / np.sqrt(e), axis=-1) @ v[:, cut])
        mixed = np.concatenate(heads, axis=-1) @ attention["out"]["kernel"] + attention["out"]["bias"]
        x = x + block["attention_scale"] * mixed
        feed = block["feed_forward"]
        h = layer_norm(x, block["feed_forward_norm"]) @ feed["hidden"]["kernel"] + feed["hidden"]["bias"]
        h = 0.5 * h * (1 + erf(h / np.sqrt(2)))
        x = x + block["feed_forward_scale"] * (h @ feed["out"]["kernel"] + feed["out"]["bias"])
    return layer_norm(x, params["last_norm"])


def test_equals_a_numpy_statement_of_it():
    module, variables, images = make(TINY)
    out = run(module, variables, images)
    params = jax.tree.map(np.asarray, variables["params"])
    for i in range(2):
        want = reference(TINY, params, np.asarray(images[i]))
        np.testing.assert_allclose(out.cls[i], want[0], atol=2e-5)
        np.testing.assert_allclose(out.patches[i], want[3:], atol=2e-5)


def test_every_parameter_matters():
    config = dataclasses.replace(TINY, pre_norm=True, pooling="attention", projection=5, rotary_theta=100.0)
    module, variables, images = make(config)

    def score(variables):
        out = run(module, variables, images)
        return jnp.sum(jnp.sin(out.patches)) + jnp.sum(jnp.sin(out.cls)) + jnp.sum(jnp.sin(out.pooled))

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(score))(variables)):
        name = jax.tree_util.keystr(path)
        if "'key']['bias']" not in name:  # the softmax does not see what all keys share
            assert np.abs(gradient).max() > 1e-5, name


def test_scan_remat_and_unrolled_agree():
    module, variables, images = make(TINY)
    want = run(module, variables, images)
    for fields in ({"scan": False}, {"scan": True, "remat": "full"}, {"scan": False, "remat": "dots"}):
        got = run(ViT(TINY, **fields), variables, images)
        np.testing.assert_allclose(got.patches, want.patches, atol=1e-5)


@pytest.mark.parametrize("scan", [True, False])
def test_layers_are_the_outputs_of_shallower_networks(scan):
    module, variables, images = make(TINY, scan=scan)
    kept = run(module, variables, images, layers=(0, -1)).layers
    np.testing.assert_allclose(kept[1][0], run(module, variables, images).patches, atol=1e-6)
    shallow = dataclasses.replace(TINY, depth=1)
    trunk = dict(variables["params"]["trunk"])
    trunk["blocks"] = jax.tree.map(lambda leaf: leaf[:1], trunk["blocks"])
    first = run(ViT(shallow), {"params": {**variables["params"], "trunk": trunk}}, images)
    np.testing.assert_allclose(kept[0][0], first.patches, atol=1e-6)
    np.testing.assert_allclose(kept[0][1], first.cls, atol=1e-6)
    with pytest.raises(ValueError, match="3 blocks"):
        run(module, variables, images, layers=(3,))


def test_another_grid_keeps_the_parameters_and_a_constant_table():
    module, variables, _ = make(TINY)
    wide = jax.random.normal(jax.random.key(3), (1, 12, 32, 3))
    assert run(module, variables, wide).patches.shape == (1, 24, 16)
    assert jax.eval_shape(module.init, jax.random.key(0), wide).keys() == variables.keys()
    # with a table that is constant the interpolation changes nothing, so patches may be permuted with the image
    table = variables["params"]["trunk"]["position_table"]
    constant = table.at[1:].set(table[1])
    params = {**variables["params"], "trunk": {**variables["params"]["trunk"], "position_table": constant}}
    left = run(module, {"params": params}, wide).cls
    swapped = jnp.concatenate([wide[:, :, 16:], wide[:, :, :16]], axis=2)
    np.testing.assert_allclose(left, run(module, {"params": params}, swapped).cls, atol=1e-5)


def test_bfloat16_stays_near_float32():
    module, variables, images = make(TINY)
    want = run(module, variables, images).patches
    got = run(ViT(TINY, dtype=jnp.bfloat16), variables, images).patches
    assert got.dtype == jnp.float32
    assert np.abs(got - want).max() < 2e-2 * np.abs(want).max()


def test_rotary_attention_sees_relative_places_only():
    cosine, sine = rotary_table(8, (3, 5), theta=100.0, prefix=2, unit=True)
    assert np.all(cosine[:2] == 1) and np.all(sine[:2] == 0)
    # channels 0, 1 turn with the row, by 2π times a place in (−1, 1); channels 4, 5 with the column
    place_y, place_x = (np.arange(3) * 2 + 1) / 3 - 1, (np.arange(5) * 2 + 1) / 5 - 1
    angle = np.arctan2(sine, cosine)[2:].reshape(3, 5, 8)
    wrapped = lambda x: (x + np.pi) % (2 * np.pi) - np.pi  # noqa: E731
    np.testing.assert_allclose(angle[:, 0, 0], wrapped(2 * np.pi * place_y), atol=1e-5)
    np.testing.assert_allclose(angle[1, :, 5], wrapped(2 * np.pi * place_x), atol=1e-5)
    np.testing.assert_allclose(angle[1, :, 6], wrapped(2 * np.pi * place_x / 10), atol=1e-5)


def test_classifier_reads_cls_and_mean_patch():
    config = dataclasses.replace(TINY, classes=7, classifier="cls_mean")
    module, variables, images = make(config)
    out = run(module, variables, images)
    logits = module.apply(variables, out.patches, out.cls, method="classify")
    head = variables["params"]["classifier_head"]
    read = np.concatenate([out.cls, np.mean(out.patches, axis=1)], axis=1)
    np.testing.assert_allclose(logits, read @ head["kernel"] + head["bias"], atol=1e-5)


def test_mean_pooling_needs_no_class_token():
    config = dataclasses.replace(TINY, cls_token=False, registers=0, pooling="mean")
    module, variables, images = make(config)
    out = run(module, variables, images)
    assert out.cls is None
    np.testing.assert_allclose(out.pooled, out.patches.mean(axis=1), atol=1e-6)


def test_configuration_survives_json_and_refuses_nonsense():
    assert ViTConfig.from_json(json.loads(json.dumps(dataclasses.asdict(TINY)))) == TINY
    with pytest.raises(ValueError, match="strange"):
        ViTConfig.from_json({**dataclasses.asdict(TINY), "strange": 1})
    with pytest.raises(ValueError, match="13×16 pixels"):
        TINY.grid(13, 16)
    for field, value in {"feed_forward": "swish", "pooling": "max", "interpolation": "area", "heads": 3}.items():
        with pytest.raises(ValueError, match=str(value)):
            dataclasses.replace(TINY, **{field: value})
    with pytest.raises(ValueError, match="without a class token"):
        dataclasses.replace(TINY, cls_token=False, pooling="cls")


def test_published_size_of_dinov2_g():
    # facebook/dinov2-giant: 1,136,480,768 values, of which 1,536 are the mask token that no image needs
    giant = ViTConfig(
        patch=14, width=1536, depth=40, heads=24, hidden=4096, feed_forward="swiglu", layer_scale=1.0,
        table_grid=(37, 37),
    )  # fmt: skip
    shapes = jax.eval_shape(ViT(giant).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1_136_480_768 - 1_536
