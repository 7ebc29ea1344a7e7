"""Refuses configurations that cannot work, before anything is computed: one line with field, value and remedy."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from fae_jax.configuration import flatten

_POSITIVE = (
    *("steps", "samples", "batch", "microbatches", "width", "depth", "heads", "hidden", "latent_width", "head_width"),
    *("image_size", "patch", "continuity_levels", "every", "keep", "shard_size", "classes", "threads", "ahead"),
)
_ZERO_IS_THE_ENCODERS = ("compressor.transformer.width", "feature_decoder.transformer.width")
_NOT_NEGATIVE = (
    *("warmup", "learning_rate", "last_learning_rate", "weight_decay", "clip", "noise", "beta"),
    *("feature_noise", "latent_noise", "structure_weight", "continuity_weight", "continuity_reach"),
    *("semantics_weight", "input_size"),
    *("reconstruction_weight", "shift", "workers", "tolerate", "preview_every", "max_skipped", "limit"),
    "pause_at",
)
TRAINED = ("encoder_training", "features", "pixels", "finetune", "generator")
_CHOICES = {
    "encoder.combine": ("mean", "sum"),
    "features.reduction": ("mean", "sum"),
    "data.crop": ("adm_centre", "random_resized"),
    "compressor.kind": ("attention", "linear", "transformer", "identity"),
    "compressor.attention.activation": ("silu", "gelu", "none"),
    "compressor.posterior.kind": ("gaussian", "fixed_variance", "rms", "sphere"),
    "feature_decoder.kind": ("transformer", "identity"),
    "tokenizer.kind": ("fae",),
    "condition.kind": ("none", "class"),
    "generator.kind": ("flow_matching",),
    "generator.flow_matching.network": ("dit",),
    "generator.flow_matching.dit.norm": ("rms", "layer"),
    "generator.flow_matching.dit.feed_forward": ("swiglu", "gelu", "gelu_tanh"),
    "sampling.sampler": ("euler", "heun", "euler_maruyama"),
    "compute.dtype": ("float32", "bfloat16"),
    "compute.residual": ("float32", "bfloat16"),
    "compute.kernel": ("auto", "xla", "cpu", "cudnn", "splash"),
    "compute.remat": ("none", "dots", "branches", "qkv", "attention", "full"),
    "evaluation.probe.linear": ("sgd", "logistic"),
    "evaluation.probe.latent_pooling": ("mean", "flat"),
    **{f"{stage}.schedule": ("constant", "cosine") for stage in TRAINED},
}


def check(config: ConfigDict) -> ConfigDict:
    """The configuration itself, where it can work.

    Raises:
      ValueError: one line naming the field, the value and the remedy.
    """
    _check_ranges(config)
    _check_sequences(config)
    _check_choices(config)
    _check_together(config)
    _check_data(config.data)
    _check_evaluation(config.evaluation)
    return config


def _check_ranges(config: ConfigDict) -> None:
    """Numbers, by what their last name means everywhere."""
    trains_encoder = config.encoder.train
    for name, value in flatten(config).items():
        leaf = name.split(".")[-1]
        if name in _ZERO_IS_THE_ENCODERS and value == 0:
            continue
        if leaf in _POSITIVE and value < 1 and (trains_encoder or not name.startswith("encoder_training.")):
            raise ValueError(f"field {name} must be at least 1, got {value}")
        if leaf in _NOT_NEGATIVE and value < 0:
            raise ValueError(f"field {name} must not be negative, got {value}")
        if leaf in ("holdout", "dropout", "caption_dropout", "mask", "label_smoothing") and not 0 <= value < 1:
            raise ValueError(f"field {name} is a share and must be in [0, 1), got {value}")
        if name in ("generator.flow_matching.train_shift", "sampling.shift") and not value > 0:
            raise ValueError(f"field {name} must be above 0, got {value}")
        if leaf == "ema" and not all(isinstance(decay, float) and 0 < decay < 1 for decay in value):
            raise ValueError(f"field {name} holds decays between 0 and 1, got {value}")
        if leaf == "betas" and not (_numbers(value, 2) and all(0 <= beta < 1 for beta in value)):
            raise ValueError(f"field {name} holds two numbers in [0, 1), got {value}")


def _check_sequences(config: ConfigDict) -> None:
    """Fields that hold several numbers, and times."""
    for name, value in config.watch.items():
        if value < 0 or (name == "hosts" and value < 1):
            raise ValueError(
                f"field watch.{name} is in seconds and must be at least {int(name == 'hosts')}, got {value}"
            )
    window = config.logging.profile
    if window and not (len(window) == 2 and all(type(n) is int for n in window) and 1 <= window[0] <= window[1]):
        raise ValueError(
            f"field logging.profile holds the first and the last step to trace, or nothing, got {window}"
        )
    if not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in config.encoder.layers):
        raise ValueError(f"field encoder.layers holds numbers of blocks, got {config.encoder.layers}")
    posterior = config.compressor.posterior
    low_high = posterior.log_variance_range
    if not (_numbers(low_high, 2) and low_high[0] < low_high[1]):
        raise ValueError(
            f"field compressor.posterior.log_variance_range holds a low and a high bound, got {low_high}"
        )
    if posterior.sigma <= 0:
        raise ValueError(f"field compressor.posterior.sigma must be above 0, got {posterior.sigma}")
    if not all(type(step) is int and step >= 1 for step in config.checkpoint.keep_at):
        raise ValueError(f"field checkpoint.keep_at holds steps of at least 1, got {config.checkpoint.keep_at}")
    for stage in ("pixels", "finetune"):
        _check_losses(f"{stage}.losses", config[stage].losses)
    guidance = config.sampling.guidance
    if not all(_numbers(interval, 3) for interval in guidance):
        raise ValueError(f"field sampling.guidance holds intervals (from, to, weight), got {guidance}")


def _check_losses(name: str, terms: Any) -> None:
    for term in terms or ((),):
        known = isinstance(term, tuple) and len(term) in (2, 3) and term[0] in ("l1", "l2")
        if not known or not _numbers(term[1:], len(term) - 1) or min(term[1:]) < 0:
            raise ValueError(
                f"field {name} holds (term, weight) or (term, weight, first step), terms l1 and l2, got {term!r}; "
                'one term is written (("l2", 1.0),)'
            )


def _check_choices(config: ConfigDict) -> None:
    flat = flatten(config)
    for name, allowed in _CHOICES.items():
        if flat[name] not in allowed:
            raise ValueError(f"field {name} must be one of {', '.join(allowed)}, got {flat[name]!r}")


def _check_together(config: ConfigDict) -> None:
    """Fields that go with one another or not."""
    pair = (config.encoder.feature_norm, config.feature_decoder.transformer.last_norm)
    if pair not in (("none", True), ("standardise", False)):
        raise ValueError(
            f"encoder.feature_norm={pair[0]!r} with feature_decoder.transformer.last_norm={pair[1]} cannot work: "
            "choose none with True (raw features) or standardise with False"
        )
    if config.feature_decoder.kind == "identity" and config.compressor.kind != "identity":
        raise ValueError(
            f"feature_decoder.kind='identity' with compressor.kind={config.compressor.kind!r} cannot work: its "
            "latents are no features; choose transformer, or identity for both"
        )
    if "://" in config.data.features:
        raise ValueError(
            f"field data.features={config.data.features!r} must be a folder on a disk that every host sees"
        )
    if config.data.heldout_path and config.data.holdout:
        raise ValueError(
            f"field data.holdout={config.data.holdout} goes with no data.heldout_path: set it to 0, or clear the path"
        )
    for stage in TRAINED:
        section = config[stage]
        if section.batch % section.microbatches:
            raise ValueError(
                f"field {stage}.microbatches={section.microbatches} must divide {stage}.batch={section.batch}"
            )
    dit = config.generator.flow_matching.dit
    for name, part in (("pixel_decoder", config.pixel_decoder), ("generator.flow_matching.dit", dit)):
        if part.width % part.heads:
            raise ValueError(f"field {name}.heads={part.heads} must divide its width {part.width}")
    if config.encoder.train and config.data.image_size % config.encoder.patch:
        raise ValueError(
            f"field data.image_size={config.data.image_size} must be a multiple of encoder.patch="
            f"{config.encoder.patch}"
        )


def _check_evaluation(section: ConfigDict) -> None:
    """Raises ValueError for values of `evaluation` that cannot work."""
    probe = section.probe
    for name in ("blocks", "neighbours"):
        if not probe[name] or not all(type(value) is int and value >= 1 for value in probe[name]):
            raise ValueError(f"field evaluation.probe.{name} holds whole numbers of at least 1, got {probe[name]}")
    if not probe.learning_rates or not all(isinstance(rate, float) and rate > 0 for rate in probe.learning_rates):
        raise ValueError(f"field evaluation.probe.learning_rates holds numbers above 0, got {probe.learning_rates}")
    if not probe.temperature > 0:
        raise ValueError(f"field evaluation.probe.temperature must be above 0, got {probe.temperature}")
    templates = section.zero_shot.templates
    if not templates or not all(isinstance(text, str) and "{}" in text for text in templates):
        raise ValueError(f"field evaluation.zero_shot.templates holds texts with {{}} for the class, got {templates}")
    if section.semantics.images < 2 or section.semantics.patches < 1:
        raise ValueError(
            "fields evaluation.semantics.images and patches must be at least 2 and 1, got "
            f"{section.semantics.images} and {section.semantics.patches}"
        )
    if not all(type(value) is int and value >= 0 for value in probe.head_classes):
        raise ValueError(f"field evaluation.probe.head_classes holds class numbers, got {probe.head_classes}")


def _check_data(data: ConfigDict) -> None:
    for part in data.mixture:
        known = isinstance(part, tuple) and len(part) == 3 and all(isinstance(word, str) for word in part[:2])
        if not known or not _numbers(part[2:], 1) or part[2] <= 0:
            raise ValueError(
                f"field data.mixture holds (source, path, weight) with weights above 0, got {part!r}; one part is "
                "written ((source, path, weight),)"
            )
    if data.mixture and (data.path or data.heldout_path):
        given = data.path or data.heldout_path
        raise ValueError(f"field data.mixture goes with no other path, got {given!r}: clear one of them")
    area = data.crop_area
    if not (_numbers(area, 2) and 0 < area[0] <= area[1] <= 1):
        raise ValueError(f"field data.crop_area holds two shares, 0 < smallest <= largest <= 1, got {area}")
    if data.features and data.crop != "adm_centre":
        raise ValueError(
            f"field data.crop={data.crop!r} goes with no data.features, which are of centre crops: clear one of them"
        )


def _numbers(value: Any, count: int) -> bool:
    """Whether `value` is a sequence of that many numbers."""
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
    )
