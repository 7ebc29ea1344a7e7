"""A stage: what it trains, what it reads, what it needs before it, and the file it leaves for those after it.

`stage.json` in a stage's folder is all that later stages and models ask of it: the hashes of what it was made of,
the sizes and statistics they need, and the step it was finished at, written after the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fae_jax import __version__
from fae_jax.conditions import reads_text
from fae_jax.files.writing import json_hash, write_json
from fae_jax.parts import Parts
from fae_jax.training.state import Player
from fae_jax.training.task import Preview
from fae_jax.workdir import Workdir

if TYPE_CHECKING:
    from fae_jax.stages.experiment import Experiment

FILE = "stage.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
      name: what users call it.
      run: carries it out, and leaves its record.
      needs: stages that must be finished before it.
      players: from what there is → what is trained, by name; None for a stage that trains nothing.
      frozen: parts of the tokenizer that are read and not trained, and "text", the tower of the condition.
      also_frozen: configuration → more of them, where it asks for them.
      reads: what its batches hold: "images", "features", "features and images", "latents".
      images: whether it opens the training images though its batches hold none.
      start: player → part of the tokenizer that it starts from, as an earlier stage left it.
      networks: configuration → frozen networks that its losses look through, by name, each with its weights' file.
      check: refuses a configuration that the stage cannot be run with, before anything is computed; raises ValueError
        or FileNotFoundError.
      absent: configuration → why an experiment of it has no such stage, "" where it has.
      drawn: configuration → that which its network is drawn with; None where it leaves no generator.
      given: parts → parameters that players start from which no stage left; None for none.
      preview: (parts, frozen, images) → what is shown of a state, or None; None for nothing. A stage that reads
        latents is given no images.
      is_there: (experiment, record) → whether what it left is still there; None where that is its last checkpoint.
      field: the section of the configuration it is trained by, where that is not its name.
      folder: its folder in the working directory, where that is not its name.
    """

    name: str
    run: Callable[[Experiment, Stage], None]
    needs: tuple[str, ...] = ()
    players: Callable[[Parts], Mapping[str, Player]] | None = None
    frozen: tuple[str, ...] = ()
    also_frozen: Callable[[Any], tuple[str, ...]] = lambda config: ()
    reads: str = "images"
    images: bool = False
    start: Mapping[str, str] = dataclasses.field(default_factory=dict)
    networks: Callable[[Any], Mapping[str, tuple[Any, str]]] = lambda config: {}
    check: Callable[[Any], object] = lambda config: None
    absent: Callable[[Any], str] = lambda config: ""
    drawn: Callable[[Any], Any] | None = None
    given: Callable[[Parts], Mapping[str, Any]] | None = None
    preview: Callable[[Parts, Mapping[str, Any], Mapping[str, Any]], Preview | None] | None = None
    is_there: Callable[[Experiment, Record], bool] | None = None
    field: str = ""
    folder: str = ""

    def section(self, config: Any) -> Any:
        """Its section of the configuration."""
        return getattr(config, self.field or self.name)

    def frozen_parts(self, config: Any) -> tuple[str, ...]:
        """What it reads: not the encoder where features are stored, nor a text tower where there is no text."""
        idle = {"encoder"} if config.data.features and self.reads.startswith("features") else set()
        idle |= set() if reads_text(config) else {"text"}
        return tuple(part for part in (*self.frozen, *self.also_frozen(config)) if part not in idle)

    def frozen_params(self, parts: Parts) -> dict[str, Any]:
        """Parameters of all that it reads, by name."""
        networks = {name: parts.network(*each) for name, each in self.networks(parts.config).items()}
        return {part: parts.params(part) for part in self.frozen_parts(parts.config)} | networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """The content of `stage.json`.

    Attributes:
      made_of: what it was made of, by name: hashes of images, encoder, latents and so on.
      facts: what later stages and models must know, as plain JSON values.
      finished: the step it ended at; None while it goes on.
      checkpoint: the listing of its last one, see `fae_jax.training.checkpoints`.
      version: the version that began it.
    """

    made_of: Mapping[str, str]
    facts: Mapping[str, Any]
    finished: int | None = None
    checkpoint: str = ""
    version: str = __version__


def read_record(workdir: Workdir, folder: str) -> Record | None:
    """What a stage left, or None where it has not begun.

    Raises:
      ValueError: the file is damaged.
    """
    file = workdir.stage(folder) / FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
        if content.pop("sha256") != json_hash(content):
            raise ValueError("its hash is of another content")
        return Record(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{file} is damaged or was edited ({' '.join(str(error).split())[:100]}): give it back as it was, or "
            f"remove the folder {file.parent} to begin the stage anew"
        ) from error


def write_record(workdir: Workdir, folder: str, record: Record) -> None:
    """Writes it, atomically, with its hash."""
    content = json.loads(json.dumps(dataclasses.asdict(record)))
    write_json(workdir.stage(folder) / FILE, {**content, "sha256": json_hash(content)})


def check_lineage(stage: str, workdir: Workdir, record: Record, made_of: Mapping[str, str]) -> None:
    """Refuses to go on with anything else than a stage was begun with.

    Raises:
      ValueError: names it, and both hashes.
    """
    for name, now in made_of.items():
        before = record.made_of.get(name, "not recorded")
        if before != now:
            raise ValueError(
                f"stage {stage} of {workdir.root} was made of {name} {before[:12]}, and these are {now[:12]}: give "
                f"back the {name} it was begun with, or begin again in another --workdir"
            )
