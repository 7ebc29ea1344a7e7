"""Fields, overrides and comparisons, and what is refused with which words."""

import dataclasses
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from fae_jax.compiler.programs import Shapes
from fae_jax.config import (
    check,
    default_config,
    describe,
    differences,
    flatten,
    from_json,
    is_operational,
    load_config,
    override,
    settle,
    shipped_configs,
    to_json,
    with_values,
)
from fae_jax.config.overriding import load_protocol
from fae_jax.nn.params import count
from fae_jax.parallel.mesh import make_mesh
from fae_jax.parts import generator_of

SHIPPED = sorted(
    path
    for folder in (shipped_configs(), shipped_configs() / "paper")
    for path in folder.glob("*.py")
    if path.stem != "__init__"
)
DIT = "generator.flow_matching.dit"


def test_every_field_has_a_default_and_one_line_of_comment():
    fields = flatten(default_config())
    assert len(fields) > 180
    for name, value in fields.items():
        field = describe(name)
        assert field.default == value and field.comment and "\n" not in field.comment, name
        assert not field.comment.startswith("of "), name
    with pytest.raises(ValueError, match="field seeed does not exist; did you mean 'seed'?"):
        describe("seeed")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load_pass_the_check_and_survive_json(path: Path):
    config = check(load_config(str(path)))
    name = str(path.relative_to(shipped_configs()).with_suffix(""))
    assert config.name == path.stem and check(config) == config == check(load_config(name))
    written = from_json(to_json(config))
    assert flatten(written, every=False) == flatten(config, every=False)
    assert differences(config, written) == differences(written, config) == []
    assert flatten(from_json(to_json(config, every=True))) == flatten(config)
    assert (path.read_text().split('"""')[1]).strip(), "the header says what the experiment is"


@pytest.mark.parametrize("name", ["imagenet_50k", "coco_30k"])
def test_a_protocol_sets_fields_that_may_differ_after_training_and_an_override_sets_them_anew(name: str):
    protocol = load_protocol(name)
    trained = settle(load_config("cc12m_dinov2g_256" if name == "coco_30k" else "imagenet256_dinov2g"), ())
    scored = settle(trained, [*protocol, ("sampling.steps", "9")])
    fields = scored.evaluation.generation
    assert (fields.unguided_sampler, fields.guided_sampler) == ("euler_maruyama", "euler")
    assert (scored.evaluation.samples, scored.sampling.steps) == (
        {"imagenet_50k": 50_000, "coco_30k": 30_000}[name],
        9,
    )
    assert "fid" in fields.metrics and scored.sampling.dtype == "float32"
    assert all(is_operational(field) for field, _ in protocol)


def test_a_protocol_of_ones_own_is_checked(tmp_path: Path):
    (tmp_path / "mine.py").write_text("def get_protocol():\n    return {'sampling.stepps': 3}\n")
    with pytest.raises(ValueError, match="protocol .*mine.py: .*sampling.stepps.*did you mean 'sampling.steps'"):
        load_protocol(str(tmp_path / "mine.py"))
    with pytest.raises(FileNotFoundError, match="imagenet_50k"):
        load_protocol("imagenet_60k")


def test_rows_of_the_papers_tables_differ_in_their_own_fields():
    rows = {path.stem: check(load_config(str(path))) for path in SHIPPED if path.parent.name == "paper"}
    main, flow = check(load_config("imagenet256_dinov2g")), "generator.flow_matching"
    schedule = {"name", "generator.steps", "checkpoint.keep_at"}
    shift = {f"{flow}.train_shift", "sampling.shift"}
    sit = shift | {f"{flow}.dit.{name}" for name in ("norm", "feed_forward", "hidden", "rotary")}
    transformer = {"compressor.kind", "compressor.transformer.depth"}
    own = {
        "no_shift": shift,
        **dict.fromkeys(("width_48", "width_64"), shift | {"compressor.latent_width"}),
        "sit": sit,
        "sit_swiglu": sit - {f"{flow}.dit.feed_forward", f"{flow}.dit.hidden"},
        "sit_swiglu_rope": shift | {f"{flow}.dit.norm"},
        "sit_swiglu_rope_rms": shift,
        "encoder_linear": sit | {"compressor.kind"},
        "encoder_4_layers": sit | transformer,
        "encoder_6_layers": sit | {"compressor.kind"},  # six is the default
        "uncompressed": sit | {"compressor.kind", "feature_decoder.kind"},
    }
    for name, fields in own.items():
        ours, theirs = flatten(rows[name]), flatten(main)
        assert {field for field in ours if ours[field] != theirs[field]} == fields | schedule, name


