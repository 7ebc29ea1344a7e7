"""STARFlow: invertible at full depth, with the log-determinant of autodiff, drawn token by token or in blocks."""

import dataclasses
import math
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_reference import depth_of, layer, randomise

from fae_jax.conditions.label import ClassLabel
from fae_jax.conditions.nothing import Nothing
from fae_jax.diffusion.samplers import initial_noise
from fae_jax.generators.networks.causal import CausalTransformer
from fae_jax.generators.starflow import StarFlow, StarFlowSection, mixed
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.params import count

SMALL = {"width": 16, "depth": 2, "heads": 2, "hidden": 32, "shallow_blocks": 2, "shallow_depth": 1}
PLAIN = types.SimpleNamespace(guidance=())
GUIDED = types.SimpleNamespace(guidance=((0.0, 1.0, 2.5),))


def flow(grid: tuple[int, int] = (2, 4), channels: int = 3, condition: Any = None, **fields: Any) -> StarFlow:
    section = StarFlowSection(**{**SMALL, **fields})
    condition = condition or ClassLabel(classes=5, dropout=0.1)
    compute = ComputeSection(dtype="float32")
    return StarFlow.build(section, grid=grid, channels=channels, condition=condition, compute=compute)


def weights(made: StarFlow, spread: float = 0.1) -> Any:
    return randomise(jax.eval_shape(made.init, jax.random.key(0)), spread=spread)


def test_the_published_setting_has_the_authors_parameters():
    """1.4 B: TarFlow_XLv2_1 of apple/ml-starflow counts 1,413,288,512 over 32 channels and 1000 classes, of which
    2,048 are a bias of its label embedding that only shifts all labels alike."""
    condition = ClassLabel(classes=1000)
    made = StarFlow.build(
        StarFlowSection(), grid=(16, 16), channels=32, condition=condition, compute=ComputeSection()
    )
    assert count(jax.eval_shape(made.init, jax.random.key(0))) == 1_413_288_512 - 2048


@pytest.mark.slow
def test_all_34_layers_are_inverted():
    made = flow(shallow_blocks=5, shallow_depth=2, depth=24)
    params, labels = weights(made), jnp.asarray([0, 5], jnp.int32)
    x = jax.random.normal(jax.random.key(1), (2, 8, 3))

    @jax.jit
    def there_and_back(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        e, _ = made.forward(params, x, labels)
        return e, made.inverse(params, e, labels)

    e, back = there_and_back(x)
    assert float(jnp.abs(e - x).max()) > 1
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_the_log_determinant_is_that_of_autodiff():
    made = flow(grid=(2, 2), channels=2)
    params, labels = weights(made), jnp.asarray([3], jnp.int32)
    values = jax.random.normal(jax.random.key(1), (8,))

    def noise(values: jax.Array) -> Any:
        x = values.reshape(1, 4, 2)
        e, change = made.forward(params, x, labels)
        return e.reshape(-1), (e, change[0], made.log_density(params, x, labels)[0])

    jacobian, (e, change, density) = jax.jit(jax.jacfwd(noise, has_aux=True))(values)
    sign, expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))
    assert sign == 1 and float(change) == pytest.approx(expected, abs=1e-4) and abs(expected) > 0.1
    normal = -0.5 * np.sum(np.asarray(e, np.float64) ** 2) - 4 * math.log(2 * math.pi)
    assert float(density) == pytest.approx(expected + normal, abs=1e-4)


class Counted(CausalTransformer):
    """Counts its evaluations."""

    counts = []  # noqa: RUF012

    def next(self, *given: Any) -> Any:
        jax.debug.callback(lambda: self.counts.append(1))
        return CausalTransformer.next(self, *given)


@pytest.mark.slow
def test_blocks_of_tokens_equal_one_by_one_in_fewer_counted_evaluations():
    made = flow(denoise=False, shallow_blocks=1)
    networks = {
        name: Counted(**{each.name: getattr(network, each.name) for each in dataclasses.fields(network) if each.init})
        for name, network in (("deep", made.deep), ("shallow", made.shallow))
    }
    made = dataclasses.replace(made, **networks)
    params, labels = weights(made, 0.03), jnp.asarray([1, 2], jnp.int32)
    keys = jax.random.split(jax.random.key(3), 2)
    drawn = []
    for block, iterations, evaluations in ((1, 1, 17), (8, 5, 11)):
        each = dataclasses.replace(made, block=block, iterations=iterations)
        Counted.counts.clear()
        drawn.append(np.asarray(jax.jit(lambda each=each: each.sample(params, keys, labels, PLAIN))()))
        jax.effects_barrier()
        assert each.evaluations(PLAIN) == evaluations
        assert len(Counted.counts) == evaluations - 1  # and one in which the deep block reads the label
    np.testing.assert_allclose(drawn[1], drawn[0], atol=1e-4)
    assert drawn[0].std() > 0.1


