"""`fae config`: what fields there are; and docs/configuration.md, which holds the same."""

import json
from pathlib import Path

import pytest

from fae_jax.cli.program import main
from fae_jax.commands.config import as_markdown
from fae_jax.config import load_config
from fae_jax.config.composing import describe_all

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_holds_every_field():
    written = as_markdown(describe_all().values())
    assert PAGE.read_text().endswith(written), "docs/configuration.md is behind: append `fae config --markdown`"
    assert written.count("\n| `") + written.count("\n| · `") == len(describe_all()) > 180


def test_the_pages_own_configuration_loads_from_anywhere(tmp_path: Path):
    (tmp_path / "my_experiment.py").write_text(PAGE.read_text().split("```python\n")[1].split("```")[0])
    assert load_config(str(tmp_path / "my_experiment.py")).generator.steps == 800


def test_a_field_a_section_and_a_mistyped_one(capsys: pytest.CaptureFixture[str]):
    assert main(["config", "logging.every"]) == 0
    assert capsys.readouterr().out == (
        "logging.every=100  # steps between lines of metrics (may differ at a restart)\n"
    )
    assert main(["config", "checkpoint", "--json"]) == 0
    *lines, answer = capsys.readouterr().out.splitlines()
    assert [line.split("=")[0] for line in lines] == list(json.loads(answer))
    kept = json.loads(answer)["checkpoint.keep"]
    assert len(lines) == 4 and kept == {"default": 2, "is": "newest checkpoints kept"}
    for name, meant in (("genrator", "generator"), ("generator.step", "generator.steps")):
        assert main(["config", name]) == 2
        assert f"{name!r}; did you mean {meant!r}?" in capsys.readouterr().err
