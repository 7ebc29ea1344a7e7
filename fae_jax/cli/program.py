"""The program: reads the command line, runs a verb, and turns errors into one line and an exit code.

Exit codes: 0 done; 2 the request is wrong, nothing was touched; 1 it failed while running, what was finished is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
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
from fae_jax.cli.stopping import ending_at_signals
from fae_jax.errors import RunFailed, Stopped
from fae_jax.files.names import nearest
from fae_jax.parallel.xla_flags import keep_freed_memory, set_flags

# verb → what it does; each is a module of fae_jax.commands with add_arguments(parser) and run(arguments) → result
COMMANDS = {
    "quickstart": "all of FAE on a laptop in minutes, on real data, without a download",
    "run": "every unfinished stage of an experiment, in order",
    "train": "one stage: encoder, features, pixels, finetune or generator",
    "cache": "encode the data set once into the latent cache",
    "sample": "images from a trained generator",
    "evaluate": "scores and figures, as JSON and as a page",
    "report": "the page of what an experiment has so far",
    "export": "a trained model as a folder for the world outside",
    "config": "fields of the configuration, their defaults and what they are",
    "weights": "pretrained encoders and text towers: list, pull, check, convert",
    "sweep": "experiments that differ in a few fields, here, on Slurm, TPUs or GKE; their table and plots",
    "compile": "will this run fit that machine? compiles every stage for it, here",
    "prepare": "index and check raw data; reports what was left out and why",
}
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)  # errors of a path that can never be
LONGEST_WORD, LONGEST_LINE = 300, 2000  # letters of an error that are printed


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the nearest valid word."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(" ".join(message.split()))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            hint = nearest(str(value), choices)
            name = max(action.option_strings, default=str(action.metavar or action.dest), key=len)
            raise argparse.ArgumentError(None, f"{name.lstrip('-')} {value!r} is unknown; {hint}")


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Every option of a parser and of its verbs."""
    nested = [action.choices.values() for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [*parser._option_string_actions, *(word for verbs in nested for verb in verbs for word in _options(verb))]


def make_parser(verb: str | None) -> argparse.ArgumentParser:
    """The command line with the arguments of `verb`; no other verb's module is imported, since they are heavy."""
    description = "FAE: any frozen encoder as a latent space that understands and generates"
    parser = _Parser(prog="fae", description=description, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fae_jax {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser)
    for name, help_text in COMMANDS.items():
        each = verbs.add_parser(name, help=help_text, allow_abbrev=False)
        if name == verb:
            module = importlib.import_module(f"fae_jax.commands.{name}")
            each.description, each.formatter_class = module.__doc__, argparse.RawDescriptionHelpFormatter
            module.add_arguments(each)
            each.add_argument(
                "--json", action="store_true", help="end standard output with the result as one JSON object"
            )
            each.set_defaults(run=module.run)
    return parser


def _overrides(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """`--config.a.b=value` or `--config.a.b value` as pairs, and the other words.

    They are taken out before argparse reads the rest: it would take one whose value has a space for a positional one.

    Raises:
      ValueError: the last of them has no value.
    """
    pairs, others, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--config."):
            others.append(word)
            continue
        if not equals:
            if not rest:
                raise ValueError(f"{word} needs a value: {word}=VALUE")
            value = rest.pop(0)
        pairs.append((name.removeprefix("--config."), value))
    return pairs, others


def _print(text: str, stream: Any) -> None:
    """Prints and flushes; a stream whose reader has gone, or whose disk is full, is given up: it never ends a run."""
    try:
        print(text, end="", file=stream, flush=True)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # else Python tries again at its end, and exits with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _cut(text: str, longest: int) -> str:
    """The text without its middle where it is too long: the thing stands in front, the remedy at the end."""
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 3 :]}"


def _system_words(error: OSError) -> str:
    """What the operating system says, without its number."""
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _report(error: BaseException, code: int, text: str | None = None) -> int:
    if os.environ.get("FAE_TRACEBACK"):
        _print("".join(traceback.format_exception(error)), sys.stderr)
    words = (str(error) if text is None else text).split()
    line = _cut(" ".join(_cut(word, LONGEST_WORD) for word in words), LONGEST_LINE)
    _print(f"fae: {'error' if code == 2 else 'failed'}: {line}\n", sys.stderr)
    return code


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line `words` (default: the process's) and returns the exit code."""
    out: Any = sys.stdout
    with contextlib.suppress(AttributeError):  # no stream, or one of another kind
        out.reconfigure(errors="backslashreplace")  # names that are no UTF-8
    try:
        return _run(sys.argv[1:] if words is None else list(words))
    finally:
        for stream in (sys.stdout, sys.stderr):
            _print("", stream)


def _run(words: list[str]) -> int:
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb in COMMANDS:  # before its module imports JAX
        keep_freed_memory()
        set_flags()
    if not os.environ.get("FAE_TRACEBACK"):
        # Libraries log the stack of an error in each thread it passes; the program reports it once, in one line.
        logging.set_verbosity(logging.FATAL)
        threading.excepthook = lambda arguments: None
    try:
        parser = make_parser(verb)
        overrides, others = _overrides(words)
        arguments, unknown = parser.parse_known_args(others)
        if unknown:
            hint = nearest(unknown[0], _options(parser), otherwise="see `fae --help`")
            raise ValueError(f"argument {unknown[0]!r} is unknown; {hint}")
        if not words:
            parser.print_help()
            return 0
        if arguments.command is None:
            raise ValueError("no command given; see `fae --help`")
        arguments.overrides = overrides
        with ending_at_signals():
            result = arguments.run(arguments)
    except (RunFailed, Stopped) as error:
        return _report(error, 1)
    except ValueError as error:
        return _report(error, 2)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno in _NO_PATH:
            return _report(error, 2, _system_words(error))
        return _report(error, 1, f"{_system_words(error)}; what was finished is kept")
    except Exception as error:
        text = ": ".join(filter(None, (type(error).__name__, str(error))))
        return _report(error, 1, f"{text}; FAE_TRACEBACK=1 shows where")
    if arguments.json:
        _print(json.dumps(result) + "\n", sys.stdout)
    return 0
