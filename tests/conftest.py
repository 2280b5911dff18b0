"""What every test shares: hypothesis profiles and one torch thread.

`ci` (the default) draws the same examples every time; `random` draws fresh and more ones: choose by the
environment variable HYPOTHESIS_PROFILE or by pytest's --hypothesis-profile, which wins. Neither has a
deadline: torch's first call takes over a second.
"""

import os

import torch

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    # The tests on a GPU draw nothing, and need no more than torch, Triton and pytest.
    pass
else:
    # Generators build tensors, which is slow beside drawing integers; it says nothing about a test.
    QUIET = (HealthCheck.too_slow,)
    # 100 examples a law keep the suite under two minutes on one core; the corners are weighted into the
    # generators.
    settings.register_profile("ci", deadline=None, derandomize=True, max_examples=100, suppress_health_check=QUIET)
    settings.register_profile("random", deadline=None, derandomize=False, max_examples=500, suppress_health_check=QUIET)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Tensors here hold a few hundred numbers: a second thread costs more than it brings, on a shared machine
# above all.
torch.set_num_threads(1)
