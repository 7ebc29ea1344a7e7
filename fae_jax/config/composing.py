"""From sections to a configuration and back: all fields there are, as `ConfigDict`, as frozen dataclasses, by dotted
names."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import keyword
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from fae_jax.files.names import nearest
from fae_jax.kinds import find, names, own, section_of
from fae_jax.section import Plugs, as_dict, option, seed_range, subsection

# Where each section is declared; imported when a configuration is first made.
SECTIONS = {
    "data": "fae_jax.data.section:DataSection",
    "encoder": "fae_jax.encoders.frozen:EncoderSection",
    "compressor": "fae_jax.autoencoder.kinds:CompressorSection",
    "feature_decoder": "fae_jax.autoencoder.kinds:FeatureDecoderSection",
    "pixel_decoder": "fae_jax.autoencoder.decoders:PixelDecoderSection",
    "tokenizer": "fae_jax.tokenizers:TokenizerSection",
    "condition": "fae_jax.conditions:ConditionSection",
    "pixel_losses": "fae_jax.losses.pixel:PixelLossesSection",
    "encoder_training": "fae_jax.stages.encoder:EncoderTrainingSection",
    "features": "fae_jax.stages.features:FeaturesSection",
    "pixels": "fae_jax.stages.pixels:PixelsSection",
    "finetune": "fae_jax.stages.pixels:FinetuneSection",
    "cache": "fae_jax.stages.cache:CacheSection",
    "generator": "fae_jax.stages.generator:GeneratorSection",
    "post_training": "fae_jax.stages.post_training:PostTrainingSection",
    "sampling": "fae_jax.diffusion.samplers:SamplingSection",
    "evaluation": "fae_jax.evaluation.section:EvaluationSection",
    "compute": "fae_jax.nn.compute:ComputeSection",
    "mesh": "fae_jax.parallel.mesh:MeshSection",
    "logging": "fae_jax.training.monitoring:LoggingSection",
    "checkpoint": "fae_jax.training.checkpoints:CheckpointSection",
    "watch": "fae_jax.training.watchdog:WatchSection",
}


class Field(NamedTuple):
    """What is known of a field: dotted name, default, one-line comment, whether it may differ at a restart, and
    whether it names a file or folder."""

    name: str
    default: Any
    comment: str
    operational: bool
    path: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Experiment:
    """The fields that stand in no section."""

    name: str = option("", "the experiment's name, for people", operational=True)
    seed: int = option(0, "everything random derives from (seed, step, example)", seed_range)


@functools.cache
def root() -> type:
    """The dataclass of whole configurations."""
    fields: list[tuple[str, type, Any]] = []
    for name, place in SECTIONS.items():
        module, _, attribute = place.partition(":")
        section = complete(getattr(importlib.import_module(module), attribute))
        fields.append((name, section, subsection(section)))
    return dataclasses.make_dataclass("Configuration", fields, bases=(_Experiment,), frozen=True, kw_only=True)


def complete(section: type) -> type:
    """The section with a field for every subsection: those inside it, and those that kinds bring."""
    fields: list[tuple[str, type, Any]] = []
    for field in dataclasses.fields(section):
        if isinstance(field.default_factory, type) and dataclasses.is_dataclass(field.default_factory):
            inner = complete(field.default_factory)
            fields.append((field.name, inner, dataclasses.field(default_factory=inner, metadata=field.metadata)))
        elif "plugs" in field.metadata:
            fields += _brought(field.metadata["plugs"], {"chosen by": field.name})
    if hasattr(section, "subsections"):
        fields += _brought(section.subsections, {})
    if not fields:
        return section
    return dataclasses.make_dataclass(section.__name__, fields, bases=(section,), frozen=True, kw_only=True)


def brought_section(kind: Any, name: str, group: str) -> type | None:
    """The section that the kind of that name and group brings, complete, or None where it brings none.

    Raises:
      ValueError: it cannot be part of a configuration.
    """
    section = section_of(kind)
    if section is None:
        return None
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} of the {group} has fields, and no section can be called so; rename it")
    try:
        section = complete(section)
        json.dumps(as_dict(section(), every=True))
    except TypeError as error:
        raise ValueError(f"{name!r} of the {group} has fields that no configuration holds: {error}") from error
    return section


def _brought(plugs: Plugs, metadata: Mapping[str, Any]) -> Iterator[tuple[str, type, Any]]:
    for name in names(*plugs):
        try:
            kind = own(plugs.table, name) if name in plugs.table else find(*plugs, name)
            section = brought_section(kind, name, plugs.group)
        except ValueError:
            if name in plugs.table:
                raise
            continue  # another package's, and broken: whoever chooses it is told why
        if section is None:
            continue
        more = {**metadata, "operational": False, "from elsewhere": name not in plugs.table}
        yield name, section, dataclasses.field(default_factory=section, metadata=more)


def default_config() -> ConfigDict:
    """Every field, with the paper's value where it prints one (main experiment: DINOv2-g/14, ImageNet 256)."""
    return thaw(root()())


