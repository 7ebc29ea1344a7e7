"""Attention and rotary positions against the NumPy reference and their own laws."""

import functools

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, parameters

import fae_jax.nn.attention as attention_module
from fae_jax.nn.attention import SelfAttention, attention, split_width
from fae_jax.nn.embeddings import apply_rotary, rotary_table


def normals(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def qkv(b=2, n=5, m=7, h=3, d=8):
    return normals(b, n, h, d), normals(b, m, h, d, seed=1), normals(b, m, h, d, seed=2)


@pytest.mark.parametrize("kernel", ["auto", "xla", "cpu"])
@pytest.mark.parametrize("scale", [None, 0.9])
def test_attention_is_the_reference(kernel, scale):
    query, key, value = qkv()
    got = attention(*map(jnp.asarray, (query, key, value)), scale=scale, kernel=kernel)
    assert_close(got, reference.attention(*(part.astype(np.float64) for part in (query, key, value)), scale=scale))


QUERIES = [5, 259]  # the CPU's kernel takes 259 in two parts


@pytest.mark.parametrize("n", QUERIES)
@pytest.mark.parametrize("kernel", ["xla", "cpu"])
def test_mask_and_bias(kernel, n):
    query, key, value = qkv(n=n)
    mask = np.random.default_rng(3).random((2, 3, n, 7)) < 0.6
    mask[..., 0] = True
    bias = normals(2, 3, n, 7, seed=4)
    arrays = tuple(map(jnp.asarray, (query, key, value)))
    got = attention(*arrays, mask=jnp.asarray(mask), bias=jnp.asarray(bias), kernel=kernel)
    assert_close(got, reference.attention(query, key, value, mask=mask, bias=bias))
    padding = mask[:, :1, :1]  # (b, 1, 1, m) broadcasts over heads and queries
    got = attention(*arrays, mask=jnp.asarray(padding), kernel=kernel)
    assert_close(got, reference.attention(query, key, value, mask=np.broadcast_to(padding, (2, 3, n, 7))))


@pytest.mark.parametrize("n", QUERIES)
def test_kernels_have_the_same_gradients(n):
    """With a mask whose last query attends to nothing, and logits far beyond the range of exp."""
    arrays = tuple(map(jnp.asarray, (20 * normals(2, n, 3, 8), *qkv()[1:])))
    mask = jnp.asarray(np.random.default_rng(3).random((2, 1, n, 7)) < 0.6).at[:, :, -1].set(False)
    toward = jnp.asarray(normals(2, n, 3, 8, seed=5))

    def gradients(kernel):
        loss = lambda *given: jnp.sum(toward * attention(*given, mask=mask, kernel=kernel))  # noqa: E731
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*arrays)

    for ours, theirs in zip(gradients("cpu"), gradients("xla"), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize(("backend", "chosen"), [("cpu", "cpu"), ("gpu", "xla"), ("tpu", "xla")])
def test_auto_writes_for_the_cpu_on_a_cpu_alone(monkeypatch, backend, chosen):
    """Five tokens in float32: neither cudnn nor splash applies on the accelerators."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    arrays = tuple(map(jnp.asarray, qkv()))
    trace = lambda kernel: str(jax.make_jaxpr(lambda *given: attention(*given, kernel=kernel))(*arrays))  # noqa: E731
    assert trace("auto") == trace(chosen) and trace("cpu") != trace("xla")


@pytest.mark.parametrize("kernel", ["xla", "cpu"])
def test_softmax_of_bfloat16_is_taken_in_float32(kernel):
    """Logits near 100 carry a rounding of 0.5 in bfloat16; a softmax in it would be off by half."""
    query, key, value = (jnp.asarray(part, jnp.bfloat16) for part in qkv(d=64))
    got = attention(query, key, value, scale=4.0, kernel=kernel)
    assert got.dtype == jnp.bfloat16
    assert_close(got, reference.attention(*(np.asarray(x, np.float64) for x in (query, key, value)), scale=4.0), 0.01)


def test_unknown_kernel():
    query = jnp.ones((1, 2, 1, 4))
    with pytest.raises(ValueError, match="attention kernel 'flash' is unknown; choose one of auto, xla, cpu, cudnn"):
        attention(query, query, query, kernel="flash")


def test_heads_must_divide_the_width():
    assert split_width(1152, 16) == 72
    with pytest.raises(ValueError, match="a width of 1152 cannot be split into 10 heads"):
        split_width(1152, 10)


@pytest.mark.accelerator
@pytest.mark.parametrize("width", [64, 72])
def test_cudnn_agrees_with_xla(width):
    if jax.default_backend() != "gpu":
        pytest.skip("cudnn is for GPUs")
    arrays = [jnp.asarray(part, jnp.bfloat16) for part in qkv(n=64, m=64, d=width)]
    assert_close(attention(*arrays, kernel="cudnn"), attention(*arrays, kernel="xla"), 0.02)


@pytest.mark.parametrize("qk_norm", ["", "rms", "layer"])
@pytest.mark.parametrize("grid", [None, (3, 4)])
def test_self_attention_is_the_reference(qk_norm, grid):
    x = normals(2, 12, 24)
    rotary = None if grid is None else tuple(map(jnp.asarray, rotary_table(8, grid)))
    module = SelfAttention(heads=3, head_width=8, qk_norm=qk_norm)
    params = parameters(module, jnp.asarray(x), rotary)
    got = jax.jit(module.apply)({"params": params}, jnp.asarray(x), rotary)
    assert_close(got, reference.self_attention(params, x.astype(np.float64), 3, grid))


def test_self_attention_width_may_differ_and_biases_can_go():
    x = jnp.asarray(normals(1, 4, 10))
    module = SelfAttention(heads=2, head_width=6, qkv_bias=False, out_bias=False)
    params = parameters(module, x)
    assert jax.tree.map(np.shape, params) == {"qkv": {"kernel": (10, 36)}, "out": {"kernel": (12, 10)}}
    assert_close(
        jax.jit(module.apply)({"params": params}, x), reference.self_attention(params, np.asarray(x, np.float64), 2)
    )


def scores(grid, head_width=16, seed=5):
    """q·k of one query content and one key content placed at every pair of positions."""
    n = grid[0] * grid[1]
    table = tuple(map(jnp.asarray, rotary_table(head_width, grid)))
    query, key = (np.broadcast_to(normals(head_width, seed=seed + i), (1, n, 1, head_width)) for i in range(2))
    query, key = (np.asarray(apply_rotary(jnp.asarray(part), *table))[0, :, 0] for part in (query, key))
    return query @ key.T


def test_rotary_scores_depend_on_displacement_only():
    grid = (4, 5)
    by_displacement = {}
    for (i, j), score in np.ndenumerate(scores(grid)):
        (y1, x1), (y2, x2) = divmod(i, grid[1]), divmod(j, grid[1])
        by_displacement.setdefault((y2 - y1, x2 - x1), []).append(score)
    for displacement, same in by_displacement.items():
        np.testing.assert_allclose(same, same[0], atol=1e-4, err_msg=str(displacement))
    means = np.sort([np.mean(same) for same in by_displacement.values()])
    assert np.diff(means).min() > 1e-4  # and every displacement, in y and in x, has a score of its own


def test_rotary_keeps_lengths_and_turns_rows_in_the_first_half():
    cosine, sine = map(jnp.asarray, rotary_table(8, (2, 2)))
    x = jnp.asarray(normals(1, 4, 1, 8))
    turned = apply_rotary(x, cosine, sine)
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    moved = np.abs(np.asarray(turned - x))[0, :, 0] > 1e-6
    first, second = moved[:, :4].any(1), moved[:, 4:].any(1)
    assert first.tolist() == [False, False, True, True]  # tokens of row 1
    assert second.tolist() == [False, True, False, True]  # tokens of column 1


def test_rotary_is_the_reference_also_with_a_prefix():
    x = normals(2, 12, 3, 16)
    got = apply_rotary(jnp.asarray(x), *map(jnp.asarray, rotary_table(16, (3, 4), theta=100.0)))
    assert_close(got, reference.rotary(x.astype(np.float64), (3, 4), theta=100.0))
    with_prefix = np.concatenate([normals(2, 2, 3, 16, seed=9), x], axis=1)
    prefixed = apply_rotary(
        jnp.asarray(with_prefix), *map(jnp.asarray, rotary_table(16, (3, 4), theta=100.0, prefix=2))
    )
    np.testing.assert_array_equal(prefixed[:, :2], with_prefix[:, :2])
    np.testing.assert_array_equal(prefixed[:, 2:], got)


def test_rotary_needs_a_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4, got 18"):
        rotary_table(18, (2, 2))


def test_splash_is_the_same_attention_with_the_same_gradient():
    inputs = [jax.random.normal(key, (1, 128, 2, 72)) for key in jax.random.split(jax.random.key(0), 3)]

    def total(kernel: str, query: jax.Array, *rest: jax.Array) -> jax.Array:
        if kernel == "splash":
            return jnp.sum(jnp.sin(attention_module._splash(query * 72**-0.5, *rest, interpret=True)))
        return jnp.sum(jnp.sin(attention(query, *rest, kernel=kernel)))

    def both(kernel: str):
        return jax.jit(jax.value_and_grad(functools.partial(total, kernel), (0, 1, 2)))(*inputs)

    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4, rtol=1e-3), both("splash"), both("xla"))


@pytest.mark.parametrize("tokens", [128, 257])
def test_splash_leaves_what_it_cannot_do_to_xla(monkeypatch: pytest.MonkeyPatch, tokens: int):
    called = []
    monkeypatch.setattr(attention_module, "_splash", lambda query, key, value: called.append(1) or value)
    x = jnp.ones((1, tokens, 1, 8), jnp.bfloat16)
    attention(x, x, x, kernel="splash")
    assert bool(called) == (tokens == 128)
    attention(*[x.astype(jnp.float32)] * 3, kernel="splash")
    attention(x, x, x, mask=jnp.ones((1, 1, tokens, tokens), bool), kernel="splash")
    assert len(called) == (tokens == 128)
