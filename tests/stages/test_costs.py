"""The cost of an experiment against published figures, and how stages add theirs up."""

import re

import pytest
from running import TINY

from fae_jax.config import check, load_config, override
from fae_jax.config.overriding import shipped_configs
from fae_jax.parallel.chips import CHIPS
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages import stage_of
from fae_jax.stages.costs import forward_multiply_adds, image_flops, losses_multiply_adds, step_flops
from fae_jax.stages.outline import Shapes, per_device
from fae_jax.training.loop import abstract_state

PAPER = load_config("imagenet256_dinov2g")
PARTS = ("encoder", "compressor", "feature_decoder", "pixel_decoder", "generator")


@pytest.fixture(scope="module")
def paper() -> dict[str, int]:
    return forward_multiply_adds(PAPER, PARTS)


@pytest.mark.parametrize(
    ("network", "billions"),  # published, at 256 tokens
    [
        ("encoder", 299.2),
        ("compressor", 10.6),
        ("feature_decoder", 44.7),
        ("pixel_decoder", 81.2),
        ("generator", 118.6),
    ],
)
def test_the_papers_networks(paper: dict[str, int], network: str, billions: float):
    assert paper[network] / 1e9 == pytest.approx(billions, rel=0.003)


@pytest.mark.parametrize(("encoder", "heads", "billions"), [("dinov2_b14", 12, 23.4), ("dinov2_l14", 16, 80.9)])
def test_other_encoders_need_no_weights(encoder: str, heads: int, billions: float):
    config = override(PAPER, [("encoder.name", encoder), ("feature_decoder.transformer.heads", str(heads))])
    assert forward_multiply_adds(config, ("encoder",))["encoder"] / 1e9 == pytest.approx(billions, rel=0.01)


def test_neither_the_loop_nor_remat_changes_a_count():
    tiny = load_config(str(TINY))
    counts = forward_multiply_adds(tiny, PARTS)
    other = override(tiny, [("compute.scan", "False"), ("compute.remat", "full"), ("compute.dtype", "bfloat16")])
    assert forward_multiply_adds(other, PARTS) == counts
    deeper = forward_multiply_adds(override(tiny, [("generator.flow_matching.dit.depth", "3")]), ("generator",))[
        "generator"
    ]
    deepest = forward_multiply_adds(override(tiny, [("generator.flow_matching.dit.depth", "5")]), ("generator",))[
        "generator"
    ]
    assert deepest - deeper == deeper - counts["generator"]


def test_a_stage_is_three_times_what_it_trains_and_once_what_it_reads(paper: dict[str, int]):
    assert image_flops(PAPER, "generator") == 6 * paper["generator"]  # 0.712 TFLOP an image
    assert image_flops(PAPER, "generator") / 1e12 == pytest.approx(0.712, rel=1e-3)
    assert step_flops(PAPER, "generator") == 512 * 6 * paper["generator"]
    features = 3 * (paper["compressor"] + paper["feature_decoder"]) + paper["encoder"]
    assert image_flops(PAPER, "features") == 2 * features
    finetune = image_flops(PAPER, "finetune") - image_flops(PAPER, "pixels")
    assert finetune == 2 * (paper["compressor"] + paper["feature_decoder"])


def test_the_cost_in_a_configurations_header_is_of_all_stages():
    header = re.search(r'"""(.+?)"""', (shipped_configs() / "imagenet256_dinov2g.py").read_text(), re.S)[1]
    config, total = check(PAPER), 0.0
    for stage in ("features", "pixels", "finetune", "cache", "generator"):
        images = 2 * 1_281_167 if stage == "cache" else getattr(config, stage).steps * getattr(config, stage).batch
        flops = images * image_flops(config, stage)
        total += flops
        assert f"{stage} {flops / 1e18:,.0f} " in header or f"{stage} {flops / 1e18:,.0f}," in header
    assert f"together {total / 1e18:,.0f}." in " ".join(header.split())
    for chip, word in (("v4", "v4"), ("v5p", "v5p"), ("v6e", "v6e"), ("h100", "H200"), ("a100-80", "A100")):
        (teraflops,) = (each.teraflops for each in CHIPS if each.name == chip)
        assert re.search(rf"{word}\s{total / (teraflops * 1e12 / 2) / 3600:,.0f}\b", header), chip


