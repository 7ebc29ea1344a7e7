"""A trained model needs nothing but itself: not its images, not its latents, not the encoder where it is not used."""

import dataclasses
import html
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import flipped
from PIL import Image
from running import TINY, fae, record

import fae_jax
from fae_jax.cli.program import main
from fae_jax.data.loader import ORDER
from fae_jax.encoders import registry
from fae_jax.stages import running, stage_of, training
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.stage import check_lineage, read_record, write_record
from fae_jax.training.monitoring import read_metrics
from fae_jax.workdir import Workdir

LABELS = [3, 1, 4]


@pytest.fixture(scope="module")
def bare(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on those images, which are gone when it is done, as are its latents."""
    root = tmp_path_factory.mktemp("bare")
    images, workdir = root / "images", root / "run"
    shutil.copytree(photographs, images)
    fields = {"source": "folder", "path": images, "classes": 2, "holdout": 0.25, "in_memory": False}
    words = [f"--config.data.{name}={value}" for name, value in fields.items()]
    fae("run", "--config", TINY, "--workdir", workdir, *words)
    shutil.rmtree(images)
    return workdir


def test_without_images_it_encodes_decodes_and_generates(bare: Path):
    model = fae_jax.load(bare)
    pixels = np.zeros((2, 32, 32, 3), np.float32)
    latents = model.encode(pixels)
    assert latents.shape == (2, 4, 4, 4) and model.reconstruct_features(latents).shape == (2, 4, 4, 16)
    assert model.decode(latents).shape == (2, 32, 32, 3)
    assert model.generate(labels=[0, 1]).shape == (2, 32, 32, 3)
    assert model.parts.classes == ("cat", "dog")


def test_the_generator_trains_without_images_and_encoder(bare: Path, tmp_path: Path):
    shutil.copytree(bare, tmp_path / "run")
    for folder in ("encoder", "generator"):
        shutil.rmtree(tmp_path / "run" / folder)
    fae("train", "generator", "--workdir", tmp_path / "run")
    ours, theirs = (record(root, "generator") for root in (tmp_path / "run", bare))
    assert ours == theirs and ours.finished == 8


def test_sampling_and_export_need_neither_latents_nor_encoder(bare: Path, tmp_path: Path):
    shutil.copytree(bare, tmp_path / "run")
    for file in (tmp_path / "run" / "latents").rglob("*.array_record"):
        file.unlink()
    fae("sample", "--workdir", tmp_path / "run", "--number", 2, "--classes", "dog,0")
    labels = np.load(tmp_path / "run" / "samples" / "samples" / "samples.npz")["arr_1"]
    np.testing.assert_array_equal(labels, [1, 0])
    fae("export", "--workdir", tmp_path / "run", "--out", tmp_path / "bundle")
    assert fae_jax.load(tmp_path / "bundle").generate(labels=[1]).shape == (1, 32, 32, 3)


@pytest.fixture(scope="module")
def bundle(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished experiment, exported."""
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    fae("export", "--workdir", finished, "--out", folder)
    return folder


def test_a_bundle_is_the_model(finished: Path, bundle: Path):
    folder = bundle
    ours, theirs = fae_jax.load(folder), fae_jax.load(finished)
    np.testing.assert_array_equal(ours.generate(labels=LABELS, seed=5), theirs.generate(labels=LABELS, seed=5))
    pixels = np.linspace(-1, 1, 2 * 32 * 32 * 3, dtype=np.float32).reshape(2, 32, 32, 3)
    np.testing.assert_array_equal(ours.encode(pixels), theirs.encode(pixels))
    np.testing.assert_array_equal(ours.decode(ours.encode(pixels)), theirs.decode(theirs.encode(pixels)))
    _, err = fae("export", "--workdir", finished, "--out", folder, code=2)
    assert "is not empty: name a new folder with --out" in err


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("generator.safetensors", "is not the file that was exported"),
        ("encoder/model.safetensors", "is not the file that was exported"),
        ("bundle.json", "cannot be read"),
    ],
)
def test_a_bundle_edited_by_hand_is_refused(bundle: Path, tmp_path: Path, file: str, message: str):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2 if file != "bundle.json" else 0] ^= 1
    (folder / file).write_bytes(bytes(content))
    with pytest.raises(ValueError, match=message):
        model = fae_jax.load(folder)
        model.encode(np.zeros((1, 32, 32, 3), np.float32))
        model.generate(labels=[1])


