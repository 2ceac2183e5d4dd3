"""DFF, deep frequency filtering (Lin et al., CVPR 2023; a rival of paper table 8)."""

from cdfss.methods.modules.contract import Module

KERNEL = 7


class FrequencyFilter(Module):
    """A map's spectrum times a mask that all channels share and that is made of their amplitudes.

    mask = sigmoid(7 x 7 convolution of mean and maximum over channels of |FFT(x)|), without bias: 98
    parameters. The spectrum is centred, with zeros beyond its border, and orthonormal, so that amplitudes
    have the scale of the maps. The kernel starts at zeros: the mask is 1/2 everywhere, which the cosine
    similarity does not see.
    """

    family = "frequency"
    learns = True

    def parameters(self, channels, height, width):
        import torch

        return {"kernel": torch.zeros(1, 2, KERNEL, KERNEL)}

    def prepare(self, maps):
        """Spectrum (..., E, C, h, w), and what each place of the kernel sees, (..., E, 98, h w)."""
        import torch
        from torch.nn import functional as F

        found = torch.fft.fft2(maps.float(), norm="ortho")
        amplitude = torch.fft.fftshift(found.abs(), dim=(-2, -1))
        pooled = torch.stack([amplitude.mean(-3), amplitude.amax(-3)], -3)  # (..., E, 2, h, w)
        seen = F.unfold(pooled.flatten(0, -4), KERNEL, padding=KERNEL // 2)
        return found, seen.view(*maps.shape[:-3], *seen.shape[1:])

    def change(self, parameters, prepared):
        import torch

        from cdfss.running.precision import float32_product

        found, seen = prepared
        kernel = parameters["kernel"].float().flatten(1)[:, None]  # (1 or E, 1, 98)
        kernel = kernel.expand(*seen.shape[:-2], *kernel.shape[-2:])
        mask = float32_product(kernel, seen).sigmoid().unflatten(-1, found.shape[-2:])
        mask = torch.fft.ifftshift(mask, dim=(-2, -1))
        return torch.fft.ifft2(found * mask, norm="ortho").real
