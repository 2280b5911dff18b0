"""The paper's closed forms in float64 NumPy: an oracle that shares no line with the code it judges.

Nothing of `aepo` is imported here, nor torch. Entropies are in nats; every function takes leading axes as
independent instances, but for `sequences`, whose trees are one at a time. The counterexamples are in
`aepo.theory.cases`.
"""

from aepo.theory.bounds import (
    controller_band,
    ordering_lr,
    pushed_mass,
    remainder_bound,
    step_bound,
)
from aepo.theory.drift import (
    delta_entropy,
    delta_entropy_as_printed,
    delta_entropy_of_sampler,
    delta_entropy_slope,
    reinforce_step,
)
from aepo.theory.floor import (
    estimated_floor,
    median,
    noise_floor,
)
from aepo.theory.moving import (
    lost_target_bound,
    moving_target_bound,
    moving_target_hitting_time,
)
from aepo.theory.noise import noise_error_bound
from aepo.theory.samplers import (
    min_p,
    top_k,
    top_p,
)
from aepo.theory.sequences import (
    delta_entropy_of_sequences,
    prefix_probabilities,
    sequence_step,
    token_entropy,
)
from aepo.theory.softmax import (
    entropy,
    entropy_temperature_slope,
    mean_logit,
    pull,
    tempered,
    tempered_slope,
)
from aepo.theory.steering import (
    delta_reward,
    entropy_ceiling,
    steering,
    steering_coefficient,
)
from aepo.theory.threshold import (
    contraction_bound,
    critical_temperature,
    slope_bound,
    threshold,
    threshold_probability,
)
from aepo.theory.variants import (
    correct_given,
    delta_entropy_natural,
    delta_entropy_normalised,
    delta_entropy_slope_with_features,
    delta_entropy_with_features,
    natural_slope_at_one,
)

__all__ = [
    "contraction_bound",
    "controller_band",
    "correct_given",
    "critical_temperature",
    "delta_entropy",
    "delta_entropy_as_printed",
    "delta_entropy_natural",
    "delta_entropy_normalised",
    "delta_entropy_of_sampler",
    "delta_entropy_of_sequences",
    "delta_entropy_slope",
    "delta_entropy_slope_with_features",
    "delta_entropy_with_features",
    "delta_reward",
    "entropy",
    "entropy_ceiling",
    "entropy_temperature_slope",
    "estimated_floor",
    "lost_target_bound",
    "mean_logit",
    "median",
    "min_p",
    "moving_target_bound",
    "moving_target_hitting_time",
    "natural_slope_at_one",
    "noise_error_bound",
    "noise_floor",
    "ordering_lr",
    "prefix_probabilities",
    "pull",
    "pushed_mass",
    "reinforce_step",
    "remainder_bound",
    "sequence_step",
    "slope_bound",
    "steering",
    "steering_coefficient",
    "step_bound",
    "tempered",
    "tempered_slope",
    "threshold",
    "threshold_probability",
    "token_entropy",
    "top_k",
    "top_p",
]