@pytest.mark.slow
def test_a_sample_is_its_own_whatever_the_batch():
    made = flow(shallow_blocks=1)
    params, keys = weights(made), jax.random.split(jax.random.key(3), 4)
    draw = jax.jit(lambda keys, labels: made.sample(params, keys, labels, GUIDED))
    first, second = draw(keys[:2], jnp.asarray([1, 2])), draw(keys[jnp.asarray([1, 3])], jnp.asarray([2, 4]))
    np.testing.assert_allclose(first[1], second[0], atol=2e-5)
    assert float(jnp.abs(first[0] - second[0]).max()) > 0.1
    assert made.evaluations(GUIDED) == 2 * (1 + 8) + 8 + 2  # deep and its twin, a shallow one, denoising


def test_guidance_is_the_gaussian_between_and_beyond():
    """Precisions of p_c^w p_u^(1 − w) where the condition makes p narrower; elsewhere its own variance is kept."""
    random = np.random.default_rng(0)
    mean, width = random.normal(size=(2, 1, 4, 3)), random.uniform(0.5, 2, size=(2, 1, 4, 3))
    narrow = np.sort(width, axis=0)
    for weight in (0.5, 1.0, 2.5):
        shift, scale = mixed(jnp.asarray(mean), jnp.asarray(narrow), weight)
        precision = weight / narrow[0] ** 2 - (weight - 1) / narrow[1] ** 2
        centre = (weight * mean[0] / narrow[0] ** 2 - (weight - 1) * mean[1] / narrow[1] ** 2) / precision
        np.testing.assert_allclose(scale, 1 / np.sqrt(precision), rtol=1e-5)
        np.testing.assert_allclose(shift, centre, rtol=1e-4, atol=1e-5)
    shift, scale = mixed(jnp.asarray(mean), jnp.asarray(narrow[::-1].copy()), 3.0)
    np.testing.assert_allclose(scale, narrow[1], rtol=1e-6)
    np.testing.assert_allclose(shift, mean[0] + 2 * (mean[0] - mean[1]), rtol=1e-5, atol=1e-5)
    kept = mixed(jnp.asarray(mean, jnp.float32), jnp.asarray(width, jnp.float32), jnp.float32(1))
    assert (np.asarray(kept[0]) == mean[0].astype(np.float32)).all()


@pytest.mark.slow
def test_intervals_of_guidance_reach_their_tokens():
    """Times of 8 tokens are 1, 7/8, …, 1/8: guidance up to a half leaves the deep block's first four as they are."""
    made = flow()
    params, labels, e = weights(made), jnp.asarray([1], jnp.int32), jax.random.normal(jax.random.key(2), (1, 8, 3))
    half = made._weights(types.SimpleNamespace(guidance=((0.0, 0.5, 4.0),)))
    np.testing.assert_array_equal(half, [1] * 4 + [4] * 4)
    deep = jax.jit(lambda weights: made._invert(made.deep, params["deep"], e, labels, weights))
    moved = np.abs(np.asarray(deep(jnp.ones(8)) - deep(jnp.asarray(half)))).max(axis=(0, 2))
    assert (moved[:4] == 0).all() and (moved[4:] > 1e-3).all()


def test_guidance_may_be_an_argument_of_the_program():
    """As `fae evaluate --task guidance` gives it: one program for every weight."""
    made = flow()
    half = made._weights(types.SimpleNamespace(guidance=((0.0, 0.5, 4.0),)))
    given = jax.jit(lambda interval: made._weights(types.SimpleNamespace(guidance=((interval, "classifier_free"),))))
    np.testing.assert_array_equal(given(jnp.asarray([0.0, 0.5, 4.0])), half)


