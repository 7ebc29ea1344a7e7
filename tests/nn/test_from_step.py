"""What begins at a later step: zeros before it, a branch on accelerators alone; and blur-pooling by definition."""

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.nn.compute import from_step
from fae_jax.nn.convolutions import blur_pool


def test_zeros_come_before_the_step_and_only_accelerators_branch():
    def slope(x: jax.Array, step: jax.Array) -> jax.Array:
        return jax.grad(lambda x: from_step(step, 3, lambda x: (x**2).sum(), x))(x)

    run, x = jax.jit(slope), jnp.arange(4.0)
    assert (run(x, jnp.int32(2)) == 0).all() and (run(x, jnp.int32(3)) == 2 * x).all()
    assert "conditional(" not in run.lower(x, jnp.int32(2)).compile().as_text()
    assert "stablehlo.case" in run.trace(x, jnp.int32(2)).lower(lowering_platforms=("tpu",)).as_text()


def test_blur_pool_is_its_kernel_at_every_second_place_on_odd_grids_too():
    x = np.random.default_rng(0).normal(size=(1, 7, 8, 2)).astype(np.float32)
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    padded = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
    expected = [
        [np.einsum("yx,yxc->c", kernel, padded[0, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]) for j in range(4)]
        for i in range(4)
    ]
    np.testing.assert_allclose(blur_pool(jnp.asarray(x))[0], expected, atol=1e-6)
