"""PyTorch's files, written without PyTorch."""

import collections
import io
import pickle
import zipfile


class Named:
    """Something the pickle refers to by a name of our choosing."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Tensor:
    def __init__(self, key, shape, stride, offset=0, storage="FloatStorage", count=None):
        self.key, self.shape, self.stride, self.offset = key, shape, stride, offset
        self.storage, self.count = storage, count


def pickled(content, storages, *more):
    """The pickle of tensors in storages; `more` is behind what it says of a storage."""

    class Pickler(pickle._Pickler):  # the one in Python, whose opcodes can be chosen
        def save(self, value, save_persistent_id=True):
            if isinstance(value, Named):
                self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
            elif isinstance(value, Tensor):
                count = value.count if value.count is not None else len(storages[value.key]) // 4
                self.save(Named("torch._utils", "_rebuild_tensor_v2"))
                self.write(pickle.MARK)
                super().save(("storage", Named("torch", value.storage), value.key, "cpu", count, *more), False)
                self.write(pickle.BINPERSID)
                for part in (value.offset, value.shape, value.stride, False, collections.OrderedDict()):
                    super().save(part)
                self.write(pickle.TUPLE + pickle.REDUCE)
            else:
                super().save(value, save_persistent_id)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def archive(path, content, storages, *, order=b"little"):
    """Writes what torch.save writes, without torch."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickled(content, storages))
        file.writestr("x/byteorder", order)
        for key, value in storages.items():
            file.writestr(f"x/data/{key}", value)


def sequence(path, content, storages, *more, little=True, keys=None, short=0, counts=None):
    """Writes what torch.save wrote before version 1.6."""
    machine = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    first = (pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, machine))
    data = counts or [len(value) // 4 - short for value in storages.values()]
    stored = (count.to_bytes(8, "little") + value for count, value in zip(data, storages.values(), strict=True))
    listed = pickle.dumps(keys or list(storages), 2)
    path.write_bytes(b"".join((*first, pickled(content, storages, *more), listed, *stored)))