@pytest.mark.slow
def test_a_fresh_flow_is_the_identity_and_its_score_takes_noise_off():
    made = flow(noise=0.5, shallow_blocks=1, depth=1)
    fresh = jax.eval_shape(made.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), fresh)  # as fresh ones: their last linear is 0
    labels, keys = jnp.zeros(256, jnp.int32), jax.random.split(jax.random.key(3), 256)

    @jax.jit
    def drawn_and_lost(params: Any) -> Any:
        lost = made.loss(params, jnp.zeros((256, 8, 3)), labels, keys, jnp.zeros(()))
        return made.sample(params, keys, labels, PLAIN), lost

    drawn, (loss, watched) = drawn_and_lost(params)
    noise = initial_noise(keys, (8, 3))
    np.testing.assert_allclose(drawn, (1 - 0.5**2) * noise, atol=1e-5)  # ∇ log N(x; 0, 1) = −x
    expected = 0.5 * 0.5**2 + 0.5 * math.log(2 * math.pi)  # of noise with a deviation of a half
    assert float(loss) == pytest.approx(expected, rel=0.02)
    assert float(watched["bits_per_dimension"]) == pytest.approx(float(loss) / math.log(2), rel=1e-6)


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"^field generator\.starflow\.block=3 must divide the 8 tokens$"):
        flow(block=3)
    with pytest.raises(ValueError, match="^heads=3 must divide width=16"):
        StarFlowSection(**{**SMALL, "heads": 3}).check()
    with pytest.raises(ValueError, match="^iterations=4 are more than block=2 needs"):
        StarFlowSection(block=2, iterations=4).check()
    with pytest.raises(ValueError, match="weights of at least 0, got -1"):
        flow().evaluations(types.SimpleNamespace(guidance=((0.0, 1.0, -1.0),)))
    free = dataclasses.replace(flow(), condition=Nothing())
    assert free.evaluations(PLAIN) == 9 + 16 + 3
    with pytest.raises(ValueError, match=r"sampling\.guidance .*condition\.kind=none"):
        free.evaluations(GUIDED)


