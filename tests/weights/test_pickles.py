import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from fae_jax.weights.pickles import read_pickle


class Named:
    """Something the pickle refers to by a name of our choosing."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Tensor:
    def __init__(self, key, shape, stride, offset=0, storage="FloatStorage", count=None):
        self.key, self.shape, self.stride, self.offset = key, shape, stride, offset
        self.storage, self.count = storage, count


def archive(path, content, storages, *, order=b"little"):
    """Writes what torch.save writes, without torch."""

    class Pickler(pickle._Pickler):  # the one in Python, whose opcodes can be chosen
        def save(self, value, save_persistent_id=True):
            if isinstance(value, Named):
                self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
            elif isinstance(value, Tensor):
                count = value.count if value.count is not None else len(storages[value.key]) // 4
                self.save(Named("torch._utils", "_rebuild_tensor_v2"))
                self.write(pickle.MARK)
                super().save(("storage", Named("torch", value.storage), value.key, "cpu", count), False)
                self.write(pickle.BINPERSID)
                for part in (value.offset, value.shape, value.stride, False, collections.OrderedDict()):
                    super().save(part)
                self.write(pickle.TUPLE + pickle.REDUCE)
            else:
                super().save(value, save_persistent_id)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", buffer.getvalue())
        file.writestr("x/byteorder", order)
        for key, value in storages.items():
            file.writestr(f"x/data/{key}", value)


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
        (Tensor("0", (2,), (1,), offset=-1), "has no storage"),
        (Tensor("0", (2,), (1,), count=99), "shorter than it says"),
        (Tensor("0", (2,), (1,), storage="Anything"), "asks for torch.Anything"),
    ],
)
def test_no_byte_outside_a_storage_is_read(tmp_path, tensor, why):
    archive(tmp_path / "m.pth", {"w": tensor}, {"0": VALUES.tobytes()})
    with pytest.raises(ValueError, match=why):
        read_pickle(tmp_path / "m.pth")


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
def test_what_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = model.state_dict() | {"turned": torch.arange(6).reshape(2, 3).T, "half": torch.ones(3).bfloat16()}
    state["parameter"] = torch.nn.Parameter(torch.ones(2))
    torch.save(state, tmp_path / "m.pth")
    got = read_pickle(tmp_path / "m.pth")
    assert set(got) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(got[name].astype(np.float32), value.detach().float().numpy())
