"""Who decides a stage, and that a stage handed on is the same files and not the same names."""

from pathlib import Path
from typing import Any

import pytest
from tiny import get_config

from fae_jax.config import default_config, flatten, with_values
from fae_jax.files.moving import copy_file, names_below
from fae_jax.files.writing import write_atomically
from fae_jax.sweeps.sharing import OWN, decides, differing, hand_on, shared_stages
from fae_jax.workdir import Workdir

ALL = ("encoder", "features", "pixels", "finetune", "cache", "generator")


@pytest.mark.parametrize(
    ("field", "shared"),
    [
        ("sampling.guidance", ALL),
        ("evaluation.samples", ALL),
        ("generator.flow_matching.train_shift", ALL[:5]),
        ("generator.flow_matching.dit.depth", ALL[:5]),
        ("finetune.steps", ("encoder", "features", "pixels", "cache", "generator")),
        ("pixels.noise", ("encoder", "features", "cache", "generator")),
        ("features.beta", ("encoder", "pixels")),
        ("compressor.latent_width", ("encoder", "pixels")),
        ("encoder_training.steps", ()),
        ("data.flip", ()),
        ("seed", ()),
        ("compute.remat", ()),  # may be swept for speed, which is not shared
        ("tomorrow.field", ()),
    ],
)
def test_a_stage_is_shared_if_no_swept_field_decides_it(field: str, shared: tuple[str, ...]):
    assert shared_stages(ALL, [field]) == shared


def test_every_section_named_here_exists():
    fields = flatten(default_config())
    assert all(any(name.startswith(prefix) for name in fields) for prefixes in OWN.values() for prefix in prefixes)
    assert all(decides(f"{stage}.steps", stage) for stage in ("features", "pixels", "finetune", "generator"))


def test_experiments_are_compared_stage_by_stage():
    ours = get_config()
    theirs = with_values(
        ours, {"generator.steps": 3, "name": "another", "sampling.steps": 7, "mesh.fsdp": 4, "data.workers": 2}
    )
    assert differing("features", ours, theirs) == []
    assert differing("generator", ours, theirs) == ["generator.steps: 3 → 8"]


def test_handed_on_files_take_no_room_and_go_their_own_way(tmp_path: Path):
    source, target = Workdir(tmp_path / "a"), Workdir(tmp_path / "b")
    write_atomically(source.stage("features") / "metrics.jsonl", "one\n")
    write_atomically(source.latents / "abc" / "header.json", "{}")
    write_atomically(source.latents / "unfinished" / "shard-0.json", "{}")
    for stage in ("features", "cache"):
        hand_on(stage, source, target)
        hand_on(stage, source, target)  # what is there stays
    ours, theirs = (w.stage("features") / "metrics.jsonl" for w in (source, target))
    assert ours.stat().st_ino == theirs.stat().st_ino
    assert [path.name for path in target.latents.iterdir()] == ["abc"]
    write_atomically(theirs, "two\n")
    assert ours.read_text() == "one\n"
    assert not list(target.root.glob(".*"))


def test_half_of_a_stage_is_finished_the_next_time_and_a_whole_one_stays(
    folder: Any, monkeypatch: pytest.MonkeyPatch
):
    source, target = Workdir(folder / "a"), Workdir(folder / "b")
    for name in ("stage.json", "1", "2/3"):
        write_atomically(source.stage("features") / name, "x")
    calls = []

    def killed(*files: Any) -> None:
        calls.append(files)
        if len(calls) == 2:
            raise KeyboardInterrupt
        copy_file(*files)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("fae_jax.sweeps.sharing.copy_file", killed)
        hand_on("features", source, target)
    assert not (target.stage("features") / "stage.json").exists()
    hand_on("features", source, target)
    assert sorted(names_below(target.stage("features"))) == ["1", "2/3", "stage.json"]
    write_atomically(source.stage("features") / "1", "y")
    hand_on("features", source, target)
    assert (target.stage("features") / "1").read_text() == "x"
