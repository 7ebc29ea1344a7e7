"""The stages of an experiment: one `Stage` object a file, and their table in the order they run.

Another package adds one by an entry point in the group `fae_jax.stages`; it runs after those here.
"""

STAGES = {
    "encoder": "fae_jax.stages.encoder:STAGE",
    "features": "fae_jax.stages.features:STAGE",
    "pixels": "fae_jax.stages.pixels:PIXELS",
    "finetune": "fae_jax.stages.pixels:FINETUNE",
    "cache": "fae_jax.stages.cache:STAGE",
    "generator": "fae_jax.stages.generator:STAGE",
    "post_training": "fae_jax.stages.post_training:STAGE",
}
