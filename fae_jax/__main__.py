"""The command `fae`, also `python -m fae_jax`."""

from fae_jax.cli.program import main

if __name__ == "__main__":
    raise SystemExit(main())
