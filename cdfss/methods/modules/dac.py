"""PCNorm of DAC (Lee et al., CVPR 2023; a rival of paper table 8)."""

from cdfss.methods.modules.contract import Module

EPSILON = 1e-5  # added to the variance, as in torch's normalisations


class PhaseConsistentNormalisation(Module):
    """The amplitudes of the normalised maps with the phases of the maps themselves.

    With instance normalisation, which shifts a map and divides it by a positive number, the phases of both
    are the same wherever there is an amplitude: at frequency 0 there is none, elsewhere it is divided. So
    this is instance normalisation (without parameters), and computed so.
    """

    family = "frequency"

    def change(self, parameters, prepared):
        import torch

        variance, mean = torch.var_mean(prepared.float(), (-2, -1), correction=0, keepdim=True)
        return (prepared - mean) / (variance + EPSILON).sqrt()
