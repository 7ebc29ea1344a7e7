"""Prompts of GenEval and DPG-Bench, and images of them where their evaluators look."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fae_jax.data.prompts import ByPrompt, open_layout

LINES = [
    {"tag": "single_object", "include": [{"class": "cow", "count": 1}], "prompt": "a photo of a cow"},
    {"tag": "colors", "include": [{"class": "bus", "count": 1, "color": "red"}], "prompt": "a photo of a red bus ü"},
]
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3), np.uint8)


def geneval(path: Path) -> Path:
    """A file as `prompts/create_prompts.py` of its repository writes it."""
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def files_of(name: str, prompts: Path, folder: Any, each: int) -> dict[str, Any]:
    """What is written of `IMAGES`, which come in pieces of 3."""
    layout = open_layout(name, str(prompts))
    by_prompt = ByPrompt(layout, folder, each)
    by_prompt.clear()
    for start in range(0, each * len(layout.prompts), 3):
        by_prompt.add(IMAGES[start : min(start + 3, each * len(layout.prompts))])
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> np.ndarray:
    with path.open("rb") as file, Image.open(file) as image:
        return np.asarray(image)


def test_geneval_finds_each_image_beside_its_line(tmp_path: Path):
    prompts = geneval(tmp_path / "evaluation_metadata.jsonl")
    assert open_layout("geneval", str(prompts)).prompts == [line["prompt"] for line in LINES]
    folder = tmp_path / "images"
    assert len(files_of("geneval", prompts, folder, 4)) == 10
    files = files_of("geneval", prompts, folder, 3)  # an earlier drawing's fourth images would be scored too
    names = [
        f"0000{n}/{rest}" for n in (0, 1) for rest in ("metadata.jsonl", *(f"samples/000{k}.png" for k in range(3)))
    ]
    assert sorted(files) == names
    for number, line in enumerate(LINES):  # their evaluator reads the file as one object
        assert json.loads(files[f"0000{number}/metadata.jsonl"].read_text()) == line
        for k in range(3):
            np.testing.assert_array_equal(read(files[f"0000{number}/samples/000{k}.png"]), IMAGES[3 * number + k])


def test_dpg_cuts_the_four_samples_of_a_prompt_out_of_one_image(tmp_path: Path):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for name, text in {"10": "ten things\n", "2": "two things"}.items():
        (prompts / f"{name}.txt").write_text(text)
    (prompts / "README.md").write_text("no prompt")
    assert open_layout("dpg", str(prompts)).prompts == ["ten things", "two things"]
    files = files_of("dpg", prompts, tmp_path / "images", 4)
    assert sorted(files) == ["10.png", "2.png"]
    for start, name in ((0, "10.png"), (4, "2.png")):
        image = read(files[name])
        corners = [(0, 0), (0, 5), (6, 0), (6, 5)]  # rows and columns, in the order of their crops
        for k, (y, x) in enumerate(corners):
            np.testing.assert_array_equal(image[y : y + 6, x : x + 5], IMAGES[start + k])
    np.testing.assert_array_equal(read(files_of("dpg", prompts, tmp_path / "images", 1)["2.png"]), IMAGES[1])


def test_what_is_no_benchmarks_is_refused_in_one_line(tmp_path: Path):
    file, folder = tmp_path / "file.jsonl", tmp_path / "folder"
    folder.mkdir()

    def message(name: str, path: Path) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as refused:
            open_layout(name, str(path))
        assert "\n" not in str(refused.value)
        return str(refused.value)

    for content in ("a photo of a cow\n", '["prompt"]\n', '{"prompt": "a cow"}\n', "", "[" * 100_000):
        file.write_text(json.dumps(LINES[0]) + "\n" + content if content else "")
        assert f"line {2 if content else 1} is no JSON object with a prompt and a tag" in message("geneval", file)
    file.write_bytes(b"\xff")
    assert "is not UTF-8 (byte 0)" in message("geneval", file)
    assert "there is no such file" in message("geneval", folder)
    assert "is not a folder" in message("dpg", file)
    assert "holds no .txt file" in message("dpg", folder)
    (folder / "a.txt").write_text(" \n")
    assert "a.txt is empty" in message("dpg", folder)
    assert "'dgp' is none of the layouts" in message("dgp", folder)
