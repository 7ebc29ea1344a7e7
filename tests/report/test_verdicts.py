"""What is reached, what is missed, what is not known yet, and what each number is to be compared with."""

import pytest

from fae_jax.report.reading import Record
from fae_jax.report.verdicts import judge_verdicts


def verdicts(workdir, targets=None):
    return judge_verdicts(Record.read(workdir), targets)


@pytest.fixture
def change(finished, rewrite):
    def change(name, *keys, value):
        def put(result):
            for key in keys[:-1]:
                result = result[key]
            result[keys[-1]] = value

        rewrite(finished / "evaluation" / f"{name}.json", put)

    return change


def test_a_good_run_on_digits_reaches_every_target(finished, draw):
    verdict = verdicts(finished)
    aimed = {name: verdict.status for name, verdict in verdict.items() if name not in ("frechet", "close")}
    assert set(aimed.values()) == {"reached"} and len(aimed) == 7
    assert verdict["frechet"].status == verdict["close"].status == "information"
    text = draw(finished).of("verdict")
    for words in (
        "95.0 % ✓ reached target ≥ 92 % chance: 25.0 % · real images: 99.1 %",
        "for the class recognised least (dog, 10 samples)",
        "1 point ✓ reached target ≤ 1.5 points",
        "accuracy on 30 unseen images (one image: 3.33 points)",
        "0.982 ✓ reached target ≥ 0.95 variance explained: 93.0 %",
        "22.1 dB ✓ reached target ≥ 20 dB",
        "0.810 i to compare real training images: 0.290 · unguided: 0.810",
        "40 guided samples to 30 unseen real images in the encoder's features; lower is closer",
        "2.5 % i to compare expected by chance: 1 %",
    ):
        assert words in text, words


def test_a_distance_says_when_its_counts_differ_or_are_too_few(finished, draw, change):
    assert "is that of 90, not 40: compare with care" in draw(finished).of("verdict")
    frechet = {"samples_to_heldout": 1.0, "samples": 90, "train": 90, "dimensions": 31, "too_few": True}
    change("generation", "sets", "guided", "frechet", value=frechet)
    text = draw(finished).of("verdict")
    assert "compare with care" not in text and "So few images in 31 dimensions say little" in text
    change("generation", "sets", "guided", "frechet", value={**frechet, "too_few": False})
    assert "say little" not in draw(finished).of("verdict")


def test_the_verdict_is_about_guided_samples(finished, draw, rewrite):
    assert verdicts(finished)["accuracy"].value == 0.95
    rewrite(finished / "evaluation" / "generation.json", lambda result: result["sets"].pop("guided"))
    only = verdicts(finished)["accuracy"]
    assert only.value == 0.70 and only.status == "missed" and "of 40 unguided samples" in draw(finished).of("verdict")


@pytest.mark.parametrize(
    ("name", "file", "keys", "edge", "worse"),
    [
        ("accuracy", "generation", ("sets", "guided", "accuracy"), 0.92, 0.9199),
        ("lowest_class", "generation", ("sets", "guided", "lowest_class", "accuracy"), 0.80, 0.79),
        ("judge", "generation", ("sets", "guided", "judge", "heldout_accuracy"), 0.98, 0.979),
        ("loss_in_points", "probe", ("linear", "loss_in_points"), 1.5, 1.6),
        ("cosine", "probe", ("cosine",), 0.95, 0.949),
        ("psnr", "reconstruction", ("sets", "heldout", "psnr"), 20.0, 19.9),
    ],
)
def test_targets_are_kept_to_the_digit(finished, change, name, file, keys, edge, worse):
    change(file, *keys, value=edge)
    assert verdicts(finished)[name].status == "reached"
    change(file, *keys, value=worse)
    assert verdicts(finished)[name].status == "missed"
    change(file, *keys, value=None)
    assert verdicts(finished)[name].status == "pending" and verdicts(finished)[name].value is None


def test_time_is_without_installation_and_only_of_a_finished_run(finished):
    assert verdicts(finished)["seconds"].value == 120
    (finished / "timings.json").write_text('{"install": 5.0, "generator": 301.0}')
    assert verdicts(finished)["seconds"].status == "missed"
    (finished / "evaluation" / "generation.json").unlink()
    assert verdicts(finished)["seconds"].status == "pending"


def test_other_data_has_no_targets_unless_they_are_given(finished, draw, rewrite):
    rewrite(finished / "config.json", lambda config: config["data"].update(source="folder"))
    assert {verdict.status for verdict in verdicts(finished).values()} == {"information"}
    assert "targets reached" not in draw(finished).text
    given = verdicts(finished, {"psnr": 30.0})
    assert given["psnr"].status == "missed" and given["accuracy"].status == "information"


def test_a_judge_that_cannot_be_trusted_is_said_to_be_so(finished, draw, change):
    assert "are recognised by that classifier: its word counts" in draw(finished).of("verdict")
    change("generation", "sets", "guided", "judge", "trusted", value=False)
    assert "are recognised by that classifier: too few for its word to count" in draw(finished).of("verdict")


def test_the_summary_counts_and_tiles_say_in_words_what_their_colour_says(finished, draw, change):
    assert "✓ 7 of 7 targets reached data" in draw(finished).text
    change("probe", "cosine", value=0.5)
    (finished / "evaluation" / "reconstruction.json").unlink()
    page = draw(finished)
    assert "✕ 5 of 7 targets reached, 1 missed, 1 not measured yet data" in page.text
    classes = [tile["class"] for tile in page.all("li", "verdict")]
    for status, words, count in (
        ("reached", "✓ reached", 5),
        ("missed", "✕ missed", 1),
        ("information", "i to compare", 2),
        ("pending", "… not measured yet", 1),
    ):
        assert classes.count(f"tile {status}") == page.of("verdict").count(words) == count
