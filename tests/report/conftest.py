"""A working directory as a finished run leaves it, small and invented."""

import json
from pathlib import Path

import numpy as np
import pytest
from page_reader import Page
from PIL import Image

from fae_jax.report import write_report
from fae_jax.stages.figures import write_figure

STAGES = ("encoder", "features", "pixels", "finetune", "generator")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_stage(workdir: Path, name: str, steps: int = 200) -> None:
    rng = np.random.default_rng(len(name))
    lines = []
    for step in range(1, steps + 1, 2):
        loss = float(3 * np.exp(-step / 40) + 0.05 + 0.01 * rng.random())
        row = {"step": step, "loss": loss, "gradient_norm": 1.0 / step, "skipped": 0.0}
        lines.append(json.dumps({**row, "images_per_second": 400.0, "seconds": step * 0.1}))
    folder = workdir / name
    (folder / "previews").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for step in (100, 200):
        image = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "previews" / f"step_{step:08d}.png")
    write_json(folder / "previews" / "README.json", {"caption": f"what {name} sees & makes"})


def scores(accuracy: float, names: list[str]) -> dict:
    return {
        "count": 40,
        "sampling": {
            "sampler": "euler",
            "steps": 50,
            "function_evaluations": 85,
            "label_policy": "balanced",
            "seed": 0,
        },
        "accuracy": accuracy,
        "accuracy_per_class": dict.fromkeys(names, accuracy),
        "count_per_class": dict.fromkeys(names, 10),
        "lowest_class": {"name": names[-1], "accuracy": accuracy - 0.05},
        "frechet": {"samples_to_heldout": 0.81, "train_to_heldout": 0.29, "samples": 40, "train": 90, "heldout": 30},
        "nearest": {
            "median_samples": 0.2,
            "median_heldout": 0.15,
            "median_ratio_samples": 0.97,
            "median_ratio_heldout": 0.93,
            "limit_percentile": 1.0,
            "limit": 0.05,
            "fraction_close": 0.025,
            "close": [3],
            "identical": 0,
        },
    }


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Every file that the page knows, for four classes of random 8×8 images."""
    workdir = tmp_path / "run"
    names = ["ant", "bee", "cat", "dog"]
    training = {"steps": 200, "batch": 16}
    sections = dict.fromkeys(("encoder_training", "features", "pixels", "finetune", "generator"), training)
    encoder = {"name": "vit", "train": True, "width": 24}
    config = {"name": "small run", "seed": 5, "data": {"source": "digits", "image_size": 8}, "encoder": encoder}
    write_json(workdir / "config.json", {**config, **sections})
    for name in STAGES:
        write_stage(workdir, name)
    times = {"install": 100.0, **dict.fromkeys(STAGES, 20.0), "cache": 3.0, "sample": 7.0, "evaluate": 10.0}
    write_json(workdir / "timings.json", times)
    identity = {"encoder": "vit", "image_size": 8}
    header = {"identity": identity, "hash": "0a1b2c", "images": 90, "views": 1, "bytes": 123456, "shape": [16, 6]}
    write_json(workdir / "latents" / "0a1b2c" / "header.json", {**header, "classes": names})
    rng = np.random.default_rng(0)
    for name, guidance in (("guided", [[0.9, 1.0, 0.9], [0.0, 0.7, 2.5]]), ("unguided", None)):
        folder = workdir / "samples" / name
        folder.mkdir(parents=True)
        images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
        np.savez(folder / "samples.npz", images=images, labels=np.arange(40) % 4)
        Image.fromarray(images[0]).save(folder / "grid.png")
        settings = {"sampler": "euler", "steps": 50, "guidance": guidance, "seed": 9, "function_evaluations": 85}
        write_json(folder / "settings.json", {**settings, "label_policy": "balanced", "count": 40})
    judge = {"heldout_accuracy": 0.991, "trusted": True, "minimum_accuracy": 0.98}
    sets = {name: {**scores(share, names), "judge": judge} for name, share in (("unguided", 0.7), ("guided", 0.95))}
    generation = {"schema": 2, "class_names": names, "sets": sets}
    write_json(workdir / "evaluation" / "generation.json", generation)
    rebuilt = {"count": 30, "psnr": 22.13, "psnr_lowest": 18.0, "ssim": 0.85, "ssim_lowest": 0.6}
    write_json(workdir / "evaluation" / "reconstruction.json", {"schema": 1, "sets": {"heldout": rebuilt}})
    linear = {"x": 0.97, "reconstructed": 0.96, "z": 0.95, "loss_in_points": 1.0}
    votes = {"x": 0.9, "reconstructed": 0.89, "z": 0.88, "k": 10}
    probe = {"linear": linear, "nearest_neighbour": votes, "cosine": 0.982, "explained_variance": 0.93, "heldout": 30}
    write_json(workdir / "evaluation" / "probe.json", probe)
    for name in ("nearest", "features", "reconstructions"):
        write_figure(workdir, name, Image.new("RGBA", (60, 20), (9, 9, 9, 255)), f"the caption of {name}")
    return workdir


@pytest.fixture
def page_of() -> type[Page]:
    """HTML → its tags and text; the test fails where it is not well formed."""
    return Page


@pytest.fixture
def draw():
    """Working directory → its page, read."""
    return lambda workdir, **options: Page(write_report(workdir, **options).read_text())


@pytest.fixture
def rewrite():
    """Changes a JSON file in place."""

    def rewrite(path: Path, change) -> None:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return rewrite
