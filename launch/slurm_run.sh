#!/bin/bash
#SBATCH --job-name=fae
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One experiment on Slurm, on any number of nodes: JAX finds the other tasks by itself.
#
#     sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-task=1 --time=24:00:00 launch/slurm_run.sh \
#         run --config imagenet256_dinov2g --workdir /shared/imagenet256
#
# Two minutes before the time limit the run saves and the job queues itself again; `scancel` saves as well, and
# `scontrol requeue JOB` continues. FAE names the program where `fae` is not on the PATH.
set -euo pipefail

asked=""
# shellcheck disable=SC2317 # called by the trap
save() { # asks the run, not srun, which would not wait for it
  asked=yes
  scancel --signal=TERM "$SLURM_JOB_ID"
}
trap save USR1
trap : TERM # Slurm tells the run itself; this script waits for it

if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then # which srun takes from the job no more, since Slurm 22.05
  export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi
srun --kill-on-bad-exit=1 "${FAE:-fae}" "$@" &
step=$!
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends `wait`, not the run
  code=0
  wait "$step" || code=$?
done
if [ -n "$asked" ] && [ "$code" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
