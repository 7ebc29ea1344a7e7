"""A trace of chosen steps, for `xprof`, TensorBoard's profile page or Perfetto."""

from __future__ import annotations

import jax

from fae_jax.files.moving import Outbox
from fae_jax.files.paths import Path
from fae_jax.files.progress import say


class ProfileWindow:
    """Traces steps `first` to `last` into `profile/` of a stage; nothing where the window is empty or behind.

    Args:
      directory: of the stage.
      window: (first, last), or () for none.
      start: the step the run continues from; a window that began before it is not traced.
    """

    def __init__(self, directory: Path, window: tuple[int, ...], start: int):
        self._directory = directory / "profile"
        self._first, self._last = window if window and window[0] > start else (0, 0)
        self._running = False

    def touches(self, step: int) -> bool:
        """Whether the trace begins before or ends after this step; the devices must be idle then."""
        return step > 0 and step in (self._first, self._last)

    def before(self, step: int) -> None:
        if step == self._first and step:
            self._outbox = Outbox(self._directory)
            jax.profiler.start_trace(str(self._outbox.folder))
            self._running = True

    def after(self, step: int) -> None:
        if self._running and step == self._last:
            self.close()
            say(f"profile: steps {self._first} to {step} are in {self._directory}")

    def close(self) -> None:
        """Ends a trace that is still running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            self._outbox.close()
