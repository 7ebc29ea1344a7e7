"""Eight devices give a decoder and its discriminator the curve of one, what losses remember included."""

from pathlib import Path

import pytest
from running import on_eight_devices


@pytest.mark.slow
def test_the_curve_of_both_players_does_not_depend_on_the_devices():
    """Eight, with the batch in two parts; the adaptive weight and LeCam's averages are of the whole batch."""
    seen = on_eight_devices(Path(__file__).parent / "gan_devices.py")
    for one, eight in zip(seen["one"], seen["eight"], strict=True):
        assert eight == pytest.approx(one, rel=1e-11, abs=1e-13)
    last = seen["one"][-1]
    assert last["gan_weight"] > 0 and last["gan/logits_real"] != last["gan/logits_fake"] and last["skipped"] == 0
