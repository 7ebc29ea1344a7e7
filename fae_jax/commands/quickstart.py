"""All of FAE on a laptop in minutes, on real data, without a download: from a small encoder trained on the spot to
samples, scores and a report. Interrupted anywhere and run again, it continues; finished, it returns at once."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from fae_jax.cli.opening import holding
from fae_jax.config import load_config, settle
from fae_jax.data.sources.kinds import open_source
from fae_jax.evaluation.tasks import prepare
from fae_jax.files.progress import say
from fae_jax.files.writing import read_json
from fae_jax.report import write_report
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.running import run_stages
from fae_jax.workdir import Workdir

TASKS = ("probe", "reconstruction", "generation")
AGAIN = "remove it, and the same command makes it anew"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="runs/quickstart", metavar="DIR", help="default: runs/quickstart")
    parser.add_argument(
        "--captions", action="store_true", help="digits with sentences, drawn from text (docs/text.md)"
    )
    parser.add_argument("--data", metavar="FOLDER", help="your own images, one subfolder per class (default: digits)")
    parser.epilog = "--config.section.field=value overrides a field of configs/quickstart.py"


def configure(data: str | None, overrides: list[tuple[str, str]], captions: bool = False) -> Any:
    """The quickstart's configuration, for digits, for sentences about digits, or for a folder of images.

    Raises:
      ValueError: sentences and a folder are asked for.
    """
    if captions and data is not None:
        raise ValueError(
            "--captions draws digits from sentences, and --data gives images with classes: leave one out"
        )
    config = load_config("quickstart_captions" if captions else "quickstart")
    if data is not None:
        config.name = Path(data).resolve().name
        config.data.source, config.data.path = "folder", data
        config.data.flip = True
        source = open_source("folder", path=config.data.path, split="train", holdout=config.data.holdout, seed=0)
        config.data.classes = len(source.classes)
    return settle(config, overrides)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    begun = time.monotonic()
    workdir = Workdir(arguments.out)
    config = configure(arguments.data, arguments.overrides, arguments.captions)
    workdir.check_config(config)
    with holding(Experiment(config, workdir)) as experiment:
        if arguments.data is not None:
            size, patches = config.data.image_size, (config.data.image_size // config.encoder.patch) ** 2
            say(
                f"quickstart: images become {size}×{size} in {patches} patches, enough for digits and little for "
                f"photographs; --config.data.image_size={2 * size} gives {4 * patches} patches for some four times "
                "the arithmetic"
            )
        run_stages(experiment)
        tasks = TASKS[1:] if arguments.captions else TASKS  # a probe needs held-out images of known classes
        missing = [task for task in tasks if not (workdir.evaluation / f"{task}.json").is_file()]
        if missing:
            prepare(experiment, missing)()
        results = {task: read_json(workdir.evaluation / f"{task}.json", AGAIN) for task in tasks}
        report = write_report(workdir.root)
    say(f"quickstart: {time.monotonic() - begun:.1f} s; open {report}")
    return {"report": str(report), "workdir": str(workdir.root), "evaluation": results}
