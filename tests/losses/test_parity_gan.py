"""The adversarial term's networks and losses against statements of their own in PyTorch, on the same weights."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from fae_jax.encoders.vit import ViTConfig  # noqa: E402
from fae_jax.extractors.dino import DINO_S8  # noqa: E402
from fae_jax.losses.pixel import gan  # noqa: E402
from fae_jax.losses.pixel.augment import augment  # noqa: E402
from fae_jax.losses.pixel.heads import BLOCKS, DinoDiscriminator  # noqa: E402
from fae_jax.losses.pixel.patch import PatchDiscriminator  # noqa: E402

pytestmark = pytest.mark.parity
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def pixels(*size: int) -> np.ndarray:
    return RANDOM.uniform(-1, 1, (*size, 3)).astype(np.float32)


def tensor(array) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def shaken(params, scale=0.1):
    """Every parameter away from 0 and 1."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + scale * normal(*leaf.shape)), params)


def same_padded(x, kernel, stride=1, groups=1):
    size = kernel.shape[-1]
    over = [max((math.ceil(n / stride) - 1) * stride + size - n, 0) for n in x.shape[-2:]]
    x = F.pad(x, [over[1] // 2, over[1] - over[1] // 2, over[0] // 2, over[0] - over[0] // 2])
    return F.conv2d(x, kernel, stride=stride, groups=groups)


def test_patch_discriminator_and_its_slope():
    network = PatchDiscriminator(channels=32, stages=2)
    params, images = shaken(network.init(jax.random.key(0))), pixels(2, 40, 48)

    def conv(own, x):
        kernel = tensor(np.asarray(own["kernel"]).transpose(3, 2, 0, 1))
        return same_padded(x, kernel) + tensor(np.asarray(own["bias"]))[:, None, None]

    def active(x):
        return F.leaky_relu(x, 0.1)

    given = tensor(images).requires_grad_()
    x = active(conv(params["in"], given.permute(0, 3, 1, 2) / 2 + 0.5))
    for stage in range(2):
        own = params[f"stage_{stage}"]
        x = conv(own["conv"], x)
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        blur = (line[:, None] * line / 64).expand(x.shape[1], 1, 4, 4)
        x = same_padded(x, blur, stride=2, groups=x.shape[1])
        x = active(F.group_norm(x, 32, *(tensor(np.asarray(own["norm"][each])) for each in ("scale", "bias"))))
    x = active(conv(params["hidden"], F.adaptive_max_pool2d(x, (16, 16))))
    want = conv(params["out"], x).flatten(1)
    want.pow(2).sum().backward()

    def total(images):
        logits, _ = network.logits(params, images, {}, {})
        return jnp.sum(logits**2), logits

    (_, got), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.asarray(images))
    assert np.abs(got - want.detach().numpy()).max() < 1e-4 * float(want.detach().abs().max())
    assert np.abs(slope - given.grad.numpy()).max() < 1e-4 * float(given.grad.abs().max())


def theirs_dino(params, x, config):
    """Patch tokens behind every block of DINO's ViT, of normalised pixels."""
    own = jax.tree.map(lambda leaf: tensor(np.asarray(leaf)), params)
    width, heads = config.width, config.heads

    def normed(own, x):
        return F.layer_norm(x, (width,), own["scale"], own["bias"], 1e-6)

    def dense(own, x):
        return x @ own["kernel"] + own["bias"]

    p = config.patch
    b, _, h, w = x.shape
    cut = x.reshape(b, 3, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * 3)
    x = torch.cat([own["cls_token"].expand(b, 1, width), dense(own["patch_embed"], cut)], 1) + own["position_table"]
    kept = []
    for layer in range(config.depth):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], own["blocks"]["block"])
        q, k, v = dense(block["attention"]["qkv"], normed(block["attention_norm"], x)).chunk(3, -1)
        q, k, v = (each.reshape(b, -1, heads, width // heads).transpose(1, 2) for each in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + dense(block["attention"]["out"], mixed)
        hidden = F.gelu(
            dense(block["feed_forward"]["hidden"], normed(block["feed_forward_norm"], x)), approximate="tanh"
        )
        x = x + dense(block["feed_forward"]["out"], hidden)
        kept.append(x[:, 1:])
    return kept


def test_dino_discriminator_with_spectral_norms_over_two_steps():
    config = dataclasses.replace(DINO_S8.config, patch=4, width=16, heads=2, hidden=32, table_grid=(4, 4))
    assert isinstance(config, ViTConfig) and config.depth == 12
    network = DinoDiscriminator(dino=dataclasses.replace(DINO_S8, config=config, side=16), size=9)
    drawn = jax.tree.map(lambda leaf: jnp.asarray(0.3 * normal(*leaf.shape)), network.dino.network.shapes)
    params, memory, images = shaken(network.init(jax.random.key(0))), network.memory(), pixels(2, 24, 20)
    given = {"dino_s8": drawn}

    resized = F.interpolate(tensor(images).permute(0, 3, 1, 2), size=(16, 16), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    seen = theirs_dino(drawn, (resized / 2 + 0.5 - mean) / std, config)
    heads = []
    for place in range(5):
        own = params[f"head_{place}"]
        layers = {}
        for name, size, width in (("first", 1, 16), ("second", 9, 16), ("out", 1, 1)):
            conv = torch.nn.Conv1d(16, width, size, padding=size // 2, padding_mode="circular")
            held = own[name]["conv"] if name != "out" else own[name]
            conv.weight.data = tensor(np.asarray(held["kernel"]).transpose(2, 1, 0))
            conv.bias.data = tensor(np.asarray(held["bias"]))
            layers[name] = torch.nn.utils.spectral_norm(conv, n_power_iterations=1, eps=1e-12)
            layers[name].weight_u.copy_(tensor(np.asarray(memory[f"head_{place}"][name])))
        heads.append(layers)

    def block(own, conv, x):
        y = conv(x)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        scale, bias = (tensor(np.asarray(own["norm"][each]))[:, None] for each in ("scale", "bias"))
        return F.leaky_relu(y * scale + bias, 0.2)

    logits = jax.jit(network.logits)
    for _ in range(2):
        got, memory = logits(params, jnp.asarray(images), given, memory)
        want = []
        for place, (layers, which) in enumerate(zip(heads, BLOCKS, strict=True)):
            own = params[f"head_{place}"]
            with torch.no_grad():
                a = block(own["first"], layers["first"], seen[which].transpose(1, 2))
                want.append(layers["out"]((block(own["second"], layers["second"], a) + a) / 2**0.5).flatten(1))
            for name, layer in layers.items():
                np.testing.assert_allclose(memory[f"head_{place}"][name], layer.weight_u, atol=1e-5)
        want = torch.cat(want, 1).numpy()
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("cutout", [0.0, 0.3])
def test_augmentation_by_the_same_numbers(cutout: float):
    images, r = pixels(4, 24, 17), RANDOM.uniform(size=(4, 7)).astype(np.float32)
    got = jax.jit(augment, static_argnums=2)(jnp.asarray(images), jnp.asarray(r), cutout)
    for x, numbers, ours in zip(tensor(images), r.astype(np.float64), got, strict=True):
        h, w = x.shape[:2]
        moved = torch.zeros_like(x)
        by = [math.floor(numbers[axis] * (2 * round(n / 8) + 1)) - round(n / 8) for axis, n in enumerate((h, w))]
        for row in range(h):
            for column in range(w):
                if 0 <= row + by[0] < h and 0 <= column + by[1] < w:
                    moved[row, column] = x[row + by[0], column + by[1]]
        x = moved + numbers[2] - 0.5
        x = (x - x.mean(-1, keepdim=True)) * 2 * numbers[3] + x.mean(-1, keepdim=True)
        x = (x - x.mean()) * (numbers[4] + 0.5) + x.mean()
        sizes = [round(n * cutout) for n in (h, w)]
        first = [math.floor(r * (n + 1 - s % 2)) - s // 2 for r, n, s in zip(numbers[5:], (h, w), sizes, strict=True)]
        rows, columns = (slice(max(f, 0), max(f + s, 0)) for f, s in zip(first, sizes, strict=True))
        x[rows, columns] = 0
        np.testing.assert_allclose(ours, x, atol=1e-5)


@pytest.mark.parametrize("kind", gan.LOSSES)
def test_losses_of_both_players(kind: str):
    real, fake = normal(3, 5), normal(3, 5)
    r, f = tensor(real), tensor(fake)
    ones, zeros = torch.ones_like(r), torch.zeros_like(r)
    crossed = F.binary_cross_entropy_with_logits(r, ones) + F.binary_cross_entropy_with_logits(f, zeros)
    of_d = {
        "hinge": (F.relu(1 - r).mean() + F.relu(1 + f).mean()) / 2,
        "vanilla": crossed / 2,
        "non_saturating": crossed,
    }
    of_g = {"hinge": -f.mean(), "vanilla": -f.mean(), "non_saturating": F.binary_cross_entropy_with_logits(f, ones)}
    ours = gan.discriminator_loss(kind, *map(jnp.asarray, (real, fake))), gan.decoder_loss(kind, jnp.asarray(fake))
    assert [float(each) for each in ours] == pytest.approx([float(of_d[kind]), float(of_g[kind])], rel=1e-5)


def test_lecam_and_r1_over_fifty_steps():
    class Product:
        """D(y) = tanh(y · w), a logit for each pixel."""

        def init(self, key): ...

        def memory(self):
            return {}

        def logits(self, params, images, given, memory):
            return jnp.tanh(images @ params).reshape(len(images), -1), {}

    section = gan.AdversarialSection(lecam=0.3, lecam_decay=0.9, r1=0.2, loss="hinge")
    term = gan.Adversarial(section=section, network=Product())
    memory, keys, w = term.player.memory(), jax.random.split(jax.random.key(0), 2), normal(3)
    step = jax.jit(
        jax.value_and_grad(
            lambda w, *args: (lambda loss, _, measured: (loss, measured))(*term.discriminate(w, *args)), has_aux=True
        )
    )
    alpha = {"real": 0.0, "fake": 0.0}
    for number in range(50):
        real, fake = pixels(2, 4, 4) + 0.2, pixels(2, 4, 4) - 0.2
        given = {"memory": {"gan": memory}}
        (loss, measured), slope = step(jnp.asarray(w), jnp.asarray(fake), jnp.asarray(real), given, keys)
        memory = term.remember(memory, measured, jnp.asarray(number))

        parameter, image = tensor(w).requires_grad_(), tensor(real).requires_grad_()
        d_real, d_fake = (torch.tanh(x @ parameter) for x in (image, tensor(fake)))
        (towards,) = torch.autograd.grad(d_real.sum(), image, create_graph=True)
        want = (F.relu(1 - d_real).mean() + F.relu(1 + d_fake).mean()) / 2
        want = want + 0.3 * (F.relu(d_real - alpha["fake"]) ** 2).mean()
        want = want + 0.3 * (F.relu(alpha["real"] - d_fake) ** 2).mean()
        want = want + 0.2 / 2 * towards.pow(2).sum((1, 2, 3)).mean()
        want.backward()
        for name, d in (("real", d_real), ("fake", d_fake)):
            alpha[name] = 0.9 * alpha[name] + 0.1 * float(d.detach().mean())
        assert float(loss) == pytest.approx(float(want.detach()), rel=1e-4)
        np.testing.assert_allclose(slope, parameter.grad, rtol=1e-3, atol=1e-5)
        w = w - 0.1 * np.asarray(slope)
    assert {name: float(memory[name]) for name in alpha} == pytest.approx(alpha, rel=1e-4)
    assert abs(alpha["real"] - alpha["fake"]) > 0.05


def test_the_adaptive_weight_by_autograd_at_the_last_layer():
    from fae_jax.losses.pixel import Term, Weighed, adapt, pixel_loss

    class Towards(Term):
        adaptive = True

        def __call__(self, decoded, images, given, keys):
            return jnp.mean(jnp.sin(3 * decoded))

    hidden, kernel, images = normal(2, 4, 5), normal(5, 12), pixels(2, 4, 4)
    terms = (Weighed("l1", lambda a, b: jnp.mean(jnp.abs(a - b)), 0.7, 0), Weighed("gan", Towards(), 0.5, 0))

    def ours(kernel, weight):
        decoded = (hidden @ kernel).reshape(2, 4, 4, 3)
        project = lambda slope: jnp.einsum("bnd,bnp->dp", hidden, slope.reshape(2, 4, 12))
        total, _, measured = pixel_loss(
            terms, decoded, jnp.asarray(images), jnp.zeros(()), {}, None, {"gan": weight}, project
        )
        return total, measured

    last = tensor(kernel).requires_grad_()
    decoded = (tensor(hidden) @ last).reshape(2, 4, 4, 3)
    rest, towards = 0.7 * (decoded - tensor(images)).abs().mean(), torch.sin(3 * decoded).mean()
    (g_rest,), (g_towards,) = (torch.autograd.grad(each, last, retain_graph=True) for each in (rest, towards))
    weight = (g_rest.norm() / (g_towards.norm() + 1e-6)).clamp(0, 1e4)
    (rest + 0.5 * weight * towards).backward()
    (total, measured), slope = jax.value_and_grad(ours, has_aux=True)(jnp.asarray(kernel), jnp.asarray(float(weight)))
    assert float(total) == pytest.approx(float((rest + 0.5 * weight * towards).detach()), rel=1e-5)
    np.testing.assert_allclose(slope, last.grad, rtol=1e-4, atol=1e-6)
    made = adapt(terms, {"gan": jnp.zeros(())}, measured, jnp.zeros(()))
    assert float(made["gan"]) == pytest.approx(float(weight), rel=1e-4)
    unseen = Weighed("gan", Towards(), 0.5, 9)
    assert float(adapt((unseen,), {"gan": jnp.asarray(3.0)}, measured, jnp.zeros(()))["gan"]) == 3
