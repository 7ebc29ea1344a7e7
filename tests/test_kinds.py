"""Kinds from tables and from other packages: found, refused in one line, and broken ones left out of the way."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from every_section import forget

from fae_jax.config import check, default_config, differences, from_json, override, to_json
from fae_jax.kinds import find, names, section_of

TABLE = {"dumps": "json:dumps", "module": "json"}

PLUGS = """
import dataclasses
from fae_jax.section import at_least, option

@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    sharpness: int = option(3, "how sharp", at_least(1))

class Kind:
    Section = Section

    @staticmethod
    def build(section, *, grid, width, compute):
        return ("built", section.convolutional.sharpness, grid, width)

class Odd:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Section:
        value: object = option(object(), "what no configuration can hold")
"""


def install(folder: Path, package: str, entry_points: str) -> None:
    """What pip leaves of a package that has entry points."""
    info = folder / f"{package}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two packages with kinds, some of them broken."""
    (tmp_path / "their_plugs.py").write_text(PLUGS)
    (tmp_path / "broken_plugs.py").write_text("import nowhere_at_all")
    install(
        tmp_path,
        "theirs",
        "[fae_jax.things]\nown = json:loads\ntwice = json:loads\nmodule = json:loads\nbroken = broken_plugs:Kind\n"
        "[fae_jax.compressors]\nconvolutional = their_plugs:Kind\nbroken = broken_plugs:Kind\n"
        "class = their_plugs:Kind\nodd = their_plugs:Odd\nlinear = their_plugs:Kind\n"
        "[fae_jax.pixel_losses]\nsharp = their_plugs:Kind\nodd = their_plugs:Odd\n",
    )
    install(tmp_path, "others", "[fae_jax.things]\ntwice = json:dumps\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path
    monkeypatch.undo()
    sys.modules.pop("their_plugs", None)
    forget()


def test_a_table_says_where_kinds_are():
    import json

    assert find("things", TABLE, "dumps") is json.dumps and find("things", TABLE, "module") is json
    assert names("things", TABLE) == ["dumps", "module"]
    with pytest.raises(ValueError, match=r"^'dmps' is none of the things; did you mean 'dumps'\?$"):
        find("things", TABLE, "dmps")


def test_other_packages_bring_kinds(packages: Path):
    import json

    assert find("things", TABLE, "own") is json.loads
    assert names("things", TABLE) == ["dumps", "module", "broken", "own", "twice"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("twice", r"'twice' of the things comes from others 1\.2 and theirs 1\.2; uninstall one of them"),
        ("module", r"'module' of the things comes from fae_jax and theirs 1\.2; uninstall one of them"),
        (
            "broken",
            r"'broken' of the things cannot be loaded from the package theirs 1\.2 \(ModuleNotFoundError: No module "
            r"named 'nowhere_at_all'\); repair or uninstall it",
        ),
        ("onw", r"'onw' is none of the things; did you mean 'own'\?"),
    ],
)
def test_kinds_that_cannot_be_had_are_refused_in_one_line(packages: Path, name: str, message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        find("things", TABLE, name)


def test_a_kind_brings_its_section_or_is_one():
    options = dataclasses.make_dataclass("Options", [("x", int, dataclasses.field(metadata={"operational": False}))])
    assert section_of(type("Kind", (), {"Section": options})) is options and section_of(options) is options
    assert section_of(dataclasses.make_dataclass("Network", [("width", int)])) is None
    assert section_of(find("things", TABLE, "module")) is None


def test_a_kind_of_another_package_has_its_fields_in_the_configuration(packages: Path):
    from fae_jax.autoencoder.kinds import make_compressor

    config = override(
        default_config(), [("compressor.kind", "convolutional"), ("compressor.convolutional.sharpness", "5")]
    )
    frozen = check(config)
    built = make_compressor(frozen.compressor, grid=(2, 2), width=8, compute=frozen.compute)
    assert built == ("built", 5, (2, 2), 8)
    assert check(from_json(to_json(config))).compressor.convolutional.sharpness == 5
    assert differences(config, from_json(to_json(config))) == []
    config.compressor.convolutional.sharpness = 0
    with pytest.raises(ValueError, match="field compressor.convolutional.sharpness must be at least 1, got 0"):
        check(config)


def test_a_broken_package_is_in_nobodys_way_until_it_is_chosen(packages: Path):
    config = default_config()
    assert "broken" not in config.compressor and "class" not in config.compressor and "odd" not in config.pixel_losses
    check(config)
    message = "field compressor.kind: 'broken' of the compressors cannot be loaded from the package theirs 1.2 "
    with pytest.raises(ValueError, match=message):
        check(override(config, [("compressor.kind", "broken")]))
    assert "linear" not in config.compressor  # ours has no fields; theirs of the same name is not heard of
    with pytest.raises(ValueError, match="field compressor.kind: 'linear' of the compressors comes from fae_jax and"):
        check(override(config, [("compressor.kind", "linear")]))
    with pytest.raises(ValueError, match="'class' of the compressors has fields, and no section can be called so"):
        check(override(config, [("compressor.kind", "class")]))
    with pytest.raises(ValueError, match="'odd' of the compressors has fields that no configuration holds"):
        check(override(config, [("compressor.kind", "odd")]))
    with pytest.raises(ValueError, match="field compressor.kind must be one of attention, .*, broken, .*got 'conv'"):
        check(override(config, [("compressor.kind", "conv")]))


def test_what_a_package_brings_beside_is_written_only_where_it_was_set(packages: Path):
    config = default_config()
    assert config.pixel_losses.sharp.sharpness == 3 and "sharp" not in to_json(config)
    changed = override(config, [("pixel_losses.sharp.sharpness", "4")])
    assert "sharp" in to_json(changed)
    assert differences(changed, config) == ["pixel_losses.sharp.sharpness: 3 → 4"]
    assert (
        check(override(config, [("pixels.losses", "(('l2', 1.0), ('sharp', 0.5, 100))")])).pixels.losses[1][0]
        == "sharp"
    )
