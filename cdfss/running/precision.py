"""In which precision jobs compute, and the products that are float32 whatever they are told."""

from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def precision(name: str, device: torch.device):
    """Compute convolutions and matrix products in a precision of `configuration.Compute`.

    torch's own default lets cuDNN round to TF32; here "float32" is float32 everywhere.
    """
    cudnn = torch.backends.cudnn.allow_tf32
    tf32 = name == "tf32" and device.type == "cuda"
    # No cache: it would keep weights as they were at the first step for as long as this lasts.
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16", cache_enabled=False)
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        with _products("high" if tf32 else "highest"), autocast:
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def _products(kind: str):
    """torch's `set_float32_matmul_precision` for a block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(kind)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def float32(device: torch.device):
    """Compute in float32 for a block without gradients, whatever the precision around it."""
    with torch.autocast(device.type, enabled=False), _products("highest"):
        yield


def products_are_rounded() -> bool:
    """Whether products of float32 tensors are TF32 on a GPU."""
    return torch.get_float32_matmul_precision() != "highest"


def float32_product(first: Tensor, second: Tensor) -> Tensor:
    """first @ second of float32 tensors, in float32 forth and back: neither bfloat16 nor TF32.

    Switching autocast off does not switch TF32 off, and the backward pass runs after any block that
    switches both off has ended.

    Args:
        first: (..., n, m).
        second: (..., m, p) with as many dimensions, or a constant (m, p).
    """
    if products_are_rounded() or torch.is_autocast_enabled(first.device.type):
        # A graph cannot change its precision, and doubles are rounded by none.
        if torch.compiler.is_compiling():
            return (first.double() @ second.double()).float()
        return _Float32Product.apply(first, second)
    return first @ second


class _Float32Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, first, second):
        ctx.save_for_backward(first, second)
        return _in_float32(first, second)

    @staticmethod
    def backward(ctx, gradient):
        first, second = ctx.saved_tensors
        wanted, others = ctx.needs_input_grad, (second.mT, first.mT)
        return (
            _in_float32(gradient, others[0]) if wanted[0] else None,
            _in_float32(others[1], gradient) if wanted[1] else None,
        )


def _in_float32(first: Tensor, second: Tensor) -> Tensor:
    with float32(first.device):
        return first.float() @ second.float()
