"""150 configurations and 150 command lines, drawn from a seed: each works, or is refused by one line and exit code 2.

No stage is run: what is tried is everything before the first step.
"""

import random
import re
from collections import Counter
from pathlib import Path

import pytest
from running import TINY

from fae_jax.cli.program import COMMANDS, main
from fae_jax.config.composing import Field, describe_all
from fae_jax.stages import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
COUNT = 150
NASTY = (
    *("", " ", "0", "-1", "1", "2", "3", "7", "0.5", "1e999", "nan", "-1e-300", "1e30", "1000000000000", str(2**63)),
    *("True", "none", "None", "()", "(1,)", "(0.5, 0.9)", "((0, 1, 2),)", "[]", "{}", "1j", "'", "lambda: 0", "é\n;"),
    *("x" * 5000, "/dev/null", "/dev/null/x", "/proc/self", "gs://", "ftp://a/b", "~nobody/x", "a\0b", "$(touch x)"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what ordinary mistakes name; nothing is trained or compiled in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fae_jax.commands.run.run_stages", lambda *_: [])
    monkeypatch.setattr("fae_jax.commands.quickstart.run_stages", lambda *_: [])
    (tmp_path / "quickstart").write_text("x")
    (tmp_path / "README.md").write_text("# x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "d.json").write_text('{"a": 1}')
    (tmp_path / "raises.py").write_text("def get_config():\n    return 1 / 0\n")
    return tmp_path


def outcome(words: list[str], capfd: pytest.CaptureFixture[str]) -> int:
    """The exit code of a command line, which works or says what is wrong with it in one line."""
    capfd.readouterr()
    try:
        code = main(words)
    except SystemExit as error:  # of --help and --version
        code = int(error.code or 0)
    err = capfd.readouterr().err
    short = [word[:100] for word in words]
    assert code in (0, 2), (short, code, err[-2000:])
    assert "Traceback" not in err, (short, err[-2000:])
    if code == 2:
        assert err.startswith("fae: error: ") and err.count("\n") == 1 and len(err) < 2100, (short, err[:2000])
    return code


def a_value(rng: random.Random, field: Field) -> str:
    """A value that is near what the field holds, or one that nobody expects."""
    default = field.default
    if rng.random() < 0.5:
        return rng.choice(NASTY)
    if isinstance(default, bool):
        return rng.choice(("True", "False"))
    if isinstance(default, int):
        return str(rng.choice((default + 1, default * 2, default // 2, 3, 5, 6, 12, 100_000)))
    if isinstance(default, float):
        return str(rng.choice((default * 2, default / 2, 0.0, 1.0, 10.0, default + 1e-3)))
    return rng.choice(re.findall(r"[a-z_0-9]+", field.comment) or NASTY)


def test_configurations(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    rng, fields, codes = random.Random(0), list(describe_all().values()), Counter()
    networks = running.check_networks
    for number in range(COUNT):
        # Making networks takes a second: for a third of them.
        monkeypatch.setattr(running, "check_networks", (lambda *_: None) if number % 3 else networks)
        chosen = {field.name: a_value(rng, field) for field in rng.sample(fields, rng.choice((1, 1, 1, 2, 3)))}
        given = TINY
        if number % 4 == 0:  # in a file, where values keep their own types
            given = folder / "given.py"
            lines = [
                f"config.{name} = {rng.choice((value, 1, 2.5, None, [1], (0.5,)))!r}"
                for name, value in chosen.items()
            ]
            body = "\n    ".join(["config = load_config(TINY)", *lines, "return config"])
            head = f"from fae_jax.config import load_config\nTINY = {str(TINY)!r}\n"
            given.write_text(f"{head}def get_config():\n    {body}\n")
            chosen = {}
        words = [f"--config.{name}={value}" for name, value in chosen.items()]
        workdir = folder / f"w{number}"
        code = outcome(["run", "--config", str(given), "--workdir", str(workdir), *words], capfd)
        assert code == 0 or not workdir.exists()
        codes[code] += 1
    assert min(codes[0], codes[2]) >= COUNT // 10


WORDS = (
    *(
        "quickstart",
        "README.md",
        "empty",
        "d.json",
        "raises.py",
        "nowhere",
        "beta",
        "guidance",
        "features",
        "generator",
    ),
    *("imagenet", "folder", "list", "check", "convert", "probe", "generation", "bundle", "local", "slurm", "v5e:3x3"),
    *(
        "nodes=2",
        "parallel=0",
        "0-1",
        "shared",
        "-1",
        "--json",
        "--help",
        "--versoin",
        "--config.seed=1",
        "--dry_run",
    ),
)
OPTIONS = re.compile(r"--[a-z_]+")


def a_line(rng: random.Random, options: dict[str, list[str]]) -> list[str]:
    """A verb with some of its options and values that may have nothing to do with them."""
    verb = rng.choice(list(COMMANDS))
    words = [verb]
    for option in rng.sample(options[verb], min(len(options[verb]), rng.randint(0, 4))):
        words += [option, rng.choice((*WORDS, str(TINY), rng.choice(NASTY)))]
    words += rng.choices(WORDS, k=rng.choice((0, 0, 1, 2)))
    if verb == "sweep":
        words.append("--dry_run")
    return words


def test_command_lines(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fae_jax.commands.compile.ask", lambda *a, **k: pytest.fail("nothing is compiled here"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = {}
    for verb in COMMANDS:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        options[verb] = sorted(set(OPTIONS.findall(capfd.readouterr().out)) - {"--help"})
    rng, codes = random.Random(1), Counter()
    for _ in range(COUNT):
        codes[outcome(a_line(rng, options), capfd)] += 1
    assert codes[2] >= COUNT // 3
