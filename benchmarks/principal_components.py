"""What the best linear compression of features would understand: a yardstick for a compressor of the same width.

    python benchmarks/principal_components.py --workdir runs/attention --limit 1500

Reads the features that `data.features` keeps (held-out images are encoded if they are not there yet), takes the
principal components of the standardised features of the first 1,000 training images, and prints for each width: the
share of variance missed, and the accuracy of the classifiers of `fae evaluate --task probe` (logistic regression and
10 nearest neighbours on the mean patch, learnt from x) on what comes back, and of one learnt anew.
"""

from __future__ import annotations

import argparse

import numpy as np

from fae_jax.data.stores.latents import LatentSource
from fae_jax.evaluation.tasks.probe import Linear, ProbeSection
from fae_jax.evaluation.voting import vote
from fae_jax.stages.experiment import Experiment
from fae_jax.workdir import Workdir

WIDTHS = (8, 16, 32, 48, 64, 128)
SETTINGS = ProbeSection(linear="logistic", neighbours=(10,))


def mean_patches(source: LatentSource, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean patch of each of the first images, (count, d), and their classes."""
    pieces = [source[position] for position in range(min(count, len(source)))]
    means = np.stack([piece["features"].astype(np.float32).mean(0) for piece in pieces])
    return means, np.array([piece["label"] for piece in pieces])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--limit", type=int, default=1500, help="images of a split")
    arguments = parser.parse_args()
    workdir = Workdir(arguments.workdir)
    experiment = Experiment(workdir.read_config(), workdir)
    train, heldout = (experiment.parts.stored_features(split) for split in ("train", "heldout"))
    if train is None or heldout is None:
        parser.error("the experiment keeps no features (data.features), or its encoder has a class token")
    statistics = train.header.statistics
    mean, std = statistics.mean.astype(np.float32), statistics.std.astype(np.float32)
    covariance = np.zeros((len(mean), len(mean)))
    for position in range(min(1000, len(train))):
        tokens = (train[position]["features"].astype(np.float32) - mean) / std
        covariance += tokens.T @ tokens / len(tokens)
    values, directions = np.linalg.eigh(covariance)
    (voters, classes), (shown, wanted) = (mean_patches(source, arguments.limit) for source in (train, heldout))
    linear = Linear((voters,), classes, (shown,), wanted, SETTINGS)

    def neighbours(vectors: np.ndarray) -> float:
        found = vote(vectors, voters, classes, neighbours=[10], temperature=SETTINGS.temperature)[10]
        return float(np.mean(found == wanted))

    print(f"x: linear {linear.accuracy:.3f}, neighbours {neighbours(shown):.3f}")
    for width in WIDTHS:
        axes = directions[:, -width:].astype(np.float32)
        latents = [((vectors - mean) / std) @ axes for vectors in (voters, shown)]
        returned = (latents[1] @ axes.T) * std + mean
        own = Linear((latents[0],), classes, (latents[1],), wanted, SETTINGS).accuracy
        missed = 1 - values[-width:].sum() / values.sum()
        print(
            f"{width} components: missed {missed:.3f}, linear {linear.on((returned,), wanted):.3f}, "
            f"neighbours {neighbours(returned):.3f}, linear of their own {own:.3f}"
        )


if __name__ == "__main__":
    main()
