"""`fae compile`: for the machine that is here, and what it refuses in one line."""

import json

import psutil
import pytest
from running import TINY, fae

from fae_jax.cli.program import main
from fae_jax.commands.compile import describe
from fae_jax.compiler import child
from fae_jax.config import load_config

FIGURES = {
    "stage": "generator",
    "fits": False,
    "peak": 20 * 2**30,
    "memory": 16 * 2**30,
    "state": 2**30,
    "temporaries": None,
    "collectives": {},
    "flops": 3.2e15,
    "devices": 16,
    "batch": 512,
    "kind": "v5e",
    "seconds": 40.0,
}


@pytest.mark.slow
def test_what_is_here_is_compiled_for_and_weighed():
    out, err = fae("compile", "--config", TINY, "--stage", "generator", "--stage", "cache", "--json")
    answer = json.loads(out.splitlines()[-1])
    assert answer["fits"] and [each["stage"] for each in answer["stages"]] == ["generator", "cache"]
    generator = answer["stages"][0]
    assert generator["kind"] == "cpu" and generator["devices"] == 1 and generator["topology"] == "here"
    assert 2**28 < generator["memory"] <= psutil.virtual_memory().total
    assert generator["peak"] >= generator["state"] > 0 and generator["collectives"] == {}
    assert out.splitlines()[0].startswith("generator fits") and "compiling cache for this machine" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topology", "v5e-17"], "topology 'v5e-17' is not a slice; the nearest is v5e-16"),
        (["--topology", "auto:v9"], "generation 'v9' is unknown; choose one of v4, v5p, v5e, v6e"),
        (["--stage", "generate"], "'generate' is unknown; did you mean 'generator'?"),
        (["--stage", "generator", "--config.mesh.fsdp=3"], "does not fit 1 devices"),
        (["--config.compute.kernel=splosh"], "field compute.kernel must be one of auto, xla, cpu, cudnn, splash"),
    ],
)
def test_wrong_requests_are_one_line(words: list[str], message: str):
    _, err = fae("compile", "--config", TINY, *words, code=2)
    last = err.splitlines()[-1]
    assert last.startswith("fae: error: ") and message in last


def test_without_the_tpu_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"run: pip install 'fae_jax\[tpu\]'"):
        child.check_compiler("v5e-16")
    child.check_compiler(None)


def test_a_gpu_that_is_not_here_is_an_estimate_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    asked = []

    def ask(config: object, stage: str, topology: str, quick: bool) -> dict[str, object]:
        asked.append(topology)
        return {**FIGURES, "stage": stage, "fits": True, "memory": 96 * 2**30, "peak": 20 * 2**30}

    monkeypatch.setattr("fae_jax.commands.compile.ask", ask)
    monkeypatch.setattr("fae_jax.commands.compile.check_compiler", lambda word: None)
    for word, fits in (("h100", True), ("rtx4090", False)):
        given = ["--config", str(TINY), "--stage", "cache", "--topology", word, "--tries", "0", "--json"]
        assert main(["compile", *given]) == 0
        *lines, answer = capfd.readouterr().out.splitlines()
        (figures,) = json.loads(answer)["stages"]
        assert (figures["kind"], figures["topology"], figures["fits"]) == (word, word, fits)
        assert lines[-1].startswith("method: state exact, temporaries estimated by the TPU compiler (v5p:1x1x1)")
        assert figures["method"] in lines[-1]
    assert set(asked) == {"v5p:1x1x1"} and "peak 20.00 of 16.8 GiB" in lines[0]  # three quarters of 24 GB


def test_a_stage_that_does_not_fit_says_so_in_its_line():
    line = describe(FIGURES)
    assert "not known" in describe({**FIGURES, "fits": None, "memory": None})
    assert "DOES NOT FIT" in line and "peak 20.00 of 16.0 GiB (state 1.00)" in line and "200.0 TFLOP" in line


def test_a_compilation_that_takes_too_long_ends():
    with pytest.raises(child.RunFailed, match="took over 0 s"):
        child.ask(load_config(str(TINY)), "generator", None, limit=0.01)
