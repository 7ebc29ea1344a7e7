#!/bin/bash
# Prepares a worker of a TPU VM: installs fae_jax with the TPU build of JAX, and mounts the bucket of experiments.
#
#     tpu_setup.sh WHEEL [BUCKET [MOUNT]]
#
# WHEEL: built by `pip wheel --no-deps -w dist .`, here or in the bucket as gs://…; BUCKET is mounted at MOUNT (default
# /mnt/fae) by gcsfuse, which is installed from its Debian package if it is not there. Running it twice does no harm.
set -euo pipefail

wheel="$1"
bucket="${2:-}"
mount="${3:-/mnt/fae}"

if [[ "$wheel" == gs://* ]]; then
  gcloud storage cp "$wheel" /tmp/
  wheel="/tmp/$(basename "$wheel")"
fi
[ -d "$HOME/fae" ] || python3 -m venv "$HOME/fae"
"$HOME/fae/bin/pip" install --quiet "${wheel}[tpu]"

if [ -n "$bucket" ] && ! mountpoint --quiet "$mount"; then
  command -v gcsfuse >/dev/null || sudo apt-get install -y --no-install-recommends gcsfuse
  sudo mkdir -p "$mount"
  sudo chown "$(id -u):$(id -g)" "$mount"
  # Checkpoints are finished by renaming their folder, which gcsfuse does file by file up to this many.
  gcsfuse --implicit-dirs --rename-dir-limit=100000 "$bucket" "$mount"
fi
