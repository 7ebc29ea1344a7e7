"""What disks and networks do to bytes."""

import numpy as np


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one bit of it, anywhere, the other way round."""
    spoilt = bytearray(content)
    spoilt[int(rng.integers(len(spoilt)))] ^= 1 << int(rng.integers(8))
    return bytes(spoilt)
