"""A pretended GPU for machines without one: values live on the processor, tensors say they do not.

Mixing it with the processor's tensors raises as CUDA does; what makes a processor wait for a GPU is
counted. Registers torch's PrivateUse1 backend for the whole process, once.
"""

import collections
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

try:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
except ImportError:  # not yet in torch 2.6
    pytest.skip("this torch has no backends written in Python", allow_module_level=True)

_setup_privateuseone_for_python_backend("pretended")
GPU = torch.device("pretended", 0)
ATEN = torch.ops.aten
# CUDA takes indices from the processor, and copies of course.
MAY_MIX = {
    ATEN.index.Tensor,
    ATEN.index_put.default,
    ATEN.index_put_.default,
    ATEN._index_put_impl_.default,
}
COPIES = {ATEN.copy_.default, ATEN._to_copy.default}
WAITS = {ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.masked_select.default}
NO_KERNEL = {ATEN.detach.default, ATEN.alias.default, ATEN._unsafe_view.default, ATEN.lift_fresh.default}
NO_KERNEL |= {ATEN.empty.memory_format, ATEN.empty_like.default, ATEN.new_empty.default}


class OnGpu(torch.Tensor):
    @staticmethod
    def __new__(cls, raw):
        how = {"strides": raw.stride(), "storage_offset": raw.storage_offset(), "dtype": raw.dtype}
        self = torch.Tensor._make_wrapper_subclass(cls, raw.size(), device=GPU, **how)
        self.raw = raw
        return self

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == torch.Tensor.data.__set__:
            args[0].raw = args[1].raw
        if func is torch.Tensor.tolist:
            return args[0].cpu().tolist()
        if func is torch.Tensor.__getitem__:  # torch moves lists by itself, past dispatch modes
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = args[0], tuple(torch.tensor(i) if isinstance(i, list) else i for i in index)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on the pretended GPU outside `gpu()`")


class _Dispatch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.kernels, self.waits = collections.Counter(), collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        there = [t for t in tensors if isinstance(t, OnGpu)]
        here = [t for t in tensors if not isinstance(t, OnGpu)]
        device = kwargs.get("device")
        on_gpu = bool(there) if device is None else torch.device(device).type == GPU.type
        if func is ATEN.copy_.default:
            on_gpu = isinstance(args[0], OnGpu)
        if func in COPIES:
            source = args[1] if func is ATEN.copy_.default else args[0]
            if isinstance(source, OnGpu) != on_gpu:
                self.waits["to the GPU" if on_gpu else "to the processor"] += 1
        elif there and any(t.dim() for t in here):  # numbers without dimensions may come from anywhere
            if func not in MAY_MIX or not isinstance(args[0], OnGpu):
                shapes = [(t.device.type, list(t.shape)) for t in tensors]
                raise RuntimeError(f"{func} mixes devices: {shapes}")
            self.waits[f"{func} with the processor's indices"] += 1
        masked = func is ATEN.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if there and (func in WAITS or masked):
            self.waits[str(func)] += 1
        raw_args, raw_kwargs = tree_map_only(OnGpu, lambda t: t.raw, (args, kwargs))
        out = func(*raw_args, **(raw_kwargs | ({} if device is None else {"device": "cpu"})))
        if not on_gpu:
            return out
        if not func.is_view and func not in NO_KERNEL:
            self.kernels[str(func)] += 1
        return return_and_correct_aliasing(func, args, kwargs, tree_map_only(torch.Tensor, OnGpu, out))


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func is torch.tensor and device is not None and torch.device(device).type == GPU.type:
            del kwargs["device"]  # it too goes past dispatch modes
            return torch.tensor(*args, **kwargs).to(GPU)
        return func(*args, **kwargs)


class _Autocast(torch.autocast):
    def __init__(self, device_type, *args, **kwargs):
        super().__init__("cpu" if device_type == GPU.type else device_type, *args, **kwargs)


@contextmanager
def gpu():
    """Within, GPU can be computed on. Yields an object with Counters `kernels` and `waits`."""
    with mock.patch("torch.autocast", _Autocast), _Dispatch() as dispatch, _Functions():
        yield dispatch
