"""Eight devices give MeanFlow and STARFlow the curve of one, and the same samples."""

from pathlib import Path

import numpy as np
import pytest
from running import on_eight_devices


@pytest.mark.slow
def test_curves_and_samples_do_not_depend_on_the_devices():
    """Eight, with the batch in two parts."""
    seen = on_eight_devices(Path(__file__).parent / "generator_devices.py")
    assert set(seen) == {"starflow", "mean_flow"}
    for one, eight in seen.values():
        assert one["held"] == 1 and eight["held"] == 1 / 8
        np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-5)
        assert len(set(one["losses"])) == 3
        np.testing.assert_allclose(eight["drawn"], one["drawn"], atol=1e-5)
        assert np.std(one["drawn"]) > 0.1
