"""What a checked source holds and what was left out of it, as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from fae_jax.data.prepare.checking import Checked
from fae_jax.data.sources.stored import StoredSource

EXAMPLES = 20


def summarise(source: StoredSource, checked: Checked) -> dict[str, Any]:
    """Counts, sizes, classes, captions, duplicates, and what was skipped and why, as JSON values.

    Args:
      source: the images.
      checked: what is known of them.
    """
    used = checked["used"]
    reasons: dict[str, dict[str, Any]] = {}
    for skip in source.skipped:
        _add(reasons, skip.reason, f"{skip.name}{': ' + skip.detail if skip.detail else ''}")
    for position in np.flatnonzero(checked["reason"] != "").tolist():
        detail = str(checked["detail"][position])
        _add(reasons, str(checked["reason"][position]), f"{source.name(position)}{': ' + detail if detail else ''}")
    height, width = checked["height"][used], checked["width"][used]
    _, copies = np.unique(checked["content"][checked["size"] > 0], return_counts=True)
    summary = {
        "found": len(source) + len(source.skipped),
        "used": len(used),
        "skipped": sum(reason["count"] for reason in reasons.values()),
        "bytes": int(checked["size"][used].sum()),
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1]["count"])),
        "duplicates": {"groups": int((copies > 1).sum()), "extra": int((copies - 1).sum())},
        "shorter side": _spread(np.minimum(height, width)),
        "longer side": _spread(np.maximum(height, width)),
        "aspect": _spread(np.maximum(height, width) / np.maximum(np.minimum(height, width), 1)),
        "bytes per image": _spread(checked["size"][used]),
        "fingerprint": source.fingerprint,
    }
    if source.captioned:
        summary["caption length"] = _spread(checked["caption"][used])
    else:
        counts = np.bincount(checked["label"][used], minlength=len(source.classes))
        summary["classes"] = {name: int(count) for name, count in zip(source.classes, counts, strict=True)}
        summary["images per class"] = _spread(counts)
        summary["empty classes"] = [name for name, count in summary["classes"].items() if not count]
    return summary


def _add(reasons: dict[str, dict[str, Any]], reason: str, example: str) -> None:
    entry = reasons.setdefault(reason, {"count": 0, "examples": []})
    entry["count"] += 1
    if len(entry["examples"]) < EXAMPLES:
        entry["examples"].append(example)


def _spread(values: np.ndarray) -> dict[str, float]:
    """Smallest, 5 %, half, 95 %, largest and mean."""
    if not len(values):
        return {}
    points = np.percentile(values, (0, 5, 50, 95, 100)).tolist()
    return dict(zip(("min", "5%", "median", "95%", "max", "mean"), (*points, float(values.mean())), strict=True))