def test_a_sample_counts_its_evaluations(paper: dict[str, int]):
    unguided = override(PAPER, [("sampling.guidance", "()"), ("sampling.steps", "50")])
    guided = override(PAPER, [("sampling.guidance", "((0.0, 1.0, 2.0),)"), ("sampling.steps", "50")])
    decoding = 2 * (paper["feature_decoder"] + paper["pixel_decoder"])
    assert image_flops(unguided, "sample") == 2 * 50 * paper["generator"] + decoding
    assert image_flops(guided, "sample") == 2 * 100 * paper["generator"] + decoding


def test_a_stage_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"'generate' is none of the stages; did you mean 'generator'\?"):
        image_flops(PAPER, "generate")


def test_features_that_are_kept_need_no_encoder(paper: dict[str, int]):
    kept = override(PAPER, [("data.features", "somewhere")])
    assert image_flops(PAPER, "pixels") - image_flops(kept, "pixels") == 2 * paper["encoder"]
    assert image_flops(kept, "cache") == image_flops(PAPER, "cache")


def vgg(side: int) -> int:
    """Multiply-adds of the 13 convolutions of VGG16."""
    widths = ((3, 64), (64, 64)), ((64, 128), (128, 128)), ((128, 256), *[(256, 256)] * 2)
    stages = (*widths, ((256, 512), *[(512, 512)] * 2), [(512, 512)] * 3)
    return sum((side >> place) ** 2 * 9 * a * b for place, stage in enumerate(stages) for a, b in stage)


def patch_gan(side: int, widths: tuple[int, ...]) -> int:
    """Those of PatchGAN's discriminator D for one image: the decoder's term has D forward and back, D's own step two
    images there and twice back, but for the slopes at the images; its blur is sums."""
    first = side**2 * 25 * 3 * widths[0]
    pairs = enumerate(zip(widths, widths[1:], strict=False))
    d = first + sum((side >> place) ** 2 * 9 * a * b for place, (a, b) in pairs)
    d += 16**2 * (widths[-1] ** 2 + 25 * widths[-1])
    return 2 * d + 2 * (3 * d - first)


def test_losses_count_what_they_look_through():
    """By hand; through a frozen network goes the image forward, the decoded one forward and back."""
    base = override(load_config(str(TINY)), [("data.image_size", "64"), ("pixel_losses.gan.channels", "32")])
    both = override(base, [("pixels.losses", '(("l1", 1.0), ("lpips", 1.0), ("gan", 1.0, 4))')])
    by_hand = 3 * vgg(64) + patch_gan(64, (32, 32, 64, 128))
    assert (losses_multiply_adds(base, "pixels"), losses_multiply_adds(both, "pixels")) == (0, by_hand)
    assert image_flops(both, "pixels") - image_flops(base, "pixels") == 2 * by_hand


def test_the_losses_networks_are_in_the_state():
    """Bytes that a step holds: what is looked through once, the discriminator with both moments."""
    changes = [("pixels.losses", '(("lpips", 1.0), ("gan", 1.0))'), ("pixel_losses.lpips.trunk", "alex")]
    held = []
    for chosen in ([], changes):
        shapes = Shapes(override(load_config(str(TINY)), [*chosen, ("encoder.train", "True")]), make_mesh())
        stage = stage_of("pixels")
        held.append(per_device((abstract_state(stage.players(shapes), shapes.mesh), stage.frozen_params(shapes))))
    alex = 64 * 3 * 121 + 192 * 64 * 25 + 384 * 192 * 9 + 256 * 384 * 9 + 256 * 256 * 9 + 2 * (64 + 192 + 384 + 512)
    convolutions = 75 * 128 + 9 * 128 * (128 + 256) + 9 * 256 * 512 + 512 * (512 + 25)
    biases_and_norms = 128 + 3 * (128 + 256 + 512) + 512 + 1
    assert held[1] - held[0] == 4 * (alex + 3 * (convolutions + biases_and_norms) + 2 + 2)  # averages, counts


@pytest.mark.slow
def test_the_presets_at_the_papers_size():
    """ConvNeXt-S costs 8.7 (published); DINO ViT-S/8 sees 785 tokens at 224, and each of its heads 784."""
    titok, rae = (
        losses_multiply_adds(override(PAPER, [("pixels.preset", preset)]), "pixels") for preset in ("titok", "rae")
    )
    assert titok == pytest.approx(3 * vgg(256) + 3 * 8.7e9 + patch_gan(256, (128, 128, 256, 512)), rel=0.002)
    dense, attention, heads = 12 * 785 * 12 * 384**2, 12 * 2 * 785**2 * 384, 5 * 784 * 10 * 384**2
    assert rae == pytest.approx(3 * vgg(256) + 4 * dense + 5 * attention + 8 * heads, rel=0.01)
