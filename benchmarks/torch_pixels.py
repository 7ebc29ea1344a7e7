"""A step of a pixel decoder and its discriminator as PyTorch users write it: L2, LPIPS, PatchGAN by hinge, LeCam.

Networks as in `fae_jax.extractors.lpips` and `fae_jax.losses.pixel.patch`, of the same widths, with random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch_peers import optimise

STAGES = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))


class LPIPS(nn.Module):
    """Distances of features of a frozen VGG16."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for place, widths in enumerate(STAGES):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if place else []
            for before, after in zip(widths, widths[1:], strict=False):
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            self.stages.append(nn.Sequential(*layers))
        self.weights = nn.ParameterList([torch.full((widths[-1],), 0.01) for widths in STAGES])
        self.requires_grad_(False)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        seen = []
        for stage in self.stages:
            x = stage(x)
            seen.append(functional.normalize(x, dim=1, eps=1e-10))
        return seen

    def forward(self, decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            theirs = self.features(images)
        distances = [
            torch.einsum("bcyx,c->byx", (a - b) ** 2, weight).mean()
            for a, b, weight in zip(self.features(decoded), theirs, self.weights, strict=True)
        ]
        return torch.stack(distances).sum()


class BlurPool(nn.Module):
    """Half the grid, by (1, 3, 3, 1) in both directions."""

    def __init__(self, channels: int):
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", (line[:, None] * line / 64).expand(channels, 1, 4, 4).contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.kernel, stride=2, padding=1, groups=x.shape[1])


class Discriminator(nn.Sequential):
    """PatchGAN with blur-pooling and group norm, 16×16 logits."""

    def __init__(self, channels: int, stages: int = 3):
        widths = [channels * 2 ** max(stage - 1, 0) for stage in range(stages + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 5, padding=2), nn.LeakyReLU(0.1)]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), BlurPool(after)]
            layers += [nn.GroupNorm(32, after), nn.LeakyReLU(0.1)]
        layers += [nn.AdaptiveMaxPool2d(16), nn.Conv2d(widths[-1], widths[-1], 1), nn.LeakyReLU(0.1)]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 5, padding=2))


def titok_step(
    networks: tuple[nn.Module, nn.Module, nn.Module],
    features: torch.Tensor,
    images: torch.Tensor,
    optimizers: tuple[Any, Any],
) -> Callable[[], torch.Tensor]:
    """Both players' step on features (b, n, d) and images (b, 3, y, x) in [−1, 1]; images are decoded once."""
    decoder, discriminator, lpips = networks
    mean = {"real": torch.zeros((), device=images.device), "fake": torch.zeros((), device=images.device)}
    grid, half = int(features.shape[1] ** 0.5), images.device.type == "cuda"
    patch = images.shape[-1] // grid

    def step() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            patches = decoder(features + 0.4 * torch.randn_like(features))
            patches = patches.unflatten(1, (grid, grid)).unflatten(3, (patch, patch, 3))
            decoded = patches.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3).contiguous()
            discriminator.requires_grad_(False)
            adversarial = -discriminator(decoded / 2 + 0.5).mean()
            loss = 0.25 * functional.mse_loss(decoded, images) + lpips(decoded, images) + 0.1 * adversarial
        optimise(decoder, loss, optimizers[0])
        discriminator.requires_grad_(True)
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            real, fake = discriminator(images / 2 + 0.5), discriminator(decoded.detach() / 2 + 0.5)
            hinge = (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()) / 2
            lecam = functional.relu(real - mean["fake"]).square() + functional.relu(mean["real"] - fake).square()
        optimise(discriminator, hinge + 1e-3 * lecam.mean(), optimizers[1])
        for name, logits in (("real", real), ("fake", fake)):
            mean[name].lerp_(logits.detach().mean().float(), 1e-3)
        return loss.detach()

    return step
