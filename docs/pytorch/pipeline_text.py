"""Draws images from texts with an FAE that `fae export --format diffusers` wrote: `SD3Transformer2DModel`,
`FlowMatchEulerDiscreteScheduler`, and FAE's decoder.

    pipe = DiffusionPipeline.from_pretrained("folder", trust_remote_code=True)
    images = pipe(["a dog beside a fountain"], seed=0).images

The same seed gives the images of fae_jax. What is not given is as the model's configuration has it.
"""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch.nn import functional as F


class Masked:
    """Attention of SD3's transformer in which padded texts are no keys; without a mask it is diffusers' own."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        def heads(x, linear, norm):
            x = linear(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return x if norm is None else norm(x)

        of_image = ((attn.to_q, attn.norm_q), (attn.to_k, attn.norm_k), (attn.to_v, None))
        of_text = (
            (attn.add_q_proj, attn.norm_added_q),
            (attn.add_k_proj, attn.norm_added_k),
            (attn.add_v_proj, None),
        )
        joint = [
            torch.cat([heads(hidden_states, *image), heads(encoder_hidden_states, *text)], 2)
            for image, text in zip(of_image, of_text, strict=True)
        ]
        mixed = F.scaled_dot_product_attention(*joint, attn_mask=attention_mask).transpose(1, 2).flatten(2)
        image, text = mixed.split((hidden_states.shape[1], encoder_hidden_states.shape[1]), 1)
        return attn.to_out[0](image), text if attn.context_pre_only else attn.to_add_out(text)


class FAETextPipeline(DiffusionPipeline):
    """`vae`: FAEAutoencoder; `transformer`: SD3Transformer2DModel; `scheduler`: FlowMatchEulerDiscreteScheduler."""

    def __init__(self, vae, transformer, scheduler):
        super().__init__()
        self.register_modules(vae=vae, transformer=transformer, scheduler=scheduler)
        transformer.set_attn_processor(Masked())

    @torch.no_grad()
    def embed(self, texts, tower=None):
        """What the transformer is told of texts: [(tokens (n, d), pooled (p,)), …]; of an empty one no token, zeros.

        Args:
          tower: folder or hub name of the text tower for transformers; None for the one it was trained with.
        """
        from transformers import AutoModel, AutoTokenizer, T5EncoderModel

        own = self.vae.config.content["text"]
        t5 = "t5" in own["tower"]
        if own.get("skip") or not (t5 or own["tower"].startswith("minilm")):
            raise ValueError(f"the tower {own['tower']} is not read here: give prompt_embeds")
        tower = tower or own["repository"]
        network = (T5EncoderModel if t5 else AutoModel).from_pretrained(tower).to(self.transformer.device).eval()
        tokenizer, told = AutoTokenizer.from_pretrained(tower), []
        for text in texts:
            given = tokenizer(text, truncation=True, max_length=own["tokens"], return_tensors="pt").to(network.device)
            tokens = network(**given).last_hidden_state[0].float()
            pooled = tokens.mean(0)
            pooled = pooled if t5 else pooled / pooled.norm()
            told.append((tokens, pooled) if text.strip() else (tokens[:0], torch.zeros_like(pooled)))
        return told

    def padded(self, told):
        """(tokens (b, n, d), pooled (b, p), mask (b, 1, 1, image and text)) of what `embed` gives."""
        count, length = self.transformer.config.sample_size**2, max(1, *(len(tokens) for tokens, _ in told))
        tokens = torch.stack([F.pad(tokens, (0, 0, 0, length - len(tokens))) for tokens, _ in told])
        mask = torch.stack([torch.arange(count + length) < count + len(tokens) for tokens, _ in told])
        device = self.transformer.device
        return (
            tokens.to(device),
            torch.stack([pooled for _, pooled in told]).to(device),
            mask[:, None, None].to(device),
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt=None,
        negative_prompt="",
        seed=0,
        num_inference_steps=None,
        guidance=None,
        prompt_embeds=None,
        negative_prompt_embeds=None,
        tower=None,
        output_type="pil",
    ):
        """An image of each prompt.

        Args:
          seed: of all noise.
          num_inference_steps: steps of Euler's method.
          guidance: intervals (low, high, weight) over time, 1 = noise; [] for none.
          prompt_embeds, negative_prompt_embeds: what `embed` would give, in the place of prompts.
          tower: see `embed`.
          output_type: pil, np (b, y, x, 3) or pt (b, 3, y, x); numbers are in [0, 1].
        """
        own = self.vae.config.content["config"]["sampling"]
        steps, guidance = num_inference_steps or own["steps"], own["guidance"] if guidance is None else guidance
        if prompt_embeds is None:
            prompts = [prompt] if isinstance(prompt, str) else list(prompt)
            *prompt_embeds, against = self.embed([*prompts, negative_prompt], tower)
            negative_prompt_embeds = negative_prompt_embeds or [against] * len(prompt_embeds)
        if negative_prompt_embeds is None:
            negative_prompt_embeds = [(tokens[:0], torch.zeros_like(pooled)) for tokens, pooled in prompt_embeds]
        told, other = self.padded(prompt_embeds), self.padded(negative_prompt_embeds)
        z = torch.cat([self.vae.noise(seed, i) for i in range(len(prompt_embeds))])
        self.scheduler.set_timesteps(sigmas=torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1].tolist())

        def velocity(tokens, pooled, mask):
            kwargs = {"attention_mask": mask}
            return self.transformer(z, tokens, pooled, t.expand(len(z)), joint_attention_kwargs=kwargs).sample

        for t, time in zip(self.scheduler.timesteps.to(z.device), self.scheduler.sigmas.tolist(), strict=False):
            v = velocity(*told)
            weight = next((w for low, high, w in guidance if low < time <= high), 1)
            v = v if weight == 1 else v + (weight - 1) * (v - velocity(*other))
            z = self.scheduler.step(v, t, z, return_dict=False)[0]
        images = self.vae.decode(self.vae.unstandardised(z)).sample / 2 + 0.5
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).float().cpu().numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(images) if output_type == "pil" else images)