def test_the_papers_main_experiment_has_the_papers_parameters():
    shapes = Shapes(load_config("imagenet256_dinov2g"), make_mesh())
    counts = {part: count(shapes.tokenizer.shapes(part)) for part in shapes.tokenizer.trained}
    assert counts == {"compressor": 38_166_592, "feature_decoder": 170_428_416, "pixel_decoder": 305_360_896}
    generator = generator_of(shapes)
    counted = count(shapes.params("generator")) + generator.network.fixed_values
    assert counted == 675_256_736


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("features.steps", "12", 12),
        ("features.beta", "1", 1.0),
        ("features.beta", "5e-3", 5e-3),
        ("encoder.train", "True", True),
        ("encoder.train", "false", False),
        ("data.path", "a b/c", "a b/c"),
        ("data.path", "17", "17"),
        ("pixels.ema", "(0.9, 0.99)", (0.9, 0.99)),
        ("pixels.ema", "[0.9]", (0.9,)),
        ("pixels.ema", "0.9", (0.9,)),
        ("sampling.guidance", "[[0, 0.7, 2]]", ((0, 0.7, 2),)),
    ],
)
def test_overrides_are_read_as_the_fields_type(name: str, text: str, value: object):
    config = default_config()
    changed = override(config, [(name, text)])
    assert flatten(changed)[name] == value and type(flatten(changed)[name]) is type(value)
    assert flatten(config) == flatten(default_config()), "the given configuration was changed"
    assert flatten(from_json(to_json(changed))) == flatten(changed)
    assert flatten(override(check(config), [(name, text)]))[name] == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("features.steps", "many"),
        ("features.steps", "3.5"),
        ("features.steps", "True"),
        ("features.steps", ""),
        ("features.beta", "'1'"),
        ("features.beta", "{[]: 1}"),
        ("encoder.train", "1"),
        ("encoder.train", "yes"),
        ("pixels.ema", "nought"),
        ("pixels.noise", "(" * 500),
    ],
)
def test_text_of_another_type_is_refused_with_field_type_and_value(name: str, text: str):
    with pytest.raises(ValueError) as caught:
        override(default_config(), [(name, text)])
    kind = type(flatten(default_config())[name]).__name__
    assert f"field {name} is of type {kind}" in str(caught.value) and repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("generator.step", "generator.steps"),
        ("generatr.steps", "generator.steps"),
        ("features.learning_rte", "features.learning_rate"),
        ("latent_width", "compressor.latent_width"),
        (f"{DIT}.widht", f"{DIT}.width"),
    ],
)
def test_unknown_fields_name_the_nearest(name: str, nearest: str):
    with pytest.raises(ValueError, match=f"field {name} does not exist; did you mean '{nearest}'\\?"):
        override(default_config(), [(name, "1")])