def thaw(config: Any) -> ConfigDict:
    """A frozen configuration as a `ConfigDict` that can be changed."""
    return ConfigDict(as_dict(config, every=True)).lock()


def freeze(config: Any) -> Any:
    """A `ConfigDict` as frozen dataclasses; what is frozen already comes back as it is. Nothing is checked."""

    def build(section: type, values: Any) -> Any:
        given = {}
        for field in dataclasses.fields(section):
            if field.name in values:
                value = values[field.name]
                inner = field.default_factory
                given[field.name] = build(inner, value) if isinstance(inner, type) else value
        return section(**given)

    return config if dataclasses.is_dataclass(config) else build(root(), config)


@functools.cache
def describe_all() -> dict[str, Field]:
    """Every field by its dotted name, in order."""

    def walk(section: type, prefix: str, operational: bool) -> Iterator[Field]:
        for field in dataclasses.fields(section):
            free, inner = operational or field.metadata["operational"], field.default_factory
            if isinstance(inner, type):
                yield from walk(inner, f"{prefix}{field.name}.", free or getattr(inner, "operational", False))
            else:
                about = field.metadata
                yield Field(prefix + field.name, field.default, about["comment"], free, about.get("path", False))

    return {field.name: field for field in walk(root(), "", False)}


def describe(name: str) -> Field:
    """What is known of a field.

    Raises:
      ValueError: there is no such field; the nearest is named.
    """
    known = describe_all()
    if name not in known:
        raise ValueError(unknown(name))
    return known[name]


def is_operational(name: str) -> bool:
    """Whether a field changes how a run is carried out, watched and used, never what is trained."""
    return describe(name).operational


def unknown(name: str) -> str:
    """That a field does not exist, and which one may be meant."""
    known = list(describe_all())
    leaf = [each for each in known if each.split(".")[-1] == name.split(".")[-1]]
    section = [each for each in known if each.startswith(name.split(".")[0])]
    alike = f"did you mean {(leaf or section)[0]!r}?" if leaf or section else None
    return f"field {name} does not exist; {nearest(name, known, cutoff=0.5, otherwise=alike)}"


def flatten(config: Any, *, every: bool = True) -> dict[str, Any]:
    """{"section.field": value}, sequences as tuples.

    Args:
      config: a `ConfigDict`, a frozen configuration or a nested mapping.
      every: also the fields of kinds that are not chosen.
    """
    if dataclasses.is_dataclass(config) or not every:
        config = as_dict(freeze(config), every=every)
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat.update({f"{key}.{name}": inner for name, inner in flatten(value).items()})
        else:
            flat[key] = tuples(value)
    return flat


def tuples(value: Any) -> Any:
    """The value with tuples for lists, inside it too."""
    return tuple(tuples(item) for item in value) if isinstance(value, list | tuple) else value


def differences(ours: Any, theirs: Any) -> list[str]:
    """Fields that decide the result and differ, each as `name: theirs → ours`.

    Fields of kinds that are not chosen decide nothing; where kinds differ, the kind itself is named. Under a constant
    schedule `generator.steps` may grow: the steps that were done are those of the longer run, and without
    post-training nothing is made of the generator.
    """
    mine, other = flatten(ours, every=False), flatten(theirs, every=False)
    constant = mine["generator.schedule"] == other["generator.schedule"] == "constant"
    constant = constant and not other["post_training.steps"]
    return [
        f"{name}: {other[name]!r} → {value!r}"
        for name, value in mine.items()
        if name in other and value != other[name] and not is_operational(name)
        if not (name == "generator.steps" and constant and value > other[name])
    ]
