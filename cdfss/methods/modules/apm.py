"""APM, the amplitude-phase masker (paper 4.2)."""

from typing import ClassVar

from cdfss.methods.modules.contract import Module


class _Masker(Module):
    """Amplitude and phase of each map's spectrum times sigmoid of learnt masks, which start as ones."""

    family = "frequency masker"
    learns = True
    sized = True
    for_each_channel: ClassVar[bool]

    def parameters(self, channels, height, width):
        import torch

        shape = (1, channels if self.for_each_channel else 1, height, width)
        return {"mask_amplitude": torch.ones(shape), "mask_phase": torch.ones(shape)}

    def prepare(self, maps):
        from cdfss.methods.frequency import spectrum

        return spectrum(maps)

    def change(self, parameters, prepared):
        from cdfss.methods.frequency import masked

        return masked(*prepared, parameters["mask_amplitude"], parameters["mask_phase"])

    def factors(self, parameters):
        return {name.removeprefix("mask_"): mask.sigmoid() for name, mask in parameters.items()}


class SharedMasker(_Masker):
    """APM-S: one mask for all channels."""

    for_each_channel = False


class ChannelMasker(_Masker):
    """APM-M: one mask per channel."""

    for_each_channel = True