@pytest.mark.parametrize(("name", "text"), [("pixels.noise", "1e999"), ("pixels.losses", "(('l2', -1e999),)")])
def test_numbers_are_finite(name: str, text: str):
    with pytest.raises(ValueError, match=f"field {name} must be finite, got"):
        override(default_config(), [(name, text)])


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("data.path", "imgs", "{here}/imgs"),
        ("data.path", "../imgs/train-{0..3}.tar", "{above}/imgs/train-{0..3}.tar"),
        ("data.path", "~/imgs", "{home}/imgs"),
        ("data.path", "gs://bucket/imgs", "gs://bucket/imgs"),
        ("data.path", "a/b", "a/b"),  # looks like the hub's, and is not here
        ("data.path", "made/here", "{here}/made/here"),
        ("cache.path", "latents", "{here}/latents"),
        ("encoder.weights", "facebook/dinov2-giant", "facebook/dinov2-giant"),
        ("encoder.weights", "./w.safetensors", "{here}/w.safetensors"),
        ("data.path", "", ""),
        ("evaluation.retrieval.path", "captions.json", "{here}/captions.json"),
    ],
)
def test_a_path_means_the_same_wherever_the_next_command_is_typed(
    name: str, text: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here" / "made" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {"{here}": str(tmp_path / "here"), "{above}": str(tmp_path), "{home}": str(tmp_path)}
    for short, long in names.items():
        kept = kept.replace(short, long)
    assert flatten(settle(default_config(), [(name, text)]))[name] == kept


def test_the_parts_of_a_mixture_have_paths_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = settle(default_config(), [("data.mixture", "(('folder', 'x', 1.0), ('tar', 'gs://b/t', 2.0))")])
    assert config.data.mixture == (("folder", str(tmp_path / "x"), 1.0), ("tar", "gs://b/t", 2.0))


def test_a_section_is_not_a_field():
    with pytest.raises(ValueError, match="field features does not exist"):
        override(default_config(), [("features", "{}")])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("features.batch", "0"),
        ("features.batch", "-8"),
        ("features.steps", "0"),
        ("features.steps", "-1"),
        ("pixels.microbatches", "3"),
        ("generator.learning_rate", "-1"),
        ("generator.schedule", "linear"),
        ("generator.ema", "(1.5,)"),
        ("generator.ema", "('a',)"),
        ("features.betas", "(0.9,)"),
        ("features.betas", "(0.9, 1.0)"),
        ("generator.flow_matching.train_shift", "0"),
        ("condition.dropout", "1"),
        ("sampling.shift", "-0.1"),
        ("sampling.steps", "0"),
        ("sampling.sampler", "eulr"),
        ("sampling.guidance", "(1, 2)"),
        ("evaluation.samples", "0"),
        ("compressor.latent_width", "0"),
        ("compressor.kind", "conv"),
        ("compressor.attention.heads", "0"),
        ("feature_decoder.transformer.width", "-1"),
        ("compressor.posterior.kind", "flat"),
        ("compressor.posterior.sigma", "0.0"),
        ("condition.kind", "texts"),
        ("generator.kind", "gan"),
        ("generator.flow_matching.network", "unet"),
        ("checkpoint.keep_at", "(0,)"),
        ("pixels.losses", "()"),
        ("pixels.losses", "(('l3', 1.0),)"),
        ("finetune.losses", "(('l2', -1.0),)"),
        ("feature_decoder.kind", "identity"),
        ("data.features", "gs://bucket/features"),
        ("compressor.attention.activation", "tanh"),
        ("features.reduction", "sum"),
        ("compressor.posterior.log_variance_range", "(3,)"),
        ("compressor.posterior.log_variance_range", "(3, 1)"),
        ("compute.dtype", "float16"),
        ("compute.remat", "some"),
        ("data.holdout", "1.0"),
        ("data.workers", "-1"),
        (f"{DIT}.heads", "5"),
        (f"{DIT}.depth", "0"),
        ("logging.every", "0"),
        ("checkpoint.keep", "0"),
        ("feature_decoder.transformer.last_norm", "False"),
        ("encoder_training.shift", "-1"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(name: str, text: str):
    with pytest.raises(ValueError) as caught:
        check(override(default_config(), [(name, text)]))
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert text.strip("(,)").split(",")[0] in str(caught.value)


def test_held_out_images_are_a_share_or_stored_apart():
    apart = override(default_config(), [("data.heldout_path", "val")])
    assert check(apart).data.heldout_path == "val"
    with pytest.raises(ValueError, match="heldout_path='val' is also the path of the training images"):
        check(override(apart, [("data.path", "val")]))
    assert differences(apart, default_config()) == []  # so that a finished experiment may be scored on others
    with pytest.raises(ValueError, match="field data.holdout=0.1 goes with no heldout_path"):
        check(override(apart, [("data.holdout", "0.1")]))


@pytest.mark.parametrize(
    ("schedule", "fewer", "more", "same"),
    [("constant", 5, 8, True), ("constant", 8, 5, False), ("cosine", 5, 8, False)],
)
def test_a_generator_may_train_for_longer(schedule: str, fewer: int, more: int, same: bool):
    theirs = with_values(default_config(), {"generator.schedule": schedule, "generator.steps": fewer})
    ours = with_values(theirs, {"generator.steps": more})
    assert differences(ours, theirs) == ([] if same else [f"generator.steps: {fewer} → {more}"])
    assert differences(with_values(ours, {"pixels.steps": 9}), theirs)[:1] == ["pixels.steps: 1000000 → 9"]


def test_training_an_encoder_needs_steps_and_whole_patches():
    trains = override(default_config(), [("encoder.train", "True"), ("encoder.name", "vit")])
    with pytest.raises(ValueError, match="encoder_training.steps must be at least 1, got 0"):
        check(trains)
    odd = override(trains, [("encoder_training.steps", "5"), ("data.image_size", "100")])
    with pytest.raises(ValueError, match="data.image_size=100 must be a multiple of encoder.patch=14"):
        check(odd)


def test_what_is_frozen_reads_like_the_configuration_and_cannot_be_changed():
    config = override(default_config(), [(f"{DIT}.width", "96"), ("sampling.guidance", "()")])
    frozen = check(config)
    assert frozen.generator.flow_matching.dit.width == 96 and frozen.compressor.posterior.sigma == 0.3
    assert frozen.pixels.losses == (("l2", 1.0),) and frozen.sampling.guidance == ()
    for section in (frozen, frozen.generator, frozen.generator.flow_matching.dit):
        with pytest.raises(dataclasses.FrozenInstanceError):
            section.name = "other"
    assert isinstance(with_values(frozen, {"seed": 3}), ConfigDict) and frozen.seed == 0


def test_differences_name_what_decides_the_result_and_nothing_else():
    ours = override(default_config(), [("features.beta", "1e-3"), ("seed", "4")])
    assert differences(ours, default_config()) == ["seed: 0 → 4", "features.beta: 0.0005 → 0.001"]
    flat = flatten(default_config(), every=False)  # fields of the kinds that are chosen
    operational = [name for name in flat if is_operational(name)]
    assert {"logging.every", "checkpoint.keep_at", "mesh.fsdp", "data.workers", "compute.remat"} <= set(operational)
    assert {"cache.path", "features.microbatches", "evaluation.probe.steps"} <= set(operational)
    other = {int: "3", bool: str(not flat["compute.scan"])}
    changes = [(name, other[type(flat[name])]) for name in operational if type(flat[name]) in other]
    changes = [(name, text) for name, text in changes if name not in ("data.in_memory", "logging.tensorboard")]
    assert differences(override(default_config(), changes), default_config()) == []
    for name in ("compute.dtype", "data.path", "generator.ema", "encoder.weights", "cache.batch"):
        assert not is_operational(name)


def test_a_field_of_a_kind_that_is_not_chosen_is_refused_once_all_overrides_are_in():
    depth, kind = ("compressor.transformer.depth", "3"), ("compressor.kind", "transformer")
    message = "field compressor.transformer.depth belongs to kind 'transformer', but compressor.kind is 'attention'"
    with pytest.raises(ValueError, match=message):
        override(default_config(), [depth])
    with pytest.raises(ValueError, match=message):
        with_values(default_config(), {depth[0]: 3})
    for order in ([depth, kind], [kind, depth]):
        assert override(default_config(), order).compressor.transformer.depth == 3


def test_kinds_that_are_not_chosen_are_neither_written_nor_compared():
    ours, theirs = default_config(), default_config()
    ours.compressor.transformer.depth = 2
    assert differences(ours, theirs) == []
    assert "transformer" not in json.loads(to_json(ours))["compressor"]
    assert check(ours).compressor.transformer.depth == 2
    ours.compressor.transformer.heads = 0
    check(ours)  # nothing reads it
    ours.compressor.kind = "transformer"
    assert differences(ours, theirs) == ["compressor.kind: 'attention' → 'transformer'"]
    content = json.loads(to_json(ours))["compressor"]
    assert "attention" not in content and content["transformer"]["depth"] == 2
    with pytest.raises(ValueError, match="field compressor.transformer.heads must be at least 1, got 0"):
        check(ours)


@pytest.mark.parametrize(
    ("encoder", "given", "norm", "last"),
    [
        ("dinov2_g14", "auto", "none", True),
        ("dinov2_b14", "auto", "standardise", False),
        ("siglip2_g16_256", "auto", "standardise", False),
        ("dinov2_g14", "standardise", "standardise", False),
        ("dinov2_b14", "none", "none", True),
    ],
)
def test_the_norm_of_features_goes_by_the_encoder_and_the_decoders_last_by_it(encoder, given, norm, last):
    config = check(override(default_config(), [("encoder.name", encoder), ("encoder.feature_norm", given)]))
    assert (config.encoder.feature_norm, config.feature_decoder.transformer.last_norm) == (norm, last)
    assert check(from_json(to_json(config))) == config  # what is written down is what was chosen


def test_fields_of_different_sections_that_cannot_go_together():
    with pytest.raises(ValueError, match="feature_norm='none' with .*last_norm=False cannot work: choose none with"):
        check(override(default_config(), [("feature_decoder.transformer.last_norm", "False")]))
    with pytest.raises(ValueError, match="feature_norm='standardise' with .*last_norm=True cannot work"):
        fields = [("encoder.feature_norm", "standardise"), ("feature_decoder.transformer.last_norm", "True")]
        check(override(default_config(), fields))
    identity = [("compressor.kind", "identity"), ("feature_decoder.kind", "identity")]
    check(override(default_config(), [*identity, ("encoder.feature_norm", "standardise")]))  # has no norm to go with
    with pytest.raises(ValueError, match="field features.microbatches=3 must divide batch=1024"):
        check(override(default_config(), [("features.microbatches", "3")]))
