"""The global filter of GFNet (Rao et al., NeurIPS 2021; a rival of paper table 8)."""

from cdfss.methods.modules.contract import Module


class GlobalFilter(Module):
    """A learnt complex factor for each channel and frequency: a circular convolution as wide as the map.

    Factors start at 1, which changes nothing. The published ones are drawn about 0, for a network that is
    trained with them; in a frozen one these would leave noise.
    """

    family = "frequency"
    learns = True
    sized = True

    def parameters(self, channels, height, width):
        import torch

        # Real and imaginary parts; the other half of a real map's spectrum is its conjugate.
        first = torch.zeros(1, channels, height, width // 2 + 1, 2)
        first[..., 0] = 1
        return {"filter": first}

    def prepare(self, maps):
        import torch

        return torch.fft.rfft2(maps.float(), norm="ortho"), maps.shape[-2:]

    def change(self, parameters, prepared):
        import torch

        found, size = prepared
        factors = torch.view_as_complex(parameters["filter"].float())
        return torch.fft.irfft2(found * factors, s=size, norm="ortho")