@pytest.mark.slow(seconds=80)
def test_any_kept_step_of_a_generator_is_sampled_while_it_trains(finished: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "generator")
    fields = ["--config.checkpoint.keep_at=(1, 4)", "--config.checkpoint.pause_at=7"]
    _, err = fae("train", "generator", "--workdir", workdir, *fields, code=1)
    assert "stopped by checkpoint.pause_at at step 7" in err
    kept = sorted(int(path.name) for path in (workdir / "generator" / "checkpoints").iterdir() if path.name.isdigit())
    assert kept == [1, 4, 6, 7]
    _, err = fae("sample", "--workdir", workdir, "--number", 2, code=2)
    assert "sampling needs stage generator, which is not finished" in err
    images = {}
    for step in (1, 4):
        fae("sample", "--workdir", workdir, "--checkpoint", step, "--number", 2, "--name", f"at{step}")
        images[step] = np.load(workdir / "samples" / f"at{step}" / "samples.npz")["arr_0"]
    assert (images[1] != images[4]).any()
    loaded = fae_jax.load(workdir, step=4).generate([0, 1])
    assert np.abs((loaded + 1) * 127.5 - images[4]).max() < 1  # the very step, and not the newest
    evaluate = ("evaluate", "--workdir", workdir, "--checkpoint", 4, "--task")
    with Workdir(workdir).lock():  # as while it trains
        fae(*evaluate, "generation")
    assert (workdir / "evaluation/generation-step-4.json").is_file()
    assert (workdir / "evaluation/figures/nearest-step-4.png").is_file()
    assert np.load(workdir / "samples/guided-step-4/samples.npz")["arr_0"].shape == (20, 32, 32, 3)
    for file in ("evaluation/generation.json", "samples/guided"):
        assert not (workdir / file).exists()
    _, err = fae(*evaluate, "probe", code=2)
    assert "task probe draws no samples" in err
    _, err = fae("export", "--workdir", workdir, "--out", tmp_path / "bundle", code=2)
    assert "fae export needs stage generator, which is not finished" in err and not (tmp_path / "bundle").exists()
    _, err = fae("sample", "--workdir", workdir, "--checkpoint", 5, "--number", 2, code=2)
    assert "there is no checkpoint of step 5" in err and "kept: 1, 4, 6, 7" in err
    # To its end, and beyond it: the curve is the one of a run that was begun as long.
    longer = ["--config.generator.steps=10", "--config.logging.preview_every=9"]
    fae("train", "generator", "--workdir", workdir, *longer, "--config.checkpoint.pause_at=0")
    assert [row["step"] for row in read_metrics(workdir / "generator/metrics.jsonl")] == list(range(1, 11))
    for step in (9, 10):
        with Image.open(workdir / f"generator/previews/step_{step:08d}.png") as image:
            assert image.size == (8 * 32, 2 * 32)
    _, err = fae("train", "generator", "--workdir", workdir, "--config.generator.steps=9", code=2)
    assert "generator.steps: 10 → 9" in err
    fae("report", "--workdir", workdir)
    page = (workdir / "report.html").read_text()
    assert "Generator: preview at step 10" in page
    commands = [html.unescape(line) for line in re.findall("<code>(fae .*?)</code>", page) if str(workdir) in line]
    assert [line.split()[1] for line in commands] == ["sample", "sample", "evaluate"]
    for line in commands:  # as they stand on the page
        assert main(shlex.split(line)[1:]) == 0
    assert (workdir / "evaluation/generation.json").is_file() and (workdir / "samples/heun/grid.png").is_file()


def test_a_stage_goes_on_with_what_it_was_begun_with_alone(bare: Path, photographs: Path, tmp_path: Path):
    """Another folder at the same path: the finished features stage is not measured again, and finetune refuses."""
    workdir = tmp_path / "run"
    shutil.copytree(bare, workdir)
    before = (workdir / "features" / "stage.json").read_bytes()
    images = Path(json.loads((workdir / "config.json").read_text())["data"]["path"])
    shutil.copytree(photographs, images)
    Image.new("RGB", (32, 32)).save(images / "cat" / "new.png")
    try:
        record = read_record(Workdir(workdir), "finetune")
        write_record(Workdir(workdir), "finetune", dataclasses.replace(record, finished=None))
        _, err = fae("train", "finetune", "--workdir", workdir, code=1)
    finally:
        shutil.rmtree(images)
    assert "was made of images" in err and "give back the images it was begun with" in err
    assert (workdir / "features" / "stage.json").read_bytes() == before


