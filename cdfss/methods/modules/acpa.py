"""ACPA, the adaptive channel phase attention (paper 4.3)."""

from pydantic import Field

from cdfss.methods import contract
from cdfss.methods.modules.contract import Module


class PhaseAttention(Module):
    """Weights on channels from the average phase of each, behind the support mask."""

    family = "channel attention"
    learns = True
    after_mask = True

    class Settings(contract.Settings):
        hidden: contract.Count = Field(8, description="width of the bottleneck (8 in the published code)")

    def parameters(self, channels, height, width):
        from torch import nn

        squeeze = nn.Linear(channels, self.settings.hidden, bias=False)  # for torch's own first weights
        excite = nn.Linear(self.settings.hidden, channels, bias=False)
        return {"squeeze": squeeze.weight.data[None], "excite": excite.weight.data[None]}

    def change(self, parameters, prepared):
        from cdfss.methods.frequency import weighted_by_phase

        return weighted_by_phase(prepared, parameters["squeeze"], parameters["excite"])
