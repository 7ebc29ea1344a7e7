"""Eight devices give MeanFlow, STARFlow and post-training the curve of one, and the same samples."""

from pathlib import Path

import numpy as np
import pytest
from running import on_eight_devices


@pytest.mark.slow
def test_curves_and_samples_do_not_depend_on_the_devices():
    """Eight, with the batch in two parts."""
    seen = on_eight_devices(Path(__file__).parent / "generator_devices.py")
    post_trained = seen.pop("post_training")
    assert set(seen) == {"starflow", "mean_flow"}
    for one, eight in seen.values():
        assert one["held"] == 1 and eight["held"] == 1 / 8
        np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-5)
        assert len(set(one["losses"])) == 3
        np.testing.assert_allclose(eight["drawn"], one["drawn"], atol=1e-5)
        assert np.std(one["drawn"]) > 0.1
    for one, eight in post_trained.values():
        for ours, theirs in zip(eight, one, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert one[0][-1] < one[0][3]
