"""The program: reads the command line, runs a verb, and turns errors into one line and an exit code.

Exit codes: 0 done; 2 the request is wrong, nothing was touched; 1 it failed while running, what was finished is kept.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from absl import logging

from fae_jax import __version__
from fae_jax.cli.stopping import ending_at_sigterm
from fae_jax.errors import RunFailed
from fae_jax.parallel.ending import leave_now
from fae_jax.parallel.host_memory import keep_freed_memory
from fae_jax.parallel.xla_flags import set_flags

# verb → what it does; each is a module of this folder with add_arguments(parser) and run(arguments) → result
COMMANDS = {
    "quickstart": "all of FAE on a laptop in minutes, on real data, without a download",
    "run": "every unfinished stage of an experiment, in order",
    "train": "one stage: encoder, features, pixels, finetune or generator",
    "cache": "encode the data set once into the latent cache",
    "sample": "images from a trained generator",
    "evaluate": "scores and figures, as JSON and as a page",
    "weights": "pretrained encoders and text towers: list, pull, check, convert",
    "sweep": "many experiments that differ in a few fields: here, on Slurm, on TPUs or on GKE; their table and plots",
    "compile": "will this run fit that machine? every stage compiled for it, here",
    "prepare": "index and check raw data; says what it left out and why",
}


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the nearest valid word."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(" ".join(message.split()))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            near = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(choices)}"
            name = action.metavar or action.dest
            raise argparse.ArgumentError(None, f"{name} {value!r} is unknown; {hint}")


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="fae", description="FAE: any frozen encoder as a latent space that understands and generates"
    )
    parser.add_argument("--version", action="version", version=f"fae_jax {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser)
    for name, help_text in COMMANDS.items():
        module = importlib.import_module(f"fae_jax.commands.{name}")
        verb = verbs.add_parser(name, help=help_text, description=module.__doc__, allow_abbrev=False)
        verb.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(verb)
        verb.add_argument("--json", action="store_true", help="the last line of standard output is one JSON object")
        verb.set_defaults(run=module.run)
    return parser


def _overrides(unknown: list[str]) -> list[tuple[str, str]]:
    """`--config.a.b=value` or `--config.a.b value`, as pairs.

    Raises:
      ValueError: anything else.
    """
    pairs, rest = [], list(unknown)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--config."):
            raise ValueError(f"argument {word!r} is unknown; see `fae --help`")
        name, equals, value = word.removeprefix("--config.").partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"{word} needs a value: {word}=VALUE")
            value = rest.pop(0)
        pairs.append((name, value))
    return pairs


def _quiet_threads() -> None:
    """Libraries log the stack of an error in each thread it passes; the program reports it once, in one line."""
    logging.set_verbosity(logging.FATAL)
    threading.excepthook = lambda arguments: None


def _report(error: BaseException, code: int) -> int:
    if os.environ.get("FAE_TRACEBACK"):
        traceback.print_exception(error)
    print(f"fae: {'error' if code == 2 else 'failed'}: {' '.join(str(error).split())}", file=sys.stderr)
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        leave_now(code)  # an orderly exit would wait for the other hosts
    return code


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line `words` (default: the process's) and returns the exit code."""
    keep_freed_memory()
    set_flags()
    if not os.environ.get("FAE_TRACEBACK"):
        _quiet_threads()
    try:
        with ending_at_sigterm():
            parser = make_parser()
            arguments, unknown = parser.parse_known_args(words)
            if arguments.command is None:
                parser.print_help()
                return 0
            arguments.overrides = _overrides(unknown)
            result = arguments.run(arguments)
    except RunFailed as error:
        return _report(error, 1)
    except (ValueError, FileNotFoundError, NotADirectoryError) as error:
        return _report(error, 2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _report(RunFailed(f"{error.strerror or error}{where}; what was finished is kept"), 1)
    except KeyboardInterrupt:
        return _report(RunFailed("interrupted; the same command continues"), 1)
    if arguments.json:
        print(json.dumps(result))
    return 0
