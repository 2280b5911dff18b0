"""How many bytes of tensors are alive while something computes, counted at every operation."""

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations have made under it and that something still holds.

    What an operation makes and lets go inside itself is not seen, nor what was there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        """The most bytes that were alive at one time."""
        self._sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {x.untyped_storage()._cdata for x in torch.utils._pytree.tree_leaves((args, kwargs)) if _real(x)}
        out = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves(out):
            # A view or an operation in place has the storage of an argument.
            if _real(value) and value.untyped_storage()._cdata not in before:
                storage = value.untyped_storage()
                self._sizes[StorageWeakRef(storage)] = storage.nbytes()
        self.peak = max(self.peak, self.now)
        return out

    @property
    def now(self) -> int:
        """Bytes that are alive."""
        self._sizes = {one: size for one, size in self._sizes.items() if not one.expired()}
        return sum(self._sizes.values())


def _real(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided
