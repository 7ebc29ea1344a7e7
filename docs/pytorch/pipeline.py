"""Draws images with an FAE that `fae export --format diffusers` wrote.

    pipe = DiffusionPipeline.from_pretrained("folder", trust_remote_code=True)
    images = pipe(class_labels=[207, 360], seed=0).images

The same seed gives the images of fae_jax. What is not given is as the model's configuration has it.
"""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput


class FAEPipeline(DiffusionPipeline):
    """`vae`: FAEAutoencoder; `transformer`: FAETransformer."""

    def __init__(self, vae, transformer):
        super().__init__()
        self.register_modules(vae=vae, transformer=transformer)

    @torch.no_grad()
    def __call__(
        self, class_labels, seed=0, num_inference_steps=None, sampler=None, guidance=None, output_type="pil"
    ):
        """Images of these classes; the number of classes itself means "of no class".

        Args:
          seed: of all noise.
          num_inference_steps, sampler: steps of euler, heun or euler_maruyama.
          guidance: intervals (low, high, weight) over time, 1 = noise; [] for none.
          output_type: pil, np (b, y, x, 3) or pt (b, 3, y, x); numbers are in [0, 1].
        """
        latents = self.transformer.sample(class_labels, seed, sampler, num_inference_steps, guidance)
        images = self.vae.decode(latents).sample / 2 + 0.5
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).float().cpu().numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(images) if output_type == "pil" else images)
