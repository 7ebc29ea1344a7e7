"""Pages that show a run's curves beside `metrics.jsonl`: TensorBoard, and Weights & Biases where it is asked for.

A board shows and never decides: where it fails, it says so once and is left alone, and the run goes on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from fae_jax.files.moving import Outbox
from fae_jax.files.paths import Path, absolute
from fae_jax.files.progress import say


class Board(Protocol):
    """Where scalars and images of steps are shown."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def image(self, step: int, image: np.ndarray, caption: str) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `tensorboard/` of a stage; a thread of its own writes them."""

    def __init__(self, directory: Path, step: int):
        from tensorboardX import SummaryWriter  # brings PyTorch where that is installed

        self._outbox = Outbox(directory / "tensorboard")
        self._writer = SummaryWriter(str(self._outbox.folder), purge_step=step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, image: np.ndarray, caption: str) -> None:
        self._writer.add_image("preview", image, step, dataformats="HWC")

    def flush(self) -> None:
        self._writer.flush()
        self._outbox.send()

    def close(self) -> None:
        self._writer.close()
        self._outbox.close()


class WeightsAndBiases:
    """One W&B run per working directory and stage, taken up again at a restart; sent by W&B's own process.

    Args:
      project: its name there.
      directory: of the stage.
    """

    def __init__(self, project: str, directory: Path):
        import wandb

        self._wandb = wandb
        place = absolute(directory)
        self._outbox = Outbox(directory)
        self._run = wandb.init(
            project=project,
            id=hashlib.sha256(str(place).encode()).hexdigest()[:16],
            name=f"{place.parent.name}/{place.name}",
            dir=str(self._outbox.folder),
            resume="allow",
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def image(self, step: int, image: np.ndarray, caption: str) -> None:
        self._run.log({"preview": self._wandb.Image(image, caption=caption)}, step=step)

    def flush(self) -> None:
        """Its own process sends."""

    def close(self) -> None:
        self._run.finish()
        self._outbox.close()


def check_boards(logging: Any) -> None:
    """Refuses boards that cannot be shown here.

    Raises:
      ValueError: W&B is asked for and not installed.
    """
    if logging.wandb and "wandb" not in sys.modules and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"field logging.wandb={logging.wandb!r} needs the package wandb: pip install 'fae_jax[wandb]', or leave "
            "it empty"
        )


class Boards:
    """All boards of a stage."""

    def __init__(self, directory: Path, step: int, logging: Any):
        self._boards: list[Board] = []
        if logging.tensorboard:
            self._try("TensorBoard", lambda: self._boards.append(TensorBoard(directory, step)))
        if logging.wandb:
            self._try("W&B", lambda: self._boards.append(WeightsAndBiases(logging.wandb, directory)))

    def _try(self, name: str, call: Callable[[], Any]) -> bool:
        try:
            call()
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            say(f"warning: {name} shows nothing more of this run: {text}")
            return False
        return True

    def _each(self, call: Callable[[Board], Any]) -> None:
        self._boards = [board for board in self._boards if self._try(type(board).__name__, lambda b=board: call(b))]

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._each(lambda board: board.scalars(step, values))

    def image(self, step: int, image: np.ndarray, caption: str) -> None:
        self._each(lambda board: board.image(step, image, caption))

    def flush(self) -> None:
        self._each(lambda board: board.flush())

    def close(self) -> None:
        self._each(lambda board: board.close())
        self._boards = []
