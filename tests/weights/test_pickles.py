import argparse
import collections
import os
import pathlib
import pickle
import pickletools
import zipfile

import numpy as np
import pytest
from damage import flipped
from pickle_files import Named, Tensor, archive, sequence

from fae_jax.weights.pickles import read_pickle

VALUES = np.arange(12, dtype=np.float32)


def test_tensors_and_their_strides(tmp_path):
    content = collections.OrderedDict(
        whole=Tensor("0", (3, 4), (4, 1)),
        turned=Tensor("0", (4, 3), (1, 4)),
        part=Tensor("0", (2,), (1,), offset=5),
        scalar=Tensor("0", (), (), offset=7),
    )
    archive(tmp_path / "m.pth", content, {"0": VALUES.tobytes()})
    got = read_pickle(tmp_path / "m.pth")
    np.testing.assert_array_equal(got["whole"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(got["turned"], VALUES.reshape(3, 4).T)
    np.testing.assert_array_equal(got["part"], [5, 6])
    assert got["scalar"] == 7 and got["scalar"].shape == ()


def test_a_level_of_nesting_is_opened(tmp_path):
    content = {"epoch": 3, "model": {"w": Tensor("0", (12,), (1,))}}
    archive(tmp_path / "m.pth", content, {"0": VALUES.tobytes()})
    np.testing.assert_array_equal(read_pickle(tmp_path / "m.pth")["w"], VALUES)


def test_files_of_before_version_1_6(tmp_path):
    path, storages = tmp_path / "m.pth", {"9": VALUES[:2].tobytes(), "12": VALUES.tobytes()}
    content = {"a": Tensor("9", (2,), (1,)), "b": Tensor("12", (4, 3), (1, 4))}
    sequence(path, {"state_dict": content, "epoch": 3}, storages, None)
    got = read_pickle(path)
    np.testing.assert_array_equal(got["a"], [0, 1])
    np.testing.assert_array_equal(got["b"], VALUES.reshape(3, 4).T)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="storage 12 is shorter than it says"):
        read_pickle(path)
    for changes, why in (
        ({"little": False}, "big-endian"),
        ({"keys": ["9", "13"]}, "storage 13 is not as long as it should be"),
        ({"short": 1}, "storage 9 is not as long as it should be"),
    ):
        sequence(path, content, storages, None, **changes)
        with pytest.raises(ValueError, match=why):
            read_pickle(path)
    sequence(path, content, storages, ("key", 0, 1))
    with pytest.raises(ValueError, match="storage 9 is a part of another"):
        read_pickle(path)
    sequence(path, content | {"evil": Bomb(tmp_path / "ran")}, storages, None)
    with pytest.raises(ValueError, match="asks for posix.mkdir"):
        read_pickle(path)
    assert not (tmp_path / "ran").exists()


class Bomb:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return (os.mkdir, (str(self.flag),))


def test_nothing_is_ever_called(tmp_path):
    flag = tmp_path / "ran"
    archive(tmp_path / "m.pth", {"w": Tensor("0", (12,), (1,)), "evil": Bomb(flag)}, {"0": VALUES.tobytes()})
    with pytest.raises(ValueError, match="asks for posix.mkdir"):
        read_pickle(tmp_path / "m.pth")
    assert not flag.exists()
    for module, name in (("builtins", "eval"), ("numpy", "load"), ("torch", "load"), ("collections", "Counter")):
        archive(tmp_path / "m.pth", {"w": Named(module, name)}, {})
        with pytest.raises(ValueError, match=f"asks for {module}.{name}"):
            read_pickle(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (Tensor("0", (13,), (1,)), "beyond its storage"),
        (Tensor("0", (2, 2), (1000, 1)), "beyond its storage"),
        (Tensor("0", (2,), (-1,), offset=3), "negative"),
        (Tensor("0", (2,), (1,), offset=-1), "negative"),
        (Tensor("0", (2.0,), (1,)), "no whole number"),
        (Tensor("0", (100,), (0,)), "beyond its storage"),
        (Tensor("0", (2,), (2**62,)), "beyond its storage"),
        (Tensor("0", (2,), (1,), count=99), "shorter than it says"),
        (Tensor("0", (2,), (1,), storage="Anything"), "asks for torch.Anything"),
    ],
)
def test_no_byte_outside_a_storage_is_read(tmp_path, tensor, why):
    archive(tmp_path / "m.pth", {"w": tensor}, {"0": VALUES.tobytes()})
    with pytest.raises(ValueError, match=why):
        read_pickle(tmp_path / "m.pth")


