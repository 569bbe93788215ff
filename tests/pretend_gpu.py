"""A GPU that is not there: tensors say that they lie on cuda:0, the CPU does the arithmetic.

Any operator that gets tensors of both devices raises `MixedDevices`, as CUDA would, except those that CUDA takes them
for. So code is held to its device on machines without a GPU; what kernels compute, and how fast, is not looked at.
Gradients are not computed: torch's autograd engine has no thread for a device that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
_aten = torch.ops.aten
_INDEXING = (
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
)
"""Take indices of the CPU for a tensor of the GPU, but not the other way round."""
_TRANSFERS = (_aten.copy_.default, _aten._to_copy.default)
_Shape = tuple[int, ...]
_blocking: list[_Shape] = []


class MixedDevices(RuntimeError):
    """An operator got tensors of the CPU and of the GPU."""


class PretendTensor(Tensor):
    """A tensor of the CPU that says it is on the GPU."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, tensor: Tensor) -> PretendTensor:
        with torch.inference_mode(False):  # views of it may be asked for inside and outside of that mode
            made = Tensor._make_wrapper_subclass(
                cls,
                tensor.shape,
                strides=tensor.stride(),
                storage_offset=tensor.storage_offset(),
                dtype=tensor.dtype,
                layout=tensor.layout,
                device=GPU,
                requires_grad=tensor.requires_grad,
            )
        made.on_cpu = tensor
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.on_cpu.tolist()

    def numpy(self, **_: object) -> NoReturn:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *_: object) -> NoReturn:
        self.numpy()

    def __repr__(self, **_: object) -> str:
        return f"PretendTensor({self.on_cpu!r})"


class _Dispatch(TorchDispatchMode):
    """Sees operators without tensors, too: those that make them."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode operators come whole that are made of others.
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return _run(func, args, kwargs)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    _refuse_mixed(func, tensors)
    _note_blocking(func, args, kwargs)
    wanted = kwargs.get("device")
    if func is _aten.copy_.default:
        is_on_gpu = isinstance(args[0], PretendTensor)
    elif wanted is not None:
        is_on_gpu = torch.device(wanted).type == "cuda"
        kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
        kwargs["device"] = torch.device("cpu")
    else:
        is_on_gpu = any(isinstance(tensor, PretendTensor) for tensor in tensors)
    known = {id(_unwrapped(tensor)): tensor for tensor in tensors}  # what an operator changed in place
    found = func(*tree_map(_unwrapped, args), **tree_map(_unwrapped, kwargs))

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or id(value) in known:
            return known.get(id(value), value)
        return PretendTensor(value) if is_on_gpu else value

    return tree_map(wrapped, found)


def _unwrapped(value: Any) -> Any:
    return value.on_cpu if isinstance(value, PretendTensor) else value


def _refuse_mixed(func: Any, tensors: list[Tensor]) -> None:
    there = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
    # One number of the CPU goes with anything.
    here = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor) and tensor.dim() > 0]
    if not here or not there or func in _TRANSFERS:
        return
    if func in _INDEXING and isinstance(tensors[0], PretendTensor):
        return
    raise MixedDevices(
        f"{func}: {len(tensors)} tensors, on the CPU those of {[tuple(t.shape) for t in here]}"
    )


def _note_blocking(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if func is _aten.copy_.default:
        target, source, *rest = args
        is_awaited = not (rest[0] if rest else kwargs.get("non_blocking"))
        goes_there = isinstance(target, PretendTensor)
    elif func is _aten._to_copy.default:
        source, is_awaited = args[0], not kwargs.get("non_blocking")
        goes_there = torch.device(kwargs.get("device") or "cpu").type == "cuda"
    else:
        return
    if goes_there and is_awaited and not isinstance(source, PretendTensor):
        _blocking.append(tuple(source.shape))


@contextmanager
def blocking_copies() -> Iterator[list[_Shape]]:
    """Yield the shapes of what the block copies to the pretended GPU while the host waits, as they come."""
    _blocking.clear()
    yield _blocking


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """Yield cuda:0, real or not, on which the block may run."""
    if torch.cuda.is_available():
        yield GPU
        return
    torch._C._ensureCUDADeviceGuardSet()  # as torch's own fake tensors do without a GPU
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with _Dispatch():
                yield GPU
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


Backward = Callable[..., None]


def constant_gradients(parameters: list[torch.nn.Parameter]) -> Backward:
    """Return a stand-in for `Tensor.backward` that adds the same number to every gradient that is wanted."""

    def backward(loss: Tensor, gradient: Tensor) -> None:
        assert gradient.device == loss.device
        for parameter in parameters:
            if parameter.requires_grad:
                added = torch.full_like(parameter, 0.01)
                parameter.grad = added if parameter.grad is None else parameter.grad + added

    return backward