def test_a_stage_without_its_last_checkpoint_is_not_done(finished: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    last = workdir / "generator" / "checkpoints" / "8"
    shutil.copytree(last, tmp_path / "whole")
    file = max((path for path in last.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)

    def is_done() -> bool:
        return Experiment(Workdir(workdir).read_config(), Workdir(workdir)).is_done(stage_of("generator"))

    damages: list[Callable[[], object]] = [
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(file.read_bytes()[:-1]),
        lambda: file.rename(file.with_name("renamed")),
        file.unlink,
        lambda: shutil.rmtree(last),
    ]
    assert is_done()
    for damage in damages:
        damage()
        assert not is_done()
        shutil.rmtree(last, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", last)
    assert is_done()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "generator: step 6 of 8" in fae("run", "--workdir", workdir)[1]
    assert is_done()
    with pytest.raises(ValueError, match="stage.json is damaged"):
        (workdir / "generator" / "stage.json").write_text("{")
        read_record(Workdir(workdir), "generator")


def test_a_record_that_changed_on_disk_is_refused(finished: Path, tmp_path: Path):
    shutil.copytree(finished / "features", tmp_path / "features", ignore=shutil.ignore_patterns("checkpoints"))
    workdir, file, rng = Workdir(tmp_path), tmp_path / "features" / "stage.json", np.random.default_rng(0)
    whole, record = file.read_bytes(), read_record(Workdir(tmp_path), "features")
    for _ in range(100):
        file.write_bytes(flipped(whole, rng))
        try:
            assert read_record(workdir, "features") == record  # white space
        except ValueError as error:
            assert "stage.json is damaged or was edited" in str(error)
    assert record is not None and record.made_of["order"] == ORDER
    earlier = dataclasses.replace(record, made_of={"images": "a"})
    with pytest.raises(ValueError, match=r"was made of order not recorded, and these are feistel-12: .*--workdir"):
        check_lineage("features", workdir, earlier, {"images": "a", "order": ORDER})


@pytest.mark.slow
def test_a_generator_that_is_told_nothing_draws_and_is_not_scored_by_class(finished: Path, tmp_path: Path):
    for stage in ("encoder", "features", "pixels", "finetune", "latents"):
        shutil.copytree(finished / stage, tmp_path / "run" / stage)
    words = ["--config", TINY, "--workdir", tmp_path / "run", "--config.condition.kind=none"]
    fae("train", "generator", *words, "--config.sampling.guidance=()")
    drawn = tmp_path / "run" / "samples" / "samples"
    (drawn / "images").mkdir(parents=True)
    (drawn / "images" / "000003-all.png").touch()  # of an earlier call
    fae("sample", "--workdir", tmp_path / "run", "--number", 3, "--format", "png")
    kept = np.load(drawn / "samples.npz")
    assert (kept["arr_1"] == 0).all()
    assert sorted(file.name for file in (drawn / "images").iterdir()) == [f"00000{n}-all.png" for n in range(3)]
    with Image.open(drawn / "images" / "000002-all.png") as image:
        np.testing.assert_array_equal(np.asarray(image), kept["arr_0"][2])
    _, err = fae("evaluate", "--workdir", tmp_path / "run", "--task", "generation", code=2)
    assert len(err.splitlines()) == 1 and "knows none (condition.kind=none)" in err


def test_an_encoder_is_read_once(finished: Path, monkeypatch: pytest.MonkeyPatch):
    opened, create = [], registry.create
    monkeypatch.setattr(registry, "create", lambda *words, **options: opened.append(1) or create(*words, **options))
    parts = Experiment(Workdir(finished).read_config(), Workdir(finished)).parts
    assert parts.encoder is parts.tokenizer.encoder and len(opened) == 1


def test_samples_are_scored_without_latents(finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path / "run")
    for file in (tmp_path / "run" / "latents").rglob("*.array_record"):
        file.unlink()
    fae("evaluate", "--workdir", tmp_path / "run", "--task", "generation")
    scores = json.loads((tmp_path / "run" / "evaluation" / "generation.json").read_text())["sets"]
    assert {name: each["count"] for name, each in scores.items()} == {"unguided": 20, "guided": 20}
    counts = {name: scores["guided"]["frechet"][name] for name in ("samples", "train", "heldout", "too_few")}
    assert counts["samples"] == counts["train"] == 20 < counts["heldout"] and counts["too_few"]
    samplers = {name: each["sampling"]["sampler"] for name, each in scores.items()}
    assert samplers == {"unguided": "euler_maruyama", "guided": "euler"}  # the paper's


@pytest.mark.parametrize("first", [True, False])
def test_no_host_goes_on_before_the_record_is_written(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
):
    shutil.copytree(finished, tmp_path / "W")
    shutil.rmtree(tmp_path / "W/generator")
    workdir = Workdir(tmp_path / "W")
    monkeypatch.setattr(training, "is_first", lambda: first)
    events = []
    monkeypatch.setattr(training, "wait_for_all", lambda _: events.append(read_record(workdir, "generator")))
    begun = training.begin(Experiment(workdir.read_config(), workdir), stage_of("generator"), {})
    assert events == [begun if first else None]


def test_only_what_is_to_be_written_must_be_writable(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(running, "check_folder", lambda path, what: asked.append(what))
    running.check_request(Experiment(Workdir(finished).read_config(), Workdir(finished)))
    assert asked and "field cache.path=" not in asked  # the finished cache may lie where nothing can be
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("latents"))
    running.check_request(Experiment(Workdir(finished).read_config(), Workdir(tmp_path / "run")))
    assert "field cache.path=" in asked
