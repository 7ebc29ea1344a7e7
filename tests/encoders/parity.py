"""Random networks made by `transformers`, saved as it saves them, and how far apart two results are."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)


def randomise(model, seed=0):
    """Every parameter away from its start, so that a norm's bias or a LayerScale that is not read shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 and "embed" not in name else 16
            noise = torch.randn(parameter.shape, generator=generator) / np.sqrt(max(fan, 1))
            if "SelfAttention.q" in name:  # T5 keeps 1/√e in its queries' weights
                noise = noise / np.sqrt(model.config.d_kv)
            if name == "shared.weight":
                noise = torch.randn(parameter.shape, generator=generator)
            unit = parameter.ndim == 1 and bool(torch.all(parameter == parameter.flatten()[0])) and parameter[0] == 1
            parameter.copy_(noise + 1 if unit else noise)
    return model.eval()


def saved(model, folder):
    """The folder `save_pretrained` writes, and its config.json."""
    randomise(model).save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def pixels(rng, batch, height, width):
    """Images as (b, y, x, c) for us and (b, c, y, x) for the reference."""
    images = rng.standard_normal((batch, height, width, 3)).astype(np.float32)
    return images, torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def distance(got, want):
    """Largest difference as a share of the reference's scale (its largest absolute value)."""
    want = want.detach().numpy() if hasattr(want, "detach") else np.asarray(want)
    assert got.shape == want.shape
    return float(np.abs(np.asarray(got, np.float32) - want).max() / np.abs(want).max())