def program(path, code, storages=None):
    """A .pth file with this pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", code)
        for key, value in (storages or {"0": VALUES.tobytes()}).items():
            file.writestr(f"x/data/{key}", value)


def test_nothing_is_changed_by_a_pickle(tmp_path):
    """BUILD on a dtype changes every array of the process, on an array it moves its memory."""
    state = b"(I3\nS'<'\nNNNI-1\nI-1\nI0\nt"
    program(tmp_path / "m.pth", b"ctorch\nFloatStorage\n" + state + b"b.")
    with pytest.raises(ValueError, match="opcode INT"):
        read_pickle(tmp_path / "m.pth")
    program(tmp_path / "m.pth", b"\x80\x02ctorch\nFloatStorage\n}b.")
    with pytest.raises(ValueError, match="changes something that is not a dict"):
        read_pickle(tmp_path / "m.pth")
    assert np.zeros(2, np.float32).dtype.byteorder == "="


def test_every_opcode_and_every_damage_is_one_line(tmp_path):
    """Each opcode in front of, behind and in the middle of a sound pickle; bytes changed and cut off at random."""
    content = {"w": Tensor("0", (3, 4), (4, 1)), "level": {"state": [1, 2.5, "text", None, True, (1, 2)]}}
    archive(tmp_path / "whole.pth", {"model": content}, {"0": VALUES.tobytes()})
    whole = (tmp_path / "whole.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.pth") as file:
        sound = file.read("x/data.pkl")
    rng = np.random.default_rng(0)
    codes = [op.code.encode("latin1") for op in pickletools.opcodes]
    programs = [start + code + rest for code in codes for start, rest in ((b"", sound), (sound[:-1], b"."))]
    for code in codes:
        place = int(rng.integers(2, len(sound)))
        programs.append(sound[:place] + code + rng.bytes(4) + sound[place:])
    for _ in range(300):
        spoilt = bytearray(sound)
        spoilt[int(rng.integers(len(spoilt)))] = int(rng.integers(256))
        programs.append(bytes(spoilt))
    files = [whole[: int(rng.integers(len(whole)))] for _ in range(40)]
    sequence(tmp_path / "older.pth", {"model": content}, {"0": VALUES.tobytes()}, None)
    older = (tmp_path / "older.pth").read_bytes()
    files += [older[: int(rng.integers(len(older)))] for _ in range(20)]
    files += [flipped(file, rng) for file, count in ((whole, 200), (older, 50)) for _ in range(count)]
    path, read = tmp_path / "m.pth", 0
    for number in range(len(programs) + len(files)):
        if number < len(programs):
            program(path, programs[number])
        else:
            path.write_bytes(files[number - len(programs)])
        try:
            tensors = read_pickle(path)
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 500, error
        else:
            assert all(array.nbytes <= VALUES.nbytes for array in tensors.values())
            read += 1
    assert read < 100


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_pickle(tmp_path / "m.pth")
    (tmp_path / "m.pth").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(ValueError, match="not a torch.save archive"):
        read_pickle(tmp_path / "m.pth")
    archive(tmp_path / "m.pth", {"w": 3}, {})
    with pytest.raises(ValueError, match="beside tensors it holds w"):
        read_pickle(tmp_path / "m.pth")
    archive(tmp_path / "m.pth", [1, 2], {})
    with pytest.raises(ValueError, match="holds a list"):
        read_pickle(tmp_path / "m.pth")
    archive(tmp_path / "m.pth", {"w": Tensor("0", (12,), (1,))}, {"0": VALUES.tobytes()}, order=b"big")
    with pytest.raises(ValueError, match="big-endian"):
        read_pickle(tmp_path / "m.pth")


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = model.state_dict() | {"turned": torch.arange(6).reshape(2, 3).T, "half": torch.ones(3).bfloat16()}
    state["parameter"] = torch.nn.Parameter(torch.ones(2))
    torch.save(state, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    got = read_pickle(tmp_path / "m.pth")
    assert set(got) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(got[name].astype(np.float32), value.detach().float().numpy())


def test_of_a_training_scripts_checkpoint_the_average_is_read(tmp_path):
    """As SiT's and LightningDiT's scripts keep it: weights, their average, an optimizer and a command line."""
    optimizer = {"state": {0: {"step": Tensor("1", (), ())}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95)}]}
    content = {
        "model": collections.OrderedDict(w=Tensor("1", (12,), (1,))),
        "ema": collections.OrderedDict(w=Tensor("0", (12,), (1,))),
        "opt": optimizer,
        "args": argparse.Namespace(model="SiT-XL/2", global_seed=0, ckpt=None),
    }
    archive(tmp_path / "m.pt", content, {"0": VALUES.tobytes(), "1": (0 * VALUES).tobytes()})
    np.testing.assert_array_equal(read_pickle(tmp_path / "m.pt")["w"], VALUES)
    content["args"] = pathlib.PurePosixPath("a")
    archive(tmp_path / "m.pt", content, {"0": VALUES.tobytes(), "1": VALUES.tobytes()})
    with pytest.raises(ValueError, match="it asks for pathlib"):
        read_pickle(tmp_path / "m.pt")
