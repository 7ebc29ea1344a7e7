"""The end of the page: where the time went, and the commands that go on from here."""

from __future__ import annotations

import shlex

from fae_jax.report.markup import Markup, tag
from fae_jax.report.reading import Record
from fae_jax.report.words import duration, spoken

ORDER = ("install", "encoder", "features", "pixels", "finetune", "cache", "generator", "sample", "evaluate")


def times_section(record: Record) -> Markup | None:
    """A bar for each phase, as long as it took."""
    if not record.timings:
        return None
    names = [name for name in ORDER if name in record.timings]
    names += [name for name in record.timings if name not in ORDER]
    longest = max(record.timings.values()) or 1.0
    total = sum(seconds for name, seconds in record.timings.items() if name != "install")
    rows = [
        tag(
            "tr",
            tag("th", spoken(name), scope="row"),
            tag("td", duration(record.timings[name])),
            tag(
                "td",
                tag("i", style=f"width:{100 * record.timings[name] / longest:.1f}%", class_="bar"),
                class_="wide",
            ),
            class_="aside" if name == "install" else None,
        )
        for name in names
    ]
    label = "together, without install" if "install" in record.timings else "together"
    end = tag("tfoot", tag("tr", tag("th", label, scope="row"), tag("td", duration(total)), tag("td")))
    table = tag("div", tag("table", tag("tbody", rows), end), class_="table times")
    return tag("section", tag("header", tag("h2", "Time")), table, id="time")


def commands(workdir: str) -> list[tuple[str, str, list[str]]]:
    """(title, what it does, lines) of the ways to go on; shell-safe whatever the working directory is called."""
    here = shlex.quote(workdir)
    imagenet = "fae run --config imagenet256_dinov2g --workdir runs/imagenet256 --config.data.path=/data/imagenet"
    on_bucket = imagenet.replace("runs/", "/mnt/fae/")
    return [
        (
            "Sample",
            "Draw more: any classes, any guidance, any seed, any sampler.",
            [
                f"fae sample --workdir {here} --classes 3,7 --number 64 --guidance 2.0 --seed 1",
                f"fae sample --workdir {here} --sampler heun --steps 25 --name heun",
            ],
        ),
        (
            "Evaluate",
            "Score again; every result is a JSON file in evaluation/ and this page is drawn anew.",
            [f"fae evaluate --workdir {here} --task {task}" for task in ("generation", "reconstruction", "probe")],
        ),
        (
            "Your own images",
            "A folder with one subfolder per class goes the same way as the digits.",
            ["fae quickstart --data FOLDER --out runs/mine"],
        ),
        (
            "The paper's experiment",
            "ImageNet at 256 with a published encoder: the same stages, one configuration file.",
            [imagenet],
        ),
        (
            "A TPU pod",
            "The same command on every host; they find each other. launch/tpu_setup.sh mounts a bucket at /mnt/fae.",
            [f"gcloud compute tpus tpu-vm ssh POD --worker=all --command='{on_bucket}'"],
        ),
        (
            "Slurm",
            "One task per node; coordinator and ranks come from the allocation.",
            [f"srun --nodes=4 --ntasks-per-node=1 {imagenet}"],
        ),
    ]


def next_section(record: Record) -> Markup:
    """The commands to go on from here, each line ready to copy."""
    blocks = [
        tag(
            "div",
            tag("h3", title),
            tag("p", meaning),
            tag("pre", [tag("code", line) for line in lines]),
            class_="command",
        )
        for title, meaning, lines in commands(str(record.workdir))
    ]
    return tag(
        "section", tag("header", tag("h2", "Go on from here")), tag("div", blocks, class_="commands"), id="next"
    )
