"""Every stage's program from shapes alone is the one that really runs."""

import jax
import pytest
from running import TINY

from fae_jax.compiler.programs import STAGES, Shapes, batch_shapes, lower
from fae_jax.compiler.weigh import per_device
from fae_jax.config import check, load_config, override
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages import stage_of
from fae_jax.stages.costs import forward_multiply_adds, image_flops
from fae_jax.stages.running import as_drawn

CONFIG = load_config(str(TINY))


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "post_training"])
def test_every_stage_lowers_without_data_or_weights(stage: str):
    program = lower(CONFIG, stage, make_mesh())
    assert program.batch == {"cache": 16, "sample": 5}.get(stage, 8)
    assert per_device(program.state) > 0
    assert "stablehlo" in program.lowered.as_text()[:5000]


def test_stored_features_come_in_place_of_images_and_encoder():
    """tiny: 16 tokens of 16 channels; the pixel decoder sees images beside them."""
    stored = override(CONFIG, [("data.features", "features")])
    program = lower(stored, "features", make_mesh())
    inputs = program.lowered.as_text().split("@main(", 1)[1].split(") ->", 1)[0]
    assert "tensor<8x16x16xf16>" in inputs and "x3xui8>" not in inputs
    assert per_device(program.state) < per_device(lower(CONFIG, "features", make_mesh()).state)
    shapes = batch_shapes(Shapes(stored, make_mesh()), stage_of("pixels"))
    assert shapes["features"].shape == (8, 16, 16) and shapes["image"].shape == (8, 32, 32, 3)


def test_a_step_has_the_gradients_dtype_of_the_configuration(monkeypatch: pytest.MonkeyPatch):
    def refuse(players: object, parts: int, seed: int, mesh: object, gradients: str) -> None:
        raise InterruptedError(f"asked for {gradients}")

    monkeypatch.setattr("fae_jax.compiler.programs.compile_step", refuse)
    with pytest.raises(InterruptedError, match="asked for bfloat16"):
        lower(override(CONFIG, [("compute.gradients", "bfloat16")]), "features", make_mesh())


def test_a_published_encoder_needs_no_weights():
    paper = override(load_config("imagenet256_dinov2g"), [("encoder.name", "dinov2_s14"), ("data.image_size", "64")])
    paper = override(paper, [("feature_decoder.transformer.heads", "6"), ("compressor.attention.heads", "2")])
    shapes = Shapes(paper, make_mesh())
    assert shapes.tokenizer.grid == (4, 4) and shapes.tokenizer.width == 384
    for part in stage_of("finetune").frozen_parts(shapes.config):
        assert {type(leaf) for leaf in jax.tree.leaves(shapes.params(part))} == {jax.ShapeDtypeStruct}, part
    assert stage_of("finetune").frozen == ("encoder", "compressor", "feature_decoder")


@pytest.mark.parametrize(("stage", "field"), [("sample", "sampling.batch"), ("pixels", "pixels.batch")])
def test_a_batch_that_does_not_divide_names_its_field(stage: str, field: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fae_jax.compiler.programs.batch_divisor", lambda mesh: 7)
    with pytest.raises(ValueError, match=f"^field {field}=. must be a multiple of 7"):
        lower(CONFIG, stage, make_mesh())


def test_a_stage_that_is_none_is_refused():
    with pytest.raises(ValueError, match="stage 'encoder' cannot be compiled; choose one of features"):
        lower(CONFIG, "encoder", make_mesh())


@pytest.mark.slow
def test_a_tower_of_text_is_beside_the_generator_without_its_weights():
    text = {"condition.kind": "text", "condition.text.tower": "minilm_l6", "condition.text.length": "7"}
    sizes = {"width": "16", "depth": "2", "heads": "2", "hidden": "24"}
    text |= {f"generator.flow_matching.mmdit.{name}": value for name, value in sizes.items()}
    config = override(
        CONFIG, [*text.items(), ("generator.flow_matching.network", "mmdit"), ("data.captions", "True")]
    )
    programs = {stage: lower(config, stage, make_mesh()) for stage in ("generator", "sample")}
    _, frozen = programs["generator"].state
    assert set(frozen) == {"text"} and per_device(frozen) == 4 * 22_565_376  # without its pooler
    for program in programs.values():
        inputs = program.lowered.as_text().split("@main(", 1)[1].split(") ->", 1)[0]
        assert f"tensor<{program.batch}x7xi32>" in inputs and f"tensor<{program.batch}x7xi1>" in inputs


def test_post_training_is_weighed_by_what_it_runs():
    """Every image is drawn in two evaluations, decoded and encoded, and slopes go all the way back."""
    config = override(CONFIG, [("post_training.steps", "1"), ("post_training.sampling_steps", "2")])
    config = override(config, [("post_training.batch", "8"), ("post_training.queue", "32")])
    program = lower(config, "post_training", make_mesh())
    assert program.batch == 8 and "reference" in program.state[1]
    parts = forward_multiply_adds(config, ("generator", "decode", "encoder"))
    least = 2 * (2 * 3 * parts["generator"] + 2 * (parts["decode"] + parts["encoder"]))
    assert least <= image_flops(config, "post_training") <= 1.15 * least
    drawn = as_drawn(check(config))
    assert drawn.sampling.steps == 2 and drawn.generator.ema == (0.999,)
    assert as_drawn(check(CONFIG)).sampling.steps == 4
