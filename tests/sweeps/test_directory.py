"""Names of points, and whose a directory is."""

import dataclasses
from pathlib import Path

import pytest
from making import begun

from fae_jax.sweeps.axes import grid, listed
from fae_jax.sweeps.declaration import Halving
from fae_jax.sweeps.directory import SweepDirectory, as_numbers, point_names, short_values

DEPTH = "generator.flow_matching.dit.depth"
BETAS = grid({"features.beta": (1e-4, 1e-3)})


def test_names_are_readable_stable_and_of_the_values_alone():
    names = point_names(grid({"features.beta": (1e-4, 1e-3), DEPTH: (2,)}))
    assert names[0].startswith("beta=0.0001,depth=2-") and len(set(names)) == 2
    # The order of points, and of fields in a point, changes no name.
    turned = point_names(listed({DEPTH: 2, "features.beta": 1e-3}, {DEPTH: 2, "features.beta": 1e-4}))
    assert {name[-8:] for name in turned} == {name[-8:] for name in names} and turned[0][-8:] == names[1][-8:]
    assert names[0].endswith("-" + point_names(listed({"features.beta": 1e-4, DEPTH: 2}))[0][-8:])


def test_fields_of_the_same_last_word_are_told_apart_and_folder_names_stay_short():
    both = short_values(listed({"features.steps": 1, "pixels.steps": 2}))[0]
    assert both == {"features.steps": "1", "pixels.steps": "2"}
    (name,) = point_names(listed({"data.path": "/a b/" + "x" * 200}))
    assert "/" not in name and " " not in name and len(name) < 100


def test_guidance_intervals_go_by_the_one_number_that_changes():
    weights = [((0.7, 1.0, 1.0), (0.0, 0.7, weight)) for weight in (1.0, 2.5)]
    assert [point["guidance"] for point in short_values(grid({"sampling.guidance": weights}))] == ["1", "2.5"]
    assert as_numbers(weights) == [1.0, 2.5]
    assert (
        as_numbers([(1, 2), (3, 4)]) is None and as_numbers(["a", "b"]) is None and as_numbers([True, False]) is None
    )
    assert as_numbers([4]) == [4.0] and as_numbers([]) is None


def test_a_directory_is_opened_as_it_was_begun(tmp_path: Path):
    made = begun(tmp_path / "s", points=BETAS, metric="features.loss", stop=Halving(steps=(2,)), stages=("features",))
    opened = SweepDirectory.open(tmp_path / "s")
    assert [p.name for p in opened.points] == [p.name for p in made.points]
    assert [p.config.features.beta for p in opened.points] == [1e-4, 1e-3]
    assert opened.sweep.stop == made.sweep.stop and opened.stages == ("encoder", "features")
    opened.check()


def test_another_sweep_is_refused_with_what_differs(tmp_path: Path):
    made = begun(tmp_path / "s", points=BETAS, metric="features.loss", stages=("features",))

    def refused(**changes: object) -> str:
        config = changes.pop("config", made.config)
        other = SweepDirectory(root=made.root, sweep=dataclasses.replace(made.sweep, **changes), config=config)
        with pytest.raises(ValueError, match="is of another sweep") as error:
            other.check()
        return str(error.value)

    line = refused(points=grid({"features.beta": (1e-4, 1e-2)}))
    assert "new point beta=0.01-" in line and "no point beta=0.001-" in line
    assert "points in another order" in refused(points=BETAS[::-1])
    assert "stages: ('features',) → ('pixels',)" in refused(stages=("pixels",))
    assert "stop: None → Halving" in refused(stop=Halving(steps=(2,)))
    config = made.config.copy_and_resolve_references()
    config.sampling.steps = 9
    assert "sampling.steps: 4 → 9" in refused(config=config)
    # What is only watched or compared may change.
    config = made.config.copy_and_resolve_references()
    config.checkpoint.every, config.mesh.fsdp = 9, 4
    sweep = dataclasses.replace(made.sweep, metric="features.kl", better="higher")
    SweepDirectory(root=made.root, sweep=sweep, config=config).check()


def test_what_is_no_sweep_directory(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="is not a sweep directory"):
        SweepDirectory.open(tmp_path)
    made = begun(tmp_path / "s", points=BETAS, metric="features.loss")
    (tmp_path / "s" / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match="sweep.json cannot be read"):
        SweepDirectory.open(tmp_path / "s")
    (tmp_path / "s" / "sweep.json").unlink()
    (tmp_path / "s" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is the working directory of an experiment"):
        made.check()


def test_points_by_number_range_and_name(tmp_path: Path):
    made = begun(tmp_path / "s", points=grid({"seed": (0, 1, 2, 3)}), metric="features.loss")
    assert [point.number for point in made.selected("3,0-1")] == [0, 1, 3]
    assert made.selected("") == made.points and made.point(made.points[2].name).number == 2
    for words in ("7", "0-9", "x", "1-"):
        with pytest.raises(ValueError, match=r"--points|is not in"):
            made.selected(words)
