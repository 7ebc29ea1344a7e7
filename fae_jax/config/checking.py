"""Refuses configurations that cannot work, before anything is computed: one line with field, value and remedy."""

from __future__ import annotations

import dataclasses
from typing import Any

from fae_jax.config.composing import brought_section, describe, flatten, freeze
from fae_jax.kinds import find, names
from fae_jax.section import Plugs, is_chosen, validate


def check(config: Any) -> Any:
    """The configuration, frozen and with its norms chosen, where it can work.

    Args:
      config: a `ConfigDict`, or a configuration that is frozen already.

    Raises:
      ValueError: one line naming the field, the value and the remedy.
    """
    if not dataclasses.is_dataclass(config):
        for name in flatten(config):
            describe(name)
    frozen = _with_norms(freeze(config))
    _check_kinds(frozen, "")
    validate(frozen)
    _check_together(frozen)
    return frozen


def _check_kinds(section: Any, prefix: str) -> None:
    """Every kind that is chosen exists and can be loaded."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            if is_chosen(section, field):
                _check_kinds(value, f"{prefix}{field.name}.")
        elif "plugs" in field.metadata:
            plugs: Plugs = field.metadata["plugs"]
            if value not in names(*plugs):
                raise ValueError(
                    f"field {prefix}{field.name} must be one of {', '.join(names(*plugs))}, got {value!r}"
                )
            try:
                brought_section(find(plugs.group, plugs.table, value), value, plugs.group)
            except ValueError as error:
                raise ValueError(f"field {prefix}{field.name}: {error}") from error


def _with_norms(config: Any) -> Any:
    """With what `auto` and None stand for: a norm of features for the encoder, and a decoder that goes with it."""
    norm, decoder = config.encoder.chosen_norm, config.feature_decoder
    if decoder.transformer.last_norm is None:
        transformer = dataclasses.replace(decoder.transformer, last_norm=norm == "none")
        decoder = dataclasses.replace(decoder, transformer=transformer)
    encoder = dataclasses.replace(config.encoder, feature_norm=norm)
    return dataclasses.replace(config, encoder=encoder, feature_decoder=decoder)


def _check_together(config: Any) -> None:
    """Fields of different sections that go with one another or not."""
    compressor, decoder = config.compressor.kind, config.feature_decoder.kind
    pair = (config.encoder.feature_norm, config.feature_decoder.transformer.last_norm)
    if decoder == "transformer" and pair not in (("none", True), ("standardise", False)):
        raise ValueError(
            f"encoder.feature_norm={pair[0]!r} with feature_decoder.transformer.last_norm={pair[1]} cannot work: "
            "choose none with True (raw features) or standardise with False"
        )
    if decoder == "identity" and compressor != "identity":
        raise ValueError(
            f"feature_decoder.kind='identity' with compressor.kind={compressor!r} cannot work: its latents are no "
            "features; choose transformer, or identity for both"
        )
    if config.encoder.train and config.encoder_training.steps < 1:
        raise ValueError(
            f"field encoder_training.steps must be at least 1, got "
            f"{config.encoder_training.steps}: encoder.train=True"
        )
    if config.encoder.train and config.data.image_size % config.encoder.patch:
        raise ValueError(
            f"field data.image_size={config.data.image_size} must be a multiple of encoder.patch="
            f"{config.encoder.patch}"
        )
