"""Files and JSON that are configurations or none, and the stock flag of `ml_collections`."""

import subprocess
import sys
from pathlib import Path

import pytest

from fae_jax.config import default_config, from_json, load_config, override, shipped_configs

V = '{"version": {"fae_jax": "0.1.0", "schema": 2}, '  # how a readable file begins


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[1]", "list"),
        (
            '{"seed": 1}',
            "of an earlier day wrote it with .* schema 1, .* schema 2: use that version, or begin anew in another",
        ),
        (
            '{"version": {"fae_jax": "9.1.0", "schema": 9}, "seed": 1}',
            "fae_jax 9.1.0 wrote it with fields of schema 9",
        ),
        (V + '"sed": 1}', "field sed does not exist; did you mean 'seed'"),
        (V + '"seed": "one"}', "field seed is of type int .now 0., got 'one'"),
        (V + '"data": 5}', "field data does not exist"),
        (V + '"features": {"steps": 1.5}}', "features.steps is of type int"),
    ],
)
def test_json_that_is_no_configuration_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        from_json(text)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nowhere_at_all", "No module named"),
        ("def get_config(:", "invalid syntax"),
        ("x = 1", "get_config"),
        ("def get_config(): return None", "bad.py is not valid: TypeError: get_config.. must return a ConfigDict"),
        ("def get_config(): return {'seed': 1}", "must return a ConfigDict, got dict"),
        (
            "from fae_jax.config import default_config\ndef get_config():\n    default_config().data.pth = 'x'",
            "line 3, is not valid: AttributeError: .Key .pth. does not exist; Did you mean .path. instead",
        ),
        ("open('/no/file')", "line 1, is not valid: FileNotFoundError: .Errno 2. No such file or directory"),
        (
            "from fae_jax.config import default_config\n"
            "def get_config():\n    c = default_config()\n    c.cache.batch = None\n    return c",
            "cache.batch is of type int",
        ),
        (
            "from fae_jax.config import default_config\n"
            "def get_config():\n    c = default_config()\n    c.pixels.noise = float('inf')\n    return c",
            "field pixels.noise must be finite, got inf",
        ),
        ("x = 1\ny = x / 0", "bad.py, line 2, is not valid: ZeroDivisionError: division by zero"),
        ("def get_config():\n    raise RuntimeError('a' * 5000)", "bad.py, line 2, is not valid: RuntimeError: aaa"),
        ("def get_config():\n    assert False, 'no'", "line 2, is not valid: AssertionError: no"),
        ("def get_config():\n    return int('x')", "line 2, is not valid: ValueError: invalid literal"),
        ("import sys\nsys.exit(3)", "line 2, is not valid: SystemExit: 3"),
        ("def f(): f()\nf()", "line 1, is not valid: RecursionError"),
        (
            "from fae_jax.config import default_config\n"
            "def get_config():\n    c = default_config()\n    c.sed = 1\n    return c",
            "sed",
        ),
        (
            "from fae_jax.config import default_config\n"
            "def get_config():\n    c = default_config()\n    c.seed = 'x'\n    return c",
            "seed",
        ),
        (
            "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'sead': 1})",
            "did you mean 'seed'",
        ),
    ],
)
def test_files_that_are_no_configuration_are_refused_in_one_line(tmp_path: Path, code: str, message: str):
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(ValueError, match=message) as caught:
        load_config(str(tmp_path / "bad.py"))
    assert "\n" not in str(caught.value) and "bad.py" in str(caught.value) and len(str(caught.value)) < 600


def test_a_configuration_that_is_not_there_names_those_that_are():
    with pytest.raises(FileNotFoundError, match="no configuration at 'quickstat'.*imagenet256_dinov2g, .*quickstart"):
        load_config("quickstat")


@pytest.mark.parametrize("path", ["quickstart.py:small", "quickstart.json", "README.md", "quickstart/", "no.py", ""])
def test_what_is_no_python_file_is_not_another(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("# no configuration")
    (tmp_path / "quickstart").mkdir()  # a folder of a shipped one's name is in nobody's way
    with pytest.raises(FileNotFoundError, match="give a Python file, or one of"):
        load_config(path)
    assert load_config("quickstart").name == "quickstart"


def test_values_are_read_and_never_evaluated():
    with pytest.raises(ValueError, match="is of type int"):
        override(default_config(), [("seed", "__import__('os').getpid()")])


def test_a_configuration_of_ours_runs_through_the_stock_flag_of_ml_collections(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        "from absl import app\nfrom ml_collections import config_flags\n"
        "FLAG = config_flags.DEFINE_config_file('config')\n"
        "app.run(lambda _: print(FLAG.value.generator.flow_matching.dit.depth, FLAG.value.seed))\n"
    )
    given = [
        f"--config={shipped_configs() / 'quickstart.py'}",
        "--config.seed=5",
        "--config.generator.flow_matching.dit.depth=3",
    ]
    done = subprocess.run([sys.executable, str(program), *given], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["3", "5"], done.stderr
