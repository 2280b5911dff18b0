"""The paper's closed forms in float64 NumPy: an oracle that shares no line with the code it judges.

Nothing of `aepo` is imported here, nor torch. Entropies are in nats; every function takes leading axes as
independent instances.
"""

from aepo.theory.drift import delta_entropy, delta_entropy_as_printed, delta_entropy_slope, reinforce_step
from aepo.theory.softmax import entropy, entropy_temperature_slope, tempered

__all__ = [
    "delta_entropy",
    "delta_entropy_as_printed",
    "delta_entropy_slope",
    "entropy",
    "entropy_temperature_slope",
    "reinforce_step",
    "tempered",
]
