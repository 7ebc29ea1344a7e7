"""ImageNet-50k, class-conditional, as ADM's evaluator scores it: two sets, unguided and guided, in one call.

    fae evaluate --workdir W --task generation --protocol imagenet_50k \\
        --config.evaluation.generation.reference=VIRTUAL_imagenet256_labeled.npz

The paper's table of ImageNet 256, configs/imagenet256_dinov2g.py: FID 1.48 unguided, 1.29 guided at 800 epochs. It
does not say how its labels are drawn: here as sampling.labels says, balanced by default; random costs about .1 FID.
Cost: 50,000 × 250 evaluations of the generator unguided, and twice that many where guidance acts.
"""

from typing import Any


def get_protocol() -> dict[str, Any]:
    return {
        "evaluation.samples": 50_000,
        "evaluation.generation.metrics": ("fid", "sfid", "inception_score", "precision_recall"),
        "evaluation.generation.unguided_sampler": "euler_maruyama",  # the SDE
        "evaluation.generation.guided_sampler": "euler",  # the ODE
        "sampling.steps": 250,
        "sampling.dtype": "float32",
    }
