"""Run by test_caching: one host of several (or the only one), that writes the latent cache of a directory."""

import sys

import jax

from fae_jax.config import override
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.latents import open_latents
from fae_jax.stages.running import run_stage
from fae_jax.workdir import Workdir

folder, latents, coordinator, hosts, host = sys.argv[1:]
if int(hosts) > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, int(hosts), int(host))
config = override(Workdir(folder).read_config(), [("cache.path", latents)])
experiment = Experiment(config, Workdir(folder))
assert run_stage(experiment, "cache")
print(f"{len(jax.devices())} devices, {len(open_latents(experiment.workdir).source)} images")
