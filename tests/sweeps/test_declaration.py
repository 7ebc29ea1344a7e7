"""What a sweep file may say, and which words refuse the rest before anything starts."""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tiny import get_config

from fae_jax.config import check, load_config, shipped_configs, with_values
from fae_jax.evaluation.tasks import check_tasks
from fae_jax.sweeps.axes import grid, listed
from fae_jax.sweeps.declaration import (
    Halving,
    Sweep,
    as_json,
    check_sweep,
    from_declared,
    load_sweep,
    needed_stages,
)

BASE = Sweep(points=grid({"features.beta": (1e-4, 1e-3)}), metric="features.loss", stages=("features",))
SHIPPED = sorted(p.stem for p in (shipped_configs() / "sweeps").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sweeps_fit_the_quickstart_and_survive_json(name: str):
    sweep = load_sweep(name)
    configs = check_sweep(sweep, load_config("quickstart"))
    assert len(configs) == len(sweep.points) > 2
    again = from_declared(json.loads(json.dumps(as_json(sweep))), Path("sweep.json"))
    assert json.dumps(as_json(again)) == json.dumps(as_json(sweep)) and again.stop == sweep.stop


def test_values_take_the_types_of_their_fields():
    points = listed({"features.beta": 1, "pixels.ema": [0.5]}, {"generator.flow_matching.dit.depth": np.int64(2)})
    first, second = check_sweep(dataclasses.replace(BASE, points=points), get_config())
    assert (
        type(first.features.beta) is float
        and first.pixels.ema == (0.5,)
        and type(second.generator.flow_matching.dit.depth) is int
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": ()}, "the sweep is empty"),
        ({"points": listed({})}, "point 0 of the sweep sets no field"),
        (
            {"points": grid({"features.bta": (1.0,)})},
            "field features.bta does not exist; did you mean 'features.beta'?",
        ),
        ({"points": grid({"features.steps": (1.5,)})}, "field features.steps is of type int .now 8., got 1.5"),
        ({"points": grid({"features.steps": ("9",)})}, "is of type int .now 8., got '9'"),
        ({"points": grid({"encoder.train": (1,)})}, "is of type bool"),
        ({"points": grid({"features.batch": (8, 0)})}, "point 1 of the sweep: field features.batch must be at least"),
        ({"points": grid({"features.beta": (1, 1.0)})}, "points 0 and 1 of the sweep are the same experiment"),
        ({"better": "more"}, "must be lower or higher"),
        ({"metric": "features.norm"}, "nothing in its name says whether 'features.norm' is better lower or higher"),
        ({"stop": Halving(steps=(4,), metric="features.norm")}, "nothing in its name .* 'features.norm'"),
        ({"stages": ("featurs",)}, "stage 'featurs' of the sweep is unknown; did you mean 'features'"),
        ({"tasks": ("prob",)}, "task 'prob' of the sweep is unknown; did you mean 'probe'"),
        ({"tasks": ("generation",)}, "task generation of the sweep needs stage pixels"),
        ({"metric": "generator.loss"}, "metric 'generator.loss' must be STAGE.NAME or TASK.NAME"),
        ({"metric": "loss"}, "metric 'loss' must be"),
        ({"stop": Halving(steps=(4,), keep=1.0)}, "keeps a share between 0 and 1"),
        ({"stop": Halving(steps=(4, 2))}, "ascending steps below features.steps=8"),
        ({"stop": Halving(steps=(8,))}, "ascending steps below features.steps=8"),
        ({"stop": Halving(steps=())}, "ascending steps"),
        ({"stop": Halving(steps=(2,), metric="probe.accuracy")}, "needs a metric of a trained stage"),
    ],
)
def test_what_cannot_run(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_sweep(dataclasses.replace(BASE, **change), get_config())


@pytest.mark.parametrize(
    ("fields", "task", "message"),
    [
        ({"data.holdout": 0.0}, "probe", "point 0 of the sweep: task probe: nothing is held out: name such images"),
        ({"data.holdout": 0.0}, "retrieval", "point 0 of the sweep: task retrieval: nothing is held out"),
        ({"data.holdout": 0.0, "evaluation.retrieval.source": "coco"}, "retrieval", None),
        ({"data.holdout": 0.0, "data.heldout_path": "val"}, "probe", None),
        ({"data.holdout": 0.0, "data.source": "tfds"}, "semantics", None),
        ({}, "retrieval", "the images of this experiment have no captions"),
        ({"condition.kind": "none"}, "generation", "knows none .condition.kind=none."),
    ],
)
def test_a_task_that_can_score_no_point_is_refused_before_training(fields: dict, task: str, message: str | None):
    sweep = dataclasses.replace(BASE, tasks=(task,), stages=None)
    with contextlib.nullcontext() if message is None else pytest.raises(ValueError, match=message):
        check_sweep(sweep, with_values(get_config(), fields))


def test_the_papers_experiment_can_be_scored():
    check_tasks(check(load_config("imagenet256_dinov2g")), ("probe", "reconstruction", "generation", "semantics"))


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("generation.sets.guided.frechet.samples_to_heldout", True),
        ("features.feature_error", True),
        ("features.cosine_loss", True),
        ("features.feature_cosine", False),
        ("generation.sets.guided.lowest_class.accuracy", False),
        ("probe.linear.reconstructed", False),
        ("probe.linear.loss_in_points", True),
        ("semantics.agreement_with_x.z.match_error", True),
        ("semantics.agreement_with_x.z.matches", False),
        ("zero_shot.top_5.x", False),
        ("reconstruction.sets.heldout.ssim", False),
        ("features.learning_rate", None),
    ],
)
def test_a_metrics_name_says_which_way_is_better_and_the_sweep_may(metric: str, lower: bool | None):
    assert dataclasses.replace(BASE, also=(metric,)).prefers_lower(metric) is lower
    assert dataclasses.replace(BASE, metric=metric, better="higher").prefers_lower(metric) is False


def test_decisions_are_made_at_logged_steps():
    config = get_config()
    config.logging.every = 3
    with pytest.raises(ValueError, match="early stopping at step 4: it must be a multiple of logging.every=3"):
        check_sweep(dataclasses.replace(BASE, stop=Halving(steps=(3, 4))), config)


def test_stages_bring_those_they_need():
    config = get_config()
    generator = dataclasses.replace(BASE, stages=("generator",))
    assert needed_stages(generator, config) == ("encoder", "features", "cache", "generator")
    config.encoder.train = False
    assert needed_stages(dataclasses.replace(BASE, stages=("finetune",)), config) == (
        "features",
        "pixels",
        "finetune",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_swep(): ...", "is not valid: AttributeError: module .* has no attribute 'get_sweep'"),
        ("def get_sweep(): return 3", "must return a Sweep, got int"),
        ("from fae_jax.sweeps import grid\ndef get_sweep(): return grid({'a': ()})", "field a needs a sequence"),
        ("from fae_jax.sweeps import Sweep\ndef get_sweep(): return Sweep(points=())", "is not valid: .*metric"),
    ],
)
def test_files_that_are_no_sweep(tmp_path: Path, text: str, message: str):
    (tmp_path / "s.py").write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        load_sweep(str(tmp_path / "s.py"))
    assert str(refused.value).startswith("sweep ")
