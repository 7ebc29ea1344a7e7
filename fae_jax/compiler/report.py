"""What the TPU compiler says of a program's memory in its log.

`memory_analysis()` counts holes between buffers twice (5.40 GiB of temporaries where the compiler reserves 4.12), so
the peak is taken from the compiler's own sum: reserved + program + arguments, of what the chip lets programs use
(15.75 GiB of a v5e's 16).
"""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZE = r"([\d.]+)([KMG]?)"
_USED = re.compile(rf"program HBM usage: {_SIZE}B? / {_SIZE}B?")
_TOTAL = re.compile(rf"Total hbm usage >= {_SIZE}B?:")
# When a program is too large: in the log, and in the error
_TOO_LARGE = (
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm", re.IGNORECASE),
    re.compile(rf"HLO temporaries \({_SIZE}B?\) exceeds available HBM \({_SIZE}B?\)"),
)


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def too_large(message: str) -> tuple[int, int] | None:
    """(bytes that temporaries would take, bytes that a chip has), or None where the message says another thing."""
    match = next((each for each in (pattern.search(message) for pattern in _TOO_LARGE) if each), None)
    return (_bytes(match[1], match[2]), _bytes(match[3], match[4])) if match else None


def read_report(log: str) -> dict[str, int]:
    """`temporaries`, `memory` and `peak` in bytes of the last program in a log; empty where it reports none."""
    used, total = _USED.findall(log), _TOTAL.findall(log)
    if not used or not total:
        return {}
    program, program_unit, memory, memory_unit = used[-1]
    return {
        "temporaries": _bytes(program, program_unit),
        "memory": _bytes(memory, memory_unit),
        "peak": _bytes(*total[-1]),
    }
