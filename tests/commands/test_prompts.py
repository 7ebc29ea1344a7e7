"""What `fae sample` reads of --prompt and of a file of prompts."""

import argparse
from pathlib import Path

import pytest

from fae_jax.commands.sample import images_of_each, read_prompts


def given(**words: object) -> argparse.Namespace:
    names = ("prompt", "prompts", "classes", "layout", "per_prompt", "number")
    return argparse.Namespace(**{**dict.fromkeys(names), **words})


def prompts_of(**words: object) -> list[str] | None:
    return read_prompts(given(**words))[0]


def test_prompts_of_any_script_come_in_order_and_an_empty_line_is_the_empty_text(tmp_path: Path):
    assert prompts_of(classes="0") is None and prompts_of() is None
    assert prompts_of(prompt=["", "a" * 10_000]) == ["", "a" * 10_000]
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffein Hund\r\n\r\n東京 🙂\u2028x\r\n".encode())  # as Windows saves it
    assert prompts_of(prompts=str(file)) == ["ein Hund", "", "東京 🙂\u2028x"]
    assert prompts_of(prompt=["first"], prompts=str(file))[:2] == ["first", "ein Hund"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty: write one prompt in a line"), ("größe".encode("latin-1"), r"is not UTF-8 \(byte 2\)")],
)
def test_a_file_that_is_none_of_prompts(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        prompts_of(prompts=str(file))
    with pytest.raises(ValueError, match="give --classes or prompts, not both"):
        prompts_of(prompt=["a"], classes="0")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        prompts_of(prompts=str(tmp_path / "none.txt"))


def test_images_of_each_prompt_are_the_layouts_own_number_unless_another_is_asked_for(tmp_path: Path):
    (tmp_path / "0.txt").write_text("a cat")

    def each(**words: object) -> int | None:
        arguments = given(**words)
        return images_of_each(arguments, *read_prompts(arguments))

    dpg = {"layout": "dpg", "prompts": str(tmp_path)}
    assert each(prompt=["a"]) is None and each(prompt=["a"], per_prompt=3) == 3
    assert each(**dpg) == 4 and each(**dpg, per_prompt=1) == 1
    for message, words in {
        "dpg's evaluator does not take so many; leave it out for 4": {**dpg, "per_prompt": 2},
        "give --per_prompt, images of each prompt, in place of --number": {**dpg, "number": 8},
        "--per_prompt goes with prompts": {"classes": "0", "per_prompt": 2},
        "it must be at least 1": {"prompt": ["a"], "per_prompt": 0},
        "--layout dpg says what --prompts is": {"layout": "dpg", "prompt": ["a"]},
    }.items():
        with pytest.raises(ValueError, match=message):
            each(**words)
