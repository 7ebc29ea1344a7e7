#!/bin/bash
# Prepares a worker of a TPU VM: installs uv, a Python of its own, and fae_jax with the TPU build of JAX.
#
#     tpu_setup.sh WHEEL
#
# WHEEL: built by `pip wheel --no-deps -w dist .`, here or in a bucket as gs://…. The image's own Python may be too old
# (3.10 on v2-alpha-tpuv6e). Nothing is mounted: experiments lie in a bucket, --workdir gs://…. Running it twice does no
# harm.
set -euo pipefail

wheel="$1"
if [[ "$wheel" == gs://* ]]; then
  gcloud storage cp "$wheel" /tmp/
  wheel="/tmp/$(basename "$wheel")"
fi
export PATH="$HOME/.local/bin:$PATH"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[ -x "$HOME/fae/bin/python" ] || uv venv --quiet --allow-existing --python 3.12 "$HOME/fae"
uv pip install --quiet --python "$HOME/fae/bin/python" "fae_jax[tpu] @ file://$(realpath "$wheel")"
