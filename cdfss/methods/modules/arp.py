"""ARP, amplitude-phase recombination (Chen et al., ICCV 2021; a rival of paper table 8)."""

from cdfss.methods.modules.contract import Module


class AmplitudeExchange(Module):
    """Query and support exchange the amplitudes of their maps' spectra, and keep their own phases.

    The published code does so with pictures, while a network is trained. Of a support that is its own query
    nothing changes.
    """

    family = "frequency"
    of_pairs = True

    def change_pair(self, parameters, query, support, query_mask, support_mask):
        import torch

        from cdfss.methods.frequency import spectrum

        (amplitude, phase), (other_amplitude, other_phase) = spectrum(query), spectrum(support)
        exchanged = (other_amplitude, phase), (amplitude, other_phase)
        return tuple(torch.fft.ifft2(torch.polar(*parts)).real for parts in exchanged)
