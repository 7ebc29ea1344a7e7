import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fae_jax.cli.program import main
from fae_jax.weights import open_tensors, write_tensors

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("encoders", "weights")]

from hub_server import COMMIT, Hub  # noqa: E402
from published_files import SIGLIP, arrays, write  # noqa: E402


def run(capsys, *words):
    code = main(["weights", *words, "--json"])
    out = capsys.readouterr()
    return code, json.loads(out.out.splitlines()[-1]) if code == 0 else out.err


def test_check_counts_and_hashes(tmp_path, capsys):
    folder = write(tmp_path, SIGLIP)
    code, result = run(capsys, "check", folder)
    tensors = arrays(SIGLIP)
    assert code == 0 and result["parameters"] == {"images": sum(array.size for array in tensors.values())}
    assert result["hash"] == open_tensors(folder).hash() and result["tensors"] == len(tensors)


@pytest.mark.parametrize("broken", ["other", "nan", "truncated", "missing"])
def test_check_says_what_is_wrong_in_one_line(tmp_path, capsys, broken):
    tensors = arrays(SIGLIP)
    name = next(iter(tensors))
    words = {"other": "missing:", "nan": "holds NaN", "truncated": "truncated", "missing": f"1 missing: {name}"}
    if broken == "nan":
        tensors[name].flat[0] = np.nan
    if broken == "missing":
        del tensors[name]
    folder = write(tmp_path, SIGLIP, tensors)
    if broken == "truncated":
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-5])
    code, error = run(capsys, "check", folder, *(["--as", "siglip_b16_224"] if broken == "other" else []))
    assert code == 2 and error.count("\n") == 1
    assert words[broken] in error or (broken == "other" and "misshapen:" in error)


def test_convert_gathers_shards_and_halves(tmp_path, capsys):
    source = tmp_path / "source"
    write(source, SIGLIP)
    (source / "model.safetensors").unlink()
    tensors = arrays(SIGLIP)
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(where.values()):
        write_tensors(source / shard, {name: tensors[name] for name in where if where[name] == shard})
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    out = tmp_path / "out"
    code, result = run(capsys, "convert", str(source), "--out", str(out), "--dtype", "bfloat16")
    assert code == 0 and result["bytes"] == 2 * sum(array.size for array in tensors.values())
    assert run(capsys, "check", str(out))[0] == 0
    code, error = run(capsys, "convert", str(source), "--out", str(out))
    assert code == 2 and "exists already" in error


def test_convert_reads_archives(tmp_path, capsys):
    np.savez(tmp_path / "w.npz", a=np.arange(3.0), b=np.ones((2, 2), np.float16))
    code, _ = run(capsys, "convert", str(tmp_path / "w.npz"), "--out", str(tmp_path / "out"))
    assert code == 0 and open_tensors(tmp_path / "out").read("a").tolist() == [0, 1, 2]
    np.savez(tmp_path / "evil.npz", a=np.array([print], object))
    assert run(capsys, "convert", str(tmp_path / "evil.npz"), "--out", str(tmp_path / "evil"))[0] == 2
    whole = (tmp_path / "w.npz").read_bytes()
    for length in (0, 30, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        code, err = run(capsys, "convert", str(tmp_path / "cut.npz"), "--out", str(tmp_path / "cut"))
        assert code == 2 and "cut.npz is damaged or no .npz file" in err


def test_pull_through_the_hub(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "files"
    write(folder, SIGLIP)
    hub = Hub({"someone/vit": {path.name: path.read_bytes() for path in folder.iterdir()}})
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub.serve() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        code, result = run(capsys, "pull", "someone/vit")
        assert code == 0 and result["hash"] == open_tensors(folder).hash()
        code, checked = run(capsys, "check", f"someone/vit@{COMMIT}")  # a hub name wherever a folder may stand
        assert code == 0 and checked["hash"] == result["hash"]
        code, error = run(capsys, "pull", "someone/nobody")
        assert code == 2 and "does not exist on the hub (404)" in error
        hub.status = 403
        code, error = run(capsys, "pull", "someone/third")
        assert code == 2 and error.count("\n") == 1 and "403" in error


def test_switched_off_in_a_process_of_its_own(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment.pop("HF_HUB_CACHE", None)
    words = [sys.executable, "-m", "fae_jax", "weights", "pull", "dinov2_s14"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "facebook/dinov2-small is not in the cache, and HF_HUB_OFFLINE forbids" in done.stderr


def test_requests_that_are_wrong(capsys, tmp_path):
    for words, part in (
        (["pull", "dinov2-g"], "neither a known name"),
        (["check"], "needs a name"),
        (["convert", "x.npz"], "needs --out"),
        (["convert", str(tmp_path / "x.npz"), "--out", str(tmp_path)], "does not exist"),
        (["check", "somewhere", "--as", "dinov9"], "'dinov9' is not a known name"),
        (["eat", "x"], "is unknown"),
    ):
        code, error = run(capsys, *words)
        assert code == 2 and part in error, words


def test_list(capsys):
    code, result = run(capsys, "list")
    assert code == 0 and result["weights"]["dinov2_g14"] == "facebook/dinov2-giant"
