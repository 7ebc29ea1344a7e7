"""Results of different origin never bear one name."""

import json
from pathlib import Path

from fae_jax.evaluation.origin import keep_other, origin_of
from fae_jax.files.writing import write_result


def written(file: Path, steps: int, seconds: float) -> str:
    origin = origin_of({"sets": {"guided": {"steps": steps}}}, seconds)
    keep_other(file, origin)
    write_result(file, {"score": steps, "origin": origin})
    return origin["digest"]


def test_a_result_of_another_origin_is_kept_and_one_of_the_same_replaced(tmp_path: Path):
    file = tmp_path / "generation.json"
    file.write_text('{"score": 1}')  # of a version that told no origin
    digests = [written(file, 50, 3.0), written(file, 50, 4.0), written(file, 250, 3.0), written(file, 50, 3.0)]
    assert digests[0] == digests[1] == digests[3] != digests[2]
    names = {"generation.json", "generation-earlier.json", f"generation-{digests[2]}.json"}
    assert {path.name for path in tmp_path.iterdir()} == names | {f"generation-{digests[0]}.json"}
    assert json.loads((tmp_path / f"generation-{digests[2]}.json").read_text())["score"] == 250
    assert json.loads(file.read_text())["score"] == 50


def test_an_origin_names_versions_and_device():
    origin = origin_of({}, 1.26)
    assert origin.keys() >= {"fae_jax", "jax", "python", "device", "devices", "hosts", "digest"}
    assert origin["seconds"] == 1.3 and origin_of({}, 9.0)["digest"] == origin["digest"]
