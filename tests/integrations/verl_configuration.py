"""verl's configuration as its command makes it, with the names and values that AEPO needs; for tests that have verl."""

from hydra import compose, initialize_config_module
from verl.utils.config import omega_conf_to_dataclass

from aepo.integrations.verl.settings import SECTION, TARGET

GROUP = 4
NAMED = [
    f"{SECTION}._target_={TARGET}",
    f"{SECTION}.loss_mode=aepo",
    "algorithm.adv_estimator=aepo",
    "trainer.v1.trainer_mode=aepo",
    "actor_rollout_ref.actor.loss_agg_mode=token-sum",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.rollout.name=vllm",
    f"actor_rollout_ref.rollout.n={GROUP}",
    f"+{SECTION}.target=0.9",
]


def composed(*overrides: str):
    """verl's whole configuration, as its command makes it."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", [*NAMED, *overrides])


def chosen(method: str, options: dict[str, object], *overrides: str):
    """The same for a method, as a person types it."""
    typed = ", ".join(f"{name}: {value}" for name, value in options.items())
    return composed(f"+{SECTION}.method={method}", f"+{SECTION}.method_options={{{typed}}}", *overrides)


def actor_config(config):
    """What verl's workers make of it."""
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)
