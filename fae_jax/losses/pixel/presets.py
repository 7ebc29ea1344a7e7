"""Losses of the pixel decoder that others train with, as named lists of terms with their settings.

| preset | terms | of |
|---|---|---|
| `titok` | L2 on [0, 1] · LPIPS · 0.1 × logits of ConvNeXt-S · 0.1 × hinge PatchGAN from step 0, with LeCam of 10⁻³ | the autoencoders of TiTok (arXiv 2406.07550) and Apple's STARFlow |
| `rae` | L1 on [0, 1] · LPIPS · 0.75 × adaptive hinge GAN by heads on a frozen DINO, augmented, against images of 8 bits: D from 6/16 of the steps on, the decoder from 8/16 | RAE (arXiv 2510.11690), whose 16 epochs the shares are of |

Terms here are on [−1, 1], so that L2 on [0, 1] is a quarter of `l2`, and L1 half of `l1`. What a preset sets in
`pixel_losses` is in the place of the fields there; the others keep what they have.
"""  # noqa: E501

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


class Preset(NamedTuple):
    """A list of losses.

    Attributes:
      losses: (term, weight, share of the stage's steps before it begins).
      settings: fields of terms in `pixel_losses`.
      discriminator: share of the steps before the discriminator begins.
    """

    losses: tuple[tuple[str, float, float], ...]
    settings: Mapping[str, Mapping[str, Any]]
    discriminator: float


_GAN = {"loss": "hinge", "r1": 0.0}
PRESETS = {
    "titok": Preset(
        losses=(("l2", 0.25, 0), ("lpips", 1.0, 0), ("convnext", 0.1, 0), ("gan", 0.1, 0)),
        settings={
            "lpips": {"trunk": "vgg"},
            "gan": {
                **_GAN,
                "network": "patch",
                "adaptive": False,
                "lecam": 1e-3,
                "lecam_decay": 0.999,
                "augment": False,
                "rounded": False,
                "channels": 128,
                "stages": 3,
            },
        },
        discriminator=0,
    ),
    "rae": Preset(
        losses=(("l1", 0.5, 0), ("lpips", 1.0, 0), ("gan", 0.75, 8 / 16)),
        settings={
            "lpips": {"trunk": "vgg"},
            "gan": {
                **_GAN,
                "network": "dino",
                "adaptive": True,
                "lecam": 0.0,
                "augment": True,
                "cutout": 0.0,
                "rounded": True,
                "size": 9,
                "learning_rate": 2e-4,
                "betas": (0.9, 0.95),
            },
        },
        discriminator=6 / 16,
    ),
}


def chosen_losses(section: Any, sections: Any) -> tuple[tuple[Any, ...], Any]:
    """A stage's losses and `pixel_losses`, as they are or as the stage's preset has them."""
    if not section.preset:
        return section.losses, sections
    preset = PRESETS[section.preset]
    losses = tuple((name, weight, round(share * section.steps)) for name, weight, share in preset.losses)
    changed = {name: dict(fields) for name, fields in preset.settings.items()}
    changed["gan"]["start"] = round(preset.discriminator * section.steps)
    changes = {name: dataclasses.replace(getattr(sections, name), **fields) for name, fields in changed.items()}
    return losses, dataclasses.replace(sections, **changes)
