"""The networks of every stage as PyTorch users have them: blocks of `diffusers` and `transformers`.

Each has the widths, depths and tokens of ours for the same configuration. The transformers' SwiGLU blocks carry a
LayerScale, and LayerNorms where ours have RMSNorms. `diffusers`' DiT is compared with ours switched to its structure;
it embeds time and class in every block, so it has more parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ADAMW = {"lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.0}


def swiglu_stack(width: int, depth: int, heads: int, hidden: int) -> nn.Module:
    """Pre-norm SwiGLU blocks: DINOv2's of `transformers`.

    Raises:
      ValueError: its inner width is not the one it derives from `width`.
    """
    import transformers

    derived = (int(4 * width * 2 / 3) + 7) // 8 * 8
    if hidden != derived:
        raise ValueError(f"the peer's inner width follows from width={width}: hidden must be {derived}, got {hidden}")
    config = transformers.Dinov2Config(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        use_swiglu_ffn=True,
        attn_implementation="sdpa",
    )
    blocks = transformers.Dinov2Model(config).encoder.layer

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = blocks

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
                x = x[0] if isinstance(x, tuple) else x
            return x

    return Stack()


class Decoder(nn.Module):
    """Linear, position table, blocks, norm, and a last linear where `out` is given."""

    def __init__(
        self, *, tokens: int, channels: int, width: int, depth: int, heads: int, hidden: int, out: int | None
    ):
        super().__init__()
        self.embed = nn.Linear(channels, width)
        self.position = nn.Parameter(torch.zeros(tokens, width))
        self.blocks = swiglu_stack(width, depth, heads, hidden)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Identity() if out is None else nn.Linear(width, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.blocks(self.embed(x) + self.position)))


class Autoencoder(nn.Module):
    """The attention compressor and a feature decoder; returns what the VAE loss needs."""

    def __init__(self, *, features: int, latent: int, heads: int, head_width: int, decoder: nn.Module):
        super().__init__()
        self.joint = nn.Linear(features, 4 * heads * head_width)
        self.moments = nn.Linear(heads * head_width, 2 * latent)
        self.heads, self.decoder = heads, decoder

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        *parts, skip = self.joint(x).chunk(4, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        mean, log_variance = self.moments(functional.silu(skip + mixed)).chunk(2, dim=-1)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(latents), mean, log_variance


def autoencoder_step(model: nn.Module, features: torch.Tensor, optimizer: Any) -> Callable[[], torch.Tensor]:
    """A step of stage Ia on features."""

    def loss() -> torch.Tensor:
        decoded, mean, log_variance = model(features)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return functional.mse_loss(decoded, features) + 5e-4 * kl

    return _step(model, loss, optimizer)


def pixels_step(
    model: nn.Module, features: torch.Tensor, pixels: torch.Tensor, optimizer: Any
) -> Callable[[], torch.Tensor]:
    """A step of stage Ib on features: patches (b, n, values of a patch)."""

    def loss() -> torch.Tensor:
        return functional.mse_loss(model(features + 0.4 * torch.randn_like(features)), pixels)

    return _step(model, loss, optimizer)


def make_dit(*, side: int, channels: int, width: int, depth: int, heads: int, classes: int) -> nn.Module:
    """`diffusers`' DiT on side × side tokens; LayerNorm, tanh-GELU of four times the width, no rotary positions."""
    import diffusers

    return diffusers.DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=channels,
        out_channels=channels,
        num_layers=depth,
        sample_size=side,
        patch_size=1,
        num_embeds_ada_norm=classes,
    )


def dit_step(
    model: nn.Module, latents: torch.Tensor, labels: torch.Tensor, optimizer: Any
) -> Callable[[], torch.Tensor]:
    """A step of stage II on latents (b, c, y, x)."""

    def loss() -> torch.Tensor:
        noise, time = torch.randn_like(latents), torch.rand(len(latents), device=latents.device)
        part = time[:, None, None, None]
        velocity = model((1 - part) * latents + part * noise, timestep=time, class_labels=labels).sample
        return functional.mse_loss(velocity, noise - latents)

    return _step(model, loss, optimizer)


def dit_sample(
    model: nn.Module, latents: torch.Tensor, labels: torch.Tensor, none: int, steps: int
) -> Callable[[], torch.Tensor]:
    """Euler steps under guidance throughout: two evaluations of each image a step, in one batch."""
    both = torch.cat([labels, torch.full_like(labels, none)])

    @torch.inference_mode()
    def run() -> torch.Tensor:
        z = torch.randn_like(latents)
        for step in range(steps):
            time = torch.full((len(both),), 1 - step / steps, device=z.device)
            with_class, without = model(torch.cat([z, z]), timestep=time, class_labels=both).sample.chunk(2)
            z = z - (without + 2.5 * (with_class - without)) / steps
        return z

    return run


def optimise(model: nn.Module, loss: torch.Tensor, optimizer: Any) -> None:
    """A step down the slope of a loss, clipped."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _step(model: nn.Module, loss: Callable[[], torch.Tensor], optimizer: Any) -> Callable[[], torch.Tensor]:
    half = next(model.parameters()).device.type == "cuda"

    def step() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            value = loss()
        optimise(model, value, optimizer)
        return value.detach()

    return step
