"""Two real processes draw one set of samples and score it: what one process leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import fae
from test_hosts import output, start_hosts, wait

from fae_jax.evaluation.metrics import numbers_of

FIELDS = (
    'generation.metrics=("recognised", "frechet", "nearest")',
    "samples=21",
    "guidance.weights=(1.0, 2.0)",
    "guidance.highs=(0.7,)",
    "guidance.emas=(0.9,)",
    "guidance.samples=11",
)


def run(hosts: int, *words: object, folder: Path) -> None:
    """`fae WORDS`, on that many hosts."""
    if hosts == 1:
        fae(*words)
        return
    codes = wait(start_hosts(hosts, *words, folder=folder), folder)
    assert codes == [0] * hosts, [output(folder, host) for host in range(hosts)]


def evaluated(finished: Path, workdir: Path, hosts: int) -> tuple[dict[str, Any], dict[str, Any]]:
    for name in ("config.json", "encoder", "features", "pixels", "finetune", "generator"):
        workdir.mkdir(exist_ok=True)
        (workdir / name).symlink_to(finished / name)
    fields = [f"--config.evaluation.{field}" for field in FIELDS]
    run(
        hosts,
        "evaluate",
        "--workdir",
        workdir,
        "--task",
        "generation",
        "guidance",
        *fields,
        folder=workdir / "output",
    )
    generation, guidance = (workdir / "evaluation" / f"{task}.json" for task in ("generation", "guidance"))
    return json.loads(generation.read_text()), json.loads(guidance.read_text())


@pytest.mark.slow
def test_two_hosts_draw_and_score_one_set(finished: Path, tmp_path: Path):
    one, one_sweep = evaluated(finished, tmp_path / "one", 1)
    two, two_sweep = evaluated(finished, tmp_path / "two", 2)
    for name in ("guided", "unguided"):
        ours, theirs = (tmp_path / hosts / "samples" / name for hosts in ("two", "one"))
        with np.load(ours / "samples.npz") as first, np.load(theirs / "samples.npz") as second:
            np.testing.assert_array_equal(first["arr_0"], second["arr_0"])
            np.testing.assert_array_equal(first["arr_1"], second["arr_1"])
        assert (ours / "grid.png").read_bytes() == (theirs / "grid.png").read_bytes()
        assert sorted(path.name for path in ours.iterdir()) == ["grid.png", "samples.npz", "settings.json"]
        distances = [result["sets"][name].pop("frechet") for result in (two, one)]
        for side in ("samples_to_heldout", "train_to_heldout"):  # features are rounded otherwise in other batches
            assert distances[0].pop(side) == pytest.approx(distances[1].pop(side), rel=1e-6)
        assert distances[0] == distances[1] and two["sets"][name] == one["sets"][name]
    assert two["origin"]["hosts"] == 2 and two["origin"]["sets"] == one["origin"]["sets"]
    assert not (tmp_path / "two" / "evaluation" / "parts").exists()

    assert two_sweep["best"]["name"] == one_sweep["best"]["name"] and len(one_sweep["points"]) == 2
    ours, theirs = (dict(numbers_of(sweep["points"])) for sweep in (two_sweep, one_sweep))
    assert ours == pytest.approx(theirs, rel=1e-6) and len(set(theirs.values())) > 4

    words = ("sample", "--workdir", tmp_path / "two", "--number", 21, "--format", "png")
    run(2, *words, folder=tmp_path / "two" / "output")
    drawn, guided = tmp_path / "two" / "samples" / "samples", tmp_path / "one" / "samples" / "guided"
    with np.load(drawn / "samples.npz") as first, np.load(guided / "samples.npz") as second:
        np.testing.assert_array_equal(first["arr_0"], second["arr_0"])
        files = sorted((drawn / "images").iterdir())
        np.testing.assert_array_equal([np.asarray(Image.open(file)) for file in files], second["arr_0"])