@pytest.mark.parity
def test_a_flow_and_its_loss_equal_pytorch_written_from_the_paper():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    made = flow(grid=(2, 4), shallow_blocks=3, shallow_depth=2)
    params, labels = weights(made, 0.2), np.asarray([1, 5])
    x = np.random.default_rng(1).normal(size=(2, 8, 3)).astype(np.float32)

    def value(leaf: Any) -> Any:
        return torch.from_numpy(np.array(leaf))

    def linear(p: Any, h: Any) -> Any:
        return functional.linear(h, value(p["kernel"]).T, value(p["bias"]))

    def turned(h: Any, prefix: int) -> Any:
        """(b, heads, n, 8): tokens of the condition stay, others turn by row (first half) and column."""
        place = torch.arange(h.shape[2]) - prefix
        rows, columns = (place // 4).clamp(min=0) * (place >= 0), (place % 4) * (place >= 0)
        rates = 10000.0 ** (-torch.arange(2) / 2)
        angle = torch.cat([torch.outer(rows.float(), rates), torch.outer(columns.float(), rates)], dim=1)
        pairs = torch.view_as_complex(h.reshape(*h.shape[:-1], 4, 2).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)

    def affine(p: Any, u: Any, told: Any) -> Any:
        first = value(p["beginning"]).expand(len(u), 1, 3)
        h = linear(p["embed"], torch.cat([first, u[:, :-1]], dim=1))
        prefix = 0 if told is None else 1
        h = h if told is None else torch.cat([told, h], dim=1)
        for i in range(depth_of(p["blocks"])):
            own = layer(p["blocks"], i)
            own = jax.tree.map(lambda leaf: leaf.astype(np.float32), own)
            norms = {
                n: (value(own[n]["scale"]), value(own[n]["bias"])) for n in ("attention_norm", "feed_forward_norm")
            }
            normed = functional.layer_norm(h, (16,), *norms["attention_norm"])
            query, key, values = (
                part.reshape(*part.shape[:2], 2, 8).transpose(1, 2)
                for part in linear(own["attention"]["qkv"], normed).chunk(3, dim=-1)
            )
            query, key = turned(query, prefix), turned(key, prefix)
            seen = functional.scaled_dot_product_attention(query, key, values, is_causal=True)
            h = h + linear(own["attention"]["out"], seen.transpose(1, 2).flatten(-2))
            normed = functional.layer_norm(h, (16,), *norms["feed_forward_norm"])
            fed = functional.gelu(linear(own["feed_forward"]["hidden"], normed))
            h = h + linear(own["feed_forward"]["out"], fed)
        h = functional.rms_norm(h[:, prefix:], (16,), value(p["last_norm"]["scale"]), eps=1e-6)
        scale, shift = (4 * torch.tanh(linear(p["to_affine"], h) / 4)).chunk(2, dim=-1)
        return shift, functional.softplus(scale + 0.541324854612918)

    u, change = value(x).flip(1), torch.zeros(2)
    for number in range(3):
        shift, scale = affine(jax.tree.map(lambda leaf, number=number: leaf[number], params["shallow"]), u, None)
        u, change = ((u - shift) / scale).flip(1), change - scale.log().sum((1, 2))
    told = value(params["deep"]["label"]["table"])[labels][:, None]
    shift, scale = affine(params["deep"], u, told)
    u, change = (u - shift) / scale, change - scale.log().sum((1, 2))
    e, ours = made.forward(params, jnp.asarray(x), jnp.asarray(labels, jnp.int32))
    np.testing.assert_allclose(e, u.numpy(), atol=1e-4)
    np.testing.assert_allclose(ours, change.numpy(), atol=1e-4)
    assert float(np.abs(u.numpy() - x[:, ::-1]).max()) > 0.5


class Sentence(ClassLabel):
    """A condition of tokens 6 wide, as a text's: the first of each are read, the others padding."""

    def told(self, tokens: jax.Array, lengths: list[int]) -> dict[str, jax.Array]:
        mask = jnp.arange(tokens.shape[1]) < jnp.asarray(lengths)[:, None]
        return {"tokens": tokens, "mask": mask, "pooled": tokens.mean(1)}

    def none(self, count: int) -> dict[str, jax.Array]:
        return self.told(jnp.zeros((count, 5, 6)), [0] * count)


def reader(**fields: Any) -> StarFlow:
    return flow(condition=Sentence(classes=0), shallow_blocks=1, **fields)


@pytest.mark.slow
def test_padding_of_a_text_changes_nothing_and_every_other_token_does():
    made = reader()
    params, tokens = weights(made), jax.random.normal(jax.random.key(4), (2, 5, 6))
    x, lengths = jax.random.normal(jax.random.key(2), (2, 8, 3)), [5, 3]
    noise = jax.jit(lambda tokens, lengths: made.forward(params, x, made.condition.told(tokens, lengths)))
    plain, none = noise(tokens, lengths), noise(tokens, [0, 0])
    padded = noise(tokens.at[1, 3:].set(1e4), lengths)
    assert all((a == b).all() for a, b in zip(plain, padded, strict=True))
    nothing = noise(tokens.at[:].set(7.0), [0, 0])
    assert all((a == b).all() for a, b in zip(none, nothing, strict=True))
    assert float(jnp.abs(plain[0] - none[0]).max()) > 1e-2
    short = made.forward(params, x[1:], made.condition.told(tokens[1:, :3], [3]))
    short = noise(tokens[:, :3], [3, 3])
    np.testing.assert_allclose(noise(tokens, [3, 3])[0], short[0], atol=1e-6)
    for place in range(5):
        moved = jnp.abs(noise(tokens.at[0, place].add(1.0), lengths)[0] - plain[0]).max(axis=(1, 2))
        assert moved[0] > 1e-3 and moved[1] == 0, place


@pytest.mark.slow
def test_a_flow_told_a_text_is_inverted_from_its_cache_alone_and_in_blocks():
    made = reader(denoise=False)
    params, tokens = weights(made), jax.random.normal(jax.random.key(4), (2, 5, 6))
    condition, keys = made.condition.told(tokens, [5, 2]), jax.random.split(jax.random.key(3), 2)
    blocks = dataclasses.replace(made, block=4, iterations=4)

    @jax.jit
    def drawn(condition: Any) -> Any:
        x = made.sample(params, keys, condition, PLAIN)
        e, change = made.forward(params, x, condition)
        jacobian = jax.jacfwd(lambda x: made.forward(params, x, condition)[0][1])(x)[:, :, 1]
        guided = [each.sample(params, keys, condition, GUIDED) for each in (made, blocks)]
        return x, e, change, jacobian, blocks.sample(params, keys, condition, PLAIN), guided

    x, e, change, jacobian, in_blocks, guided = drawn(condition)
    np.testing.assert_allclose(e, initial_noise(keys, made.shape), atol=1e-4)
    _, volume = np.linalg.slogdet(np.asarray(jacobian, np.float64).reshape(24, 24))
    assert float(change[1]) == pytest.approx(volume, abs=1e-4) and abs(volume) > 0.1
    np.testing.assert_allclose(in_blocks, x, atol=1e-4)
    np.testing.assert_allclose(*guided, atol=1e-4)
    assert float(jnp.abs(guided[0] - x).max()) > 1e-2
    elsewhere = drawn({**condition, "tokens": tokens.at[1, 2:].set(1e4)})
    assert (elsewhere[0] == x).all() and (elsewhere[5][0] == guided[0]).all()
