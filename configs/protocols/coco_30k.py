"""COCO FID-30K, zero-shot: one sample of each of 30,000 captions of val2014, unguided and guided, in one call.

    fae evaluate --make_reference val2014.npz --samples coco:annotations/captions_val2014.json \\
        --image_size 256 --metrics fid
    fae evaluate --workdir W --task generation --protocol coco_30k \\
        --config.evaluation.generation.captions=annotations/captions_val2014.json \\
        --config.evaluation.generation.reference=val2014.npz

The paper's table of text-to-image: FID 7.47 unguided, 6.90 guided (configs/cc12m_dinov2g_256.py); 7.57 and 7.11
(configs/cc12m_siglip2_256.py). It does not say which captions: here evaluation.seed draws them.
Cost: 30,000 × 250 evaluations of the generator unguided, and twice that many where guidance acts.
"""

from typing import Any


def get_protocol() -> dict[str, Any]:
    return {
        "evaluation.samples": 30_000,
        "evaluation.generation.metrics": ("fid",),
        "evaluation.generation.unguided_sampler": "euler_maruyama",
        "evaluation.generation.guided_sampler": "euler",
        "sampling.steps": 250,
        "sampling.dtype": "float32",
    }
