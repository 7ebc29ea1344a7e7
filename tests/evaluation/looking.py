"""Run with eight fake devices: what Inception says on 1, 2 and 8 of them, and how far apart it is."""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from fae_jax.evaluation import looks
from fae_jax.extractors import inception
from fae_jax.parallel.mesh import make_mesh

sys.path[:0] = [str(Path(__file__).parents[1] / "extractors")]

from inception_weights import tf_weights  # noqa: E402


def load(name):
    """Inception's first layers."""
    layers = [layer for layer in inception.layers() if layer[0] in inception.STEM]
    tensors = tf_weights(0, layers)
    params = {layer: {"kernel": tensors[f"{layer}/w"], "bias": tensors[f"{layer}/b"]} for _, layer, *_ in layers}
    return looks.Extractor(
        name=name,
        variant="stem",
        weights_hash="0",
        params=params,
        apply=lambda params, x: inception.taps(params, (x.astype(np.float32) - 128) / 128, ("64", "192")),
    )


looks.load_extractor = load
images = np.random.default_rng(0).integers(0, 256, (70, 40, 40, 3), dtype=np.uint8)
said = {}
for devices in (1, 2, 8):
    looked = looks.Looks()
    looked._mesh = make_mesh(devices=jax.devices()[:devices])
    for batch in (1, 7, 64):
        parts = [looked.look("stem", images[start : start + batch]) for start in range(0, len(images), batch)]
        said[f"{devices} {batch}"] = {tap: np.concatenate([part[tap] for part in parts]) for tap in parts[0]}
first = said["1 64"]
apart = {
    name: max(float(np.abs(taps[tap] - first[tap]).max() / np.abs(first[tap]).max()) for tap in first)
    for name, taps in said.items()
}
print(json.dumps({"apart": apart, "devices": len(jax.devices())}))
