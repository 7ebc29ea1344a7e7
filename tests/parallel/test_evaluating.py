"""Two real processes draw one set of samples and score it: what one process leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import fae
from test_hosts import output, start_hosts, wait


def evaluated(finished: Path, workdir: Path, hosts: int) -> dict[str, Any]:
    for name in ("config.json", "encoder", "features", "pixels", "finetune", "generator"):
        workdir.mkdir(exist_ok=True)
        (workdir / name).symlink_to(finished / name)
    metrics = '--config.evaluation.generation.metrics=("recognised", "frechet", "nearest")'
    words = ("evaluate", "--workdir", workdir, "--task", "generation", metrics, "--config.evaluation.samples=21")
    if hosts == 1:
        fae(*words)
    else:
        codes = wait(start_hosts(hosts, *words, folder=workdir / "output"), workdir / "output")
        assert codes == [0] * hosts, [output(workdir / "output", host) for host in range(hosts)]
    return json.loads((workdir / "evaluation" / "generation.json").read_text())


@pytest.mark.slow
def test_two_hosts_draw_and_score_one_set(finished: Path, tmp_path: Path):
    one, two = evaluated(finished, tmp_path / "one", 1), evaluated(finished, tmp_path / "two", 2)
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
