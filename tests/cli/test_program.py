"""The command line: help, JSON, and every wrong request: one line, exit code 2, nothing changed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import TINY, environment, fae, tree_hash

from fae_jax.cli.program import COMMANDS, main
from fae_jax.commands.sample import choose_labels, parse_classes, parse_guidance
from fae_jax.workdir import Workdir

Refuse = Callable[..., str]


@pytest.fixture
def refuse(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Refuse:
    """Runs a command line that must be refused, beside a folder that must not change; returns its one line."""

    def run(*words: object, watched: Path = tmp_path, code: int = 2) -> str:
        before = tree_hash(watched)
        capfd.readouterr()
        assert main([str(word) for word in words]) == code
        out, err = capfd.readouterr()
        assert (
            out == "" and err.count("\n") == 1 and err.startswith("fae: error: " if code == 2 else "fae: failed: ")
        ), err
        assert tree_hash(watched) == before
        return err

    return run


def new(tmp_path: Path) -> tuple[object, ...]:
    return ("--config", TINY, "--workdir", tmp_path / "new")


# Words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("trian", "features"), "command 'trian' is unknown; did you mean 'train'?"),
        (("frobnicate",), "command 'frobnicate' is unknown; choose one of"),
        (("train", "featurs", "--workdir", "w"), "stage 'featurs' is unknown; did you mean 'features'?"),
        (("train", "cache", "--workdir", "w"), "stage 'cache' is unknown"),
        (("train", "--workdir", "w"), "required: stage"),
        (("run", "--config", "quickstart"), "required: --workdir"),
        (("run", "--workdir", "w", "--confg", "x"), "argument '--confg' is unknown; did you mean '--config'?"),
        (("--versoin",), "argument '--versoin' is unknown; did you mean '--version'?"),
        (("--vers",), "argument '--vers' is unknown"),
        (("--config.seed=3",), "no command given; see `fae --help`"),
        (("weights", "list", "--jsn"), "argument '--jsn' is unknown; did you mean '--json'?"),
        (("run", "--workdir", "w", "more"), "argument 'more' is unknown; see `fae --help`"),
        (("run", "--workdir", "w", "--config.seed"), "--config.seed needs a value"),
        (("evaluate", "--workdir", "w", "--task", "prob"), "task 'prob' is unknown; did you mean 'probe'?"),
        (("prepare", "foldr", "images", "--out", "o"), "dataset 'foldr' is unknown; did you mean 'folder'?"),
        (("run", "--workdir", "w", "--config", "quickstrt"), "no configuration at 'quickstrt'"),
    ],
)
def test_wrong_words(refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple, text: str):
    monkeypatch.chdir(tmp_path)
    assert text in refuse(*words)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("--config.generator.step=3", "field generator.step does not exist; did you mean 'generator.steps'?"),
        ("--config.generatr.steps=3", "did you mean 'generator.steps'?"),
        ("--config.features.steps=many", "field features.steps is of type int (now 8), got 'many'"),
        ("--config.features.steps=3.5", "is of type int"),
        ("--config.encoder.train=maybe", "field encoder.train is of type bool"),
        ("--config.features.batch=0", "field features.batch must be at least 1, got 0"),
        ("--config.features.steps=-3", "field features.steps must be at least 1, got -3"),
        ("--config.features.learning_rate=-1.0", "must be at least 0, got -1.0"),
        ("--config.pixels.ema=(2.0,)", "field pixels.ema holds decays between 0 and 1"),
        ("--config.pixels.microbatches=3", "pixels.microbatches=3 must divide batch=8"),
        ("--config.sampling.sampler=eulr", "field sampling.sampler must be one of euler, heun"),
        ("--config.data.classes=11", "field data.classes=11, but digits has 10; set --config.data.classes=10"),
        ("--config.data.source=digit", "data source 'digit' is unknown; did you mean 'digits'?"),
        ("--config.mesh.fsdp=3", "does not fit 1 devices"),
        ("--config.mesh.tensor=0", "sizes are positive"),
        (
            "--config.feature_decoder.transformer.heads=3",
            "feature_decoder.transformer.heads=3 must divide the encoder's width 16",
        ),
        ("--config.data.image_size=36", "data.image_size=36 must be a multiple of encoder.patch=8"),
        # What would have been met by a later stage
        ("--config.generator.flow_matching.dit.width=18", "needs a width that is a multiple of 4, got 18"),
        (
            "--config.generator.flow_matching.dit.depth=1000000000000",
            "the state of stage generator takes 79,360,000.0 GB",
        ),
        ("--config.encoder.width=9223372036854775808", "the networks of stage encoder cannot be made: "),
        ("--config.cache.batch=1000000000000", "field cache.batch=1000000000000 takes 3,072,000.0 GB on each host"),
        (
            "--config.sampling.batch=1000000000000",
            "field sampling.batch=1000000000000 takes 3,072,000.0 GB on each host",
        ),
        (
            "--config.encoder.layers=(1,)",
            "field encoder.layers=(1,) is of published encoders, and train=True trains 'vit'",
        ),
        ("--config.encoder.name=dinov2_b14", "field encoder.name='dinov2_b14' is of published encoders"),
        ("--config.compute.kernel=splash", "field compute.kernel='splash' needs a TPU, and this is a cpu"),
        (
            "--config.cache.path=/dev/null",
            "field cache.path=/dev/null cannot be written to (/dev/null: Not a directory)",
        ),
        ("--config.compute.compilation_cache=/dev/null/x", "field compute.compilation_cache=/dev/null/x cannot be"),
        ("--config.data.features=/dev/null", "field data.features=/dev/null cannot be written to"),
    ],
)
def test_wrong_fields_and_values(refuse: Refuse, tmp_path: Path, override: str, text: str):
    assert text in refuse("run", *new(tmp_path), override)


def test_a_value_of_any_length_is_shortened(refuse: Refuse, tmp_path: Path):
    line = refuse("run", *new(tmp_path), "--config.features.beta=" + "x" * 100_000)
    assert "field features.beta is of type float (now 0.0005), got 'xxx" in line and len(line) < 1100


def test_an_encoder_that_is_unknown_or_has_nothing_to_train(refuse: Refuse, tmp_path: Path):
    pretrained = ("--config.encoder.train=False",)
    line = refuse("run", *new(tmp_path), *pretrained, "--config.encoder.name=dinov2_g41")
    assert "encoder 'dinov2_g41' is unknown" in line
    assert "there is nothing to train" in refuse("train", "encoder", *new(tmp_path), *pretrained)


# Working directories


def test_no_configuration_and_no_directory(refuse: Refuse, tmp_path: Path):
    assert "is not a working directory: it has no config.json" in refuse("run", "--workdir", tmp_path / "none")
    assert "is not a working directory" in refuse("sample", "--workdir", tmp_path / "none")


def test_a_directory_of_another_experiment_says_which_fields_differ(refuse: Refuse, finished: Path):
    line = refuse(
        *("run", "--config", TINY, "--workdir", finished, "--config.features.beta=1.0", "--config.seed=7"),
        watched=finished,
    )
    assert "belongs to another experiment (seed: 0 → 7; features.beta: 0.0005 → 1.0)" in line


def test_a_file_where_the_directory_should_be(refuse: Refuse, tmp_path: Path):
    (tmp_path / "new").write_text("mine")
    assert "is a file; name a directory" in refuse("run", *new(tmp_path))
    line = refuse("run", "--config", TINY, "--workdir", tmp_path / "new" / "deeper")
    assert f"working directory {tmp_path}/new/deeper cannot be: {tmp_path}/new is a file; name a directory" in line


def test_a_damaged_configuration(refuse: Refuse, tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read" in refuse("run", "--workdir", tmp_path)


def test_two_processes_in_one_directory(refuse: Refuse, tmp_path: Path):
    with Workdir(tmp_path / "new").lock():
        assert f"is in use by process {os.getpid()} on " in refuse("run", *new(tmp_path))


# Images


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


def missing(root: Path) -> None: ...


def a_file(root: Path) -> None:
    root.write_text("")


def no_subfolders(root: Path) -> None:
    image(root / "a.png")


def one_class(root: Path) -> None:
    image(root / "cats" / "a.png")


def empty_class(root: Path) -> None:
    image(root / "cats" / "a.png")
    (root / "dogs").mkdir()


def no_images(root: Path) -> None:
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        (root / name / "notes.txt").write_text("no image")


def damaged(root: Path) -> None:
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            (root / name / f"{number}.png").write_bytes(b"\x89PNG but not really")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (missing, "does not exist"),
        (a_file, "is not a folder"),
        (no_subfolders, "has no subfolders; it needs one subfolder per class"),
        (one_class, "at least two classes"),
        (empty_class, "has no images"),
        (no_images, "have no images"),
        (damaged, ".png: "),
    ],
)
@pytest.mark.parametrize("command", ["run", "quickstart"])
def test_folders_of_images_that_cannot_be_used(
    refuse: Refuse, tmp_path: Path, make: Callable[[Path], None], text: str, command: str
):
    make(tmp_path / "images")
    if command == "run":
        source = (
            "--config.data.source=folder",
            f"--config.data.path={tmp_path / 'images'}",
            "--config.data.classes=2",
        )
        line = refuse("run", *new(tmp_path), *source)
    else:
        line = refuse("quickstart", "--out", tmp_path / "new", "--data", tmp_path / "images")
    assert text in line and str(tmp_path / "images") in line


# Stages in order


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (("sample",), "sampling needs stage features"),
        (("evaluate", "--task", "probe"), "task probe needs stage features"),
        (("evaluate", "--task", "generation"), "task generation needs stage features"),
        (("cache",), "stage cache needs stage features"),
        (("train", "finetune"), "stage finetune needs stage features"),
    ],
)
def test_what_is_asked_too_early(refuse: Refuse, tmp_path: Path, finished: Path, words: tuple[str, ...], needs: str):
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "config.json").write_text((finished / "config.json").read_text())
    line = refuse(*words, "--workdir", tmp_path / "early")
    assert needs in line and f"run `fae train features --workdir {tmp_path / 'early'}` first" in line


# Sampling


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--number", "0"), "--number must be from 1 to 10,000,000, got 0"),
        (("--number", "1000000000000"), "--number must be from 1 to 10,000,000"),
        (("--seed", "4294967296"), "seed must be a whole number from 0 to 4294967295, got 4294967296"),
        (("--seed", "-1"), "seed must be a whole number from 0 to 4294967295, got -1"),
        (("--guidance", "1j"), "is neither a weight, intervals, none nor config"),
        (("--config.sampling.guidance=((0.9,0.1,2.0),)",), "must satisfy 0 <= low < high <= 1"),
        (("--number", "many"), "--number"),
        (("--classes", "3,10"), "10 is not a class; they are 0 to 9"),
        (("--classes", "cat"), "cat is not a class; they are 0 to 9, or their names"),
        (("--guidance", "strong"), "is neither a weight, intervals, none nor config"),
        (
            ("--sampler", "eulr"),
            "field sampling.sampler must be one of euler, heun, euler_maruyama, adams_bashforth, dopri5, got 'eulr'",
        ),
        (("--steps", "0"), "field sampling.steps must be at least 1, got 0"),
        (("--ema", "0.7"), "no EMA of decay 0.7"),
        (("--seed", "x"), "--seed"),
        (("--name", "../elsewhere"), "--name"),
    ],
)
def test_wrong_wishes_for_samples(refuse: Refuse, finished: Path, words: tuple[str, ...], text: str):
    assert text in refuse("sample", "--workdir", finished, *words, watched=finished)


def test_labels_take_classes_in_turn():
    assert choose_labels([3, 5], 5, "balanced", 0).tolist() == [3, 5, 3, 5, 3]
    random = choose_labels([3, 5], 1000, "random", 7)
    assert set(random.tolist()) == {3, 5} and 400 < (random == 3).sum() < 600 and (random[::2] != 3).any()
    assert (random == choose_labels([3, 5], 1000, "random", 7)).all()
    with pytest.raises(ValueError, match="'cat,dgo': dgo is not a class; did you mean 'dog'"):
        parse_classes("cat,dgo", ["cat", "dog"])
    assert parse_classes("all", "abc") == [0, 1, 2] and parse_classes("2,a", "abc") == [2, 0]
    assert parse_guidance("none") is None and parse_guidance("config") == "config" and parse_guidance("2.5") == 2.5
    assert parse_guidance("((0, 0.7, 2),)") == ((0, 0.7, 2),)


# What goes well


def test_help_says_every_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit) as done:
            main([name, "--help"])
        assert done.value.code == 0 and "--json" in capsys.readouterr().out
    assert main([]) == 0 and "usage: fae" in capsys.readouterr().out


def test_version_and_help_import_nothing_heavy():
    heavy = ("jax", "flax", "numpy", "scipy", "sklearn", "orbax", "PIL")
    script = """if True:
        import sys
        from fae_jax.cli.program import main
        try:
            main([sys.argv[1]])
        finally:
            print("imported:", *sorted(sys.modules), file=sys.stderr)"""
    for word in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", script, word], capture_output=True, text=True, env=environment())
        assert done.returncode == 0 and "fae" in done.stdout and "imported: " in done.stderr
        assert not set(heavy) & set(done.stderr.partition("imported: ")[2].split())


@pytest.mark.parametrize(
    "word",
    [
        f"--config.generator.kind={'x' * 100_000}",
        f"--config.features.ema=({'0.5, ' * 30_000}7)",
        f"--config.{'x' * 100_000}=1",
        f"--{'x' * 100_000}",
        f"--workdir={'x' * 100_000}",
    ],
)
def test_a_value_of_100_000_letters_is_shortened_and_the_remedy_is_not(refuse: Refuse, tmp_path: Path, word: str):
    line = refuse("run", *new(tmp_path), word)
    assert len(line) < 2100 and "…" in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotADirectoryError(20, "Not a directory", "/a/b"), "fae: error: Not a directory (/a/b)\n"),
        (FileNotFoundError(2, "No such file or directory", "/a/b"), "fae: error: No such file or directory (/a/b)\n"),
        (FileNotFoundError("no configuration at 'x'"), "fae: error: no configuration at 'x'\n"),
    ],
)
def test_errors_of_the_system_are_said_without_their_number(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch, error: OSError, line: str
):
    def run(arguments: object) -> None:
        raise error

    monkeypatch.setattr("fae_jax.commands.weights.run", run)
    assert refuse("weights", "list") == line


def test_an_error_that_nobody_foresaw_is_one_line(refuse: Refuse, monkeypatch: pytest.MonkeyPatch):
    def run(arguments: object) -> None:
        raise ZeroDivisionError("by\n" + "0" * 10_000)

    monkeypatch.setattr("fae_jax.commands.weights.run", run)
    line = refuse("weights", "list", code=1)
    assert line.startswith("fae: failed: ZeroDivisionError: by 000") and len(line) < 600
    assert line.endswith("0; FAE_TRACEBACK=1 shows where\n")


def test_an_answer_that_cannot_be_printed_ends_nothing(finished: Path):
    with open("/dev/full", "w") as full:
        for words, code in ((("run", "--workdir", finished, "--json"), 0), (("--help",), 0), (("trian",), 2)):
            assert fae(*words, code=code, stdout=full, stderr=full) == (None, None)
    reading, writing = os.pipe()
    os.close(reading)  # as by `| head`
    try:
        assert fae("config", stdout=writing) == (None, "")
    finally:
        os.close(writing)


def test_the_answer_is_one_json_object_and_done_is_done(finished: Path):
    out, err = fae("run", "--workdir", finished, "--json")
    assert json.loads(out) == {"workdir": str(finished), "ran": []}
    assert "Not begun" not in (finished / "report.html").read_text()  # drawn after the last stage
    assert err == ""


def test_a_report_that_cannot_be_drawn_ends_no_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def damaged(workdir: object) -> None:
        raise ValueError("a score is damaged")

    monkeypatch.setattr("fae_jax.commands.run.write_report", damaged)
    monkeypatch.setattr("fae_jax.commands.run.run_stages", lambda experiment, after: after() or [])
    assert main(["run", "--workdir", str(finished)]) == 0
    assert "was not drawn (a score is damaged)" in capsys.readouterr().err
