"""What is reached, what is missed, and what is not known yet."""

import json

import pytest

from fae_jax.report.reading import Record
from fae_jax.report.verdicts import judge_verdicts, summary, tiles


def verdicts(workdir, targets=None):
    return {verdict.name: verdict for verdict in judge_verdicts(Record.read(workdir), targets)}


def change(workdir, name, *keys, value):
    path = workdir / "evaluation" / f"{name}.json"
    result = json.loads(path.read_text())
    inner = result
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(result))


def test_a_good_run_on_digits_reaches_every_target(finished):
    found = verdicts(finished)
    aimed = {name: verdict.status for name, verdict in found.items() if name not in ("frechet", "close")}
    assert set(aimed.values()) == {"reached"} and len(aimed) == 7
    assert found["accuracy"].shown == "95.0 %" and found["accuracy"].beside == "target ≥ 92 %"
    assert found["loss_in_points"].beside == "target ≤ 1.5 points" and found["cosine"].beside == "target ≥ 0.95"
    assert found["psnr"].shown == "22.1 dB" and found["psnr"].beside == "target ≥ 20 dB"
    assert found["frechet"].status == "information" and found["frechet"].beside == "real training images: 0.290"
    assert found["close"].shown == "2.5 %" and found["close"].beside == "expected by chance: 1 %"


def test_the_verdict_is_about_guided_samples(finished):
    assert verdicts(finished)["accuracy"].shown == "95.0 %"
    path = finished / "evaluation" / "generation.json"
    result = json.loads(path.read_text())
    del result["sets"]["guided"]
    path.write_text(json.dumps(result))
    only = verdicts(finished)["accuracy"]
    assert only.shown == "70.0 %" and only.status == "missed" and "unguided" in only.meaning


@pytest.mark.parametrize(
    ("name", "file", "keys", "edge", "worse"),
    [
        ("accuracy", "generation", ("sets", "guided", "accuracy"), 0.92, 0.9199),
        ("lowest_class", "generation", ("sets", "guided", "lowest_class", "accuracy"), 0.80, 0.79),
        ("judge", "generation", ("judge", "heldout_accuracy"), 0.98, 0.979),
        ("loss_in_points", "probe", ("linear", "loss_in_points"), 1.5, 1.6),
        ("cosine", "probe", ("cosine",), 0.95, 0.949),
        ("psnr", "reconstruction", ("sets", "heldout", "psnr"), 20.0, 19.9),
    ],
)
def test_targets_are_kept_to_the_digit(finished, name, file, keys, edge, worse):
    change(finished, file, *keys, value=edge)
    assert verdicts(finished)[name].status == "reached"
    change(finished, file, *keys, value=worse)
    assert verdicts(finished)[name].status == "missed"
    change(finished, file, *keys, value=None)
    assert verdicts(finished)[name].status == "pending" and verdicts(finished)[name].shown == "–"


def test_time_is_without_installation_and_only_of_a_finished_run(finished):
    assert verdicts(finished)["seconds"].shown == "2 min"
    (finished / "timings.json").write_text(json.dumps({"install": 5.0, "generator": 301.0}))
    assert verdicts(finished)["seconds"].status == "missed"
    (finished / "evaluation" / "generation.json").unlink()
    assert verdicts(finished)["seconds"].status == "pending"


def test_other_data_has_no_targets_unless_they_are_given(finished):
    config = json.loads((finished / "config.json").read_text())
    config["data"]["source"] = "folder"
    (finished / "config.json").write_text(json.dumps(config))
    assert {verdict.status for verdict in verdicts(finished).values()} == {"information"}
    assert summary(judge_verdicts(Record.read(finished))) is None
    given = verdicts(finished, {"psnr": 30.0})
    assert given["psnr"].status == "missed" and given["accuracy"].status == "information"


def test_a_judge_that_cannot_be_trusted_is_said_to_be_so(finished):
    assert verdicts(finished)["judge"].meaning.endswith(": its word counts")
    change(finished, "generation", "judge", "trusted", value=False)
    assert verdicts(finished)["judge"].meaning.endswith(": too few for its word to count")


def test_the_summary_counts(finished):
    assert "7 of 7 targets reached" in summary(judge_verdicts(Record.read(finished)))
    change(finished, "probe", "cosine", value=0.5)
    (finished / "evaluation" / "reconstruction.json").unlink()
    said = summary(judge_verdicts(Record.read(finished)))
    assert "5 of 7 targets reached, 1 missed, 1 not measured yet" in said and 'class="summary missed"' in said


def test_a_tile_says_in_words_what_its_colour_says(finished):
    change(finished, "probe", "cosine", value=0.5)
    shown = tiles(judge_verdicts(Record.read(finished)))
    assert shown.count('class="tile reached"') == shown.count(">reached<") == 6
    assert shown.count('class="tile missed"') == shown.count(">missed<") == 1
    assert shown.count('class="tile information"') == shown.count(">to compare<") == 2
