"""A trained model for the world outside. The contract of a format, and the table of kinds.

A kind is one file here, or an entry point in the group `fae_jax.exports` of another package: a function

    write(parts, folder, *, ema, provenance) → the folder

of `fae_jax.parts.Parts`, a folder that is not there yet, the EMA of the generator, and what to say of the origin. A
function that has the argument `few_steps` too is given that of the command line.
"""

EXPORTS = {
    "bundle": "fae_jax.bundle:write_bundle",
    "diffusers": "fae_jax.export.diffusers:write_diffusers",
    "stablehlo": "fae_jax.export.stablehlo:write_stablehlo",
}
