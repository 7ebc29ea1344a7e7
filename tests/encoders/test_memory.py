"""Host memory while weights are read: at most 1.3 times the file, whatever the network."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from published_files import write

from fae_jax.encoders.recognise import recognise
from fae_jax.weights import flatten, mapping
from fae_jax.weights.tensors import Tensors

LOAD = """
import json, re, sys
from pathlib import Path
import jax
from fae_jax.encoders import create
jax.block_until_ready(jax.numpy.zeros(3))
def peak():
    # Not getrusage: that begins with the peak of the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
encoder = create(sys.argv[1], weights=sys.argv[2], image_size=224)
jax.block_until_ready(encoder.params)
print(json.dumps({"grown": peak() - before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
def test_peak_while_loading(tmp_path):
    fields = {"model_type": "dinov2", "hidden_size": 768, "num_hidden_layers": 8, "num_attention_heads": 12}
    fields |= {"patch_size": 14, "image_size": 518}
    network = recognise(fields)
    leaves = {name: leaf.shape for name, leaf in flatten(network.shapes()).items()}
    tensors = mapping.expected(network.names, leaves, Tensors({}))
    folder = write(tmp_path, fields, {name: np.zeros(shape, np.float32) for name, shape in tensors.items()})
    size = os.path.getsize(tmp_path / "model.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, "pretrained", folder],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    grown = json.loads(done.stdout)["grown"]
    assert 0.95 * size < grown < 1.3 * size, grown / size
