"""Scores and figures of a trained FAE: generation, reconstruction, probe, and the page that shows them."""

from fae_jax.evaluation.frechet import Moments, frechet_distance
from fae_jax.evaluation.generation import (
    LabelledImages,
    RealImages,
    Sampling,
    evaluate_samples,
    write_generation,
)
from fae_jax.evaluation.judge import Judge, low_resolution, train_judge
from fae_jax.evaluation.nearest import CopyCheck, Nearest, nearest
from fae_jax.evaluation.probe import evaluate_probe, write_probe
from fae_jax.evaluation.reconstruction import (
    ReconstructionScores,
    evaluate_reconstruction,
    psnr,
    ssim,
    write_reconstruction,
)
from fae_jax.evaluation.standard_figures import write_features, write_nearest, write_reconstructions
from fae_jax.files.writing import write_result

__all__ = [
    "CopyCheck",
    "Judge",
    "LabelledImages",
    "Moments",
    "Nearest",
    "RealImages",
    "ReconstructionScores",
    "Sampling",
    "evaluate_probe",
    "evaluate_reconstruction",
    "evaluate_samples",
    "frechet_distance",
    "low_resolution",
    "nearest",
    "psnr",
    "ssim",
    "train_judge",
    "write_features",
    "write_generation",
    "write_nearest",
    "write_probe",
    "write_reconstruction",
    "write_reconstructions",
    "write_result",
]
