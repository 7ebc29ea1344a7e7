"""The two halves of an FAE as diffusers' models; what they compute is in `read_bundle.py`, which `fae export` puts in
front of this, since diffusers fetches one file of code for each component."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput
from read_bundle import FAE, normal, threefry


class FAEPart(ModelMixin, ConfigMixin):
    """Some parts of a model.

    Args:
      content: configuration, facts of the encoder, and statistics of the latents, as a bundle has them.
      shapes: {name of a parameter: its shape}; the name begins with that of the part.
    """

    @register_to_config
    def __init__(self, content: dict, shapes: dict):
        super().__init__()
        for name, shape in shapes.items():
            *path, last = name.split(".")
            module = self
            for key in path:
                if key not in module._modules:
                    module.add_module(key, torch.nn.Module())
                module = module._modules[key]
            module.register_parameter(last, torch.nn.Parameter(torch.empty(shape)))

    @property
    def fae(self):
        parts = {name.split(".")[0]: {} for name in self.config.shapes}
        for name, tensor in self.named_parameters():
            part, _, inside = name.partition(".")
            parts[part][inside] = tensor
        return FAE(content=self.config.content, parts={"feature_decoder": {}, **parts})


class FAEAutoencoder(FAEPart):
    """Images (b, 3, y, x) in [−1, 1] and latents (b, c, rows, columns), as the generator's statistics are of."""

    def encode(self, images):
        """By the encoder, where it was trained for the model; otherwise see `compress`."""
        return EncoderOutput(latent=self.fae.encode(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    def compress(self, features):
        """A published encoder's patch features (b, n, width) in the place of images."""
        return EncoderOutput(latent=self.fae.compress(features).permute(0, 3, 1, 2))

    def decode(self, latents):
        return DecoderOutput(sample=self.fae.decode(latents.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    def noise(self, seed, place):
        """What fae_jax begins image `place` of a seed with, (1, c, rows, columns)."""
        mean = self.config.content["latents"]["statistics"]["mean"]
        z = normal(threefry((0, seed), 0, place), 0, (math.prod(self.fae.grid), len(mean)))
        return z.unflatten(0, self.fae.grid).permute(2, 0, 1)[None].to(next(self.parameters()))

    def unstandardised(self, latents):
        """A generator's latents (b, c, rows, columns) as `decode` takes them."""
        statistics = self.config.content["latents"]["statistics"]
        mean, variance = (torch.tensor(statistics[name]).to(latents)[:, None, None] for name in ("mean", "variance"))
        return latents * variance.sqrt() + mean


class FAETransformer(FAEPart):
    """The velocity of the straight path from latents to noise."""

    def forward(self, hidden_states, timestep, class_labels):
        """Standardised latents (b, n, c) at one time in [0, 1] (1 = noise) → velocity (b, n, c)."""
        return self.fae.velocity(hidden_states, timestep, class_labels)

    def sample(self, class_labels, seed=0, sampler=None, steps=None, guidance=None):
        """Latents (b, c, rows, columns), one per label."""
        fae = self.fae
        fae.decode = lambda latents: latents  # that is the other half's
        return fae.generate(class_labels, seed, sampler, steps, guidance).permute(0, 3, 1, 2)
