"""What would falsify a method is refused by name, with the value and the cure, before a model is built."""

import dataclasses
import re
from types import SimpleNamespace

import pytest
import trl_world as world
from trl import GRPOConfig

from aepo import zoo
from aepo.integrations.trl import AEPOConfig, AEPOTrainer, host
from aepo.integrations.trl.config import FIXED, refusal
from aepo.schedule import Constant


def settings(**changed) -> AEPOConfig:
    return AEPOConfig("unused", use_cpu=True, bf16=False, report_to=[], **{"target": 0.5} | changed)


OTHER = {
    "temperature": 0.9,
    "top_p": 0.99,
    "top_k": 20,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "vllm_structured_outputs_regex": "a*",
    "beta": 0.04,
    "use_adaptive_entropy": True,
    "entropy_coef": 0.1,
    "top_entropy_quantile": 0.2,
    "loss_type": "dapo",
    "scale_rewards": "batch",
    "multi_objective_aggregation": "normalize_then_sum",
    "importance_sampling_level": "sequence",
    "epsilon": 0.1,
    "epsilon_high": 0.28,
    "delta": 3.0,
    "off_policy_mask_threshold": 0.5,
    "mask_truncated_completions": True,
    "vllm_importance_sampling_correction": True,
}


@pytest.mark.parametrize("name", FIXED)
def test_an_option_of_trls_that_would_falsify_the_method_is_refused_with_its_reason(name):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {re.escape(repr(OTHER[name]))}: \w+") as refused:
        settings(**{name: OTHER[name]})
    assert FIXED[name][1] in str(refused.value)


def test_trls_defaults_are_taken_as_they_are_and_all_problems_are_told_at_once():
    assert settings().method == "aepo"
    with pytest.raises(ValueError, match=r"temperature must be 1\.0, got 0\.7: .*; beta must be 0\.0, got 0\.1: "):
        settings(temperature=0.7, beta=0.1)
    # What is fixed is an option of this version's trainer.
    assert set(FIXED) <= {field.name for field in dataclasses.fields(GRPOConfig)}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"generation_kwargs": {"top_p": 0.9}}, "generation_kwargs must not hold top_p: "),
        (
            {"steps_per_generation": 2, "gradient_accumulation_steps": 4},
            "gradient_accumulation_steps=4 must divide steps_per_generation=2: ",
        ),
        ({"method": "aepoo"}, "unknown method 'aepoo', did you mean 'aepo'?"),
        ({"method_options": {"t_lo": 1}}, "unknown option of method 'aepo': 't_lo', did you mean 't_low'?"),
        ({"method_options": {"alpha": 0.0}}, "alpha must be > 0, got 0.0"),
        ({"sees": "next"}, "sees must be one of current, previous, got 'next'"),
        ({"target": -1.0}, "target must be > 0 nats, got -1.0"),
        ({"target": None, "target_schedule": "linear"}, "target_schedule='linear' needs target_options"),
        ({"target_options": {"value": 1.0}}, "target=0.5 is constant: leave it out with "),
        ({"target": None, "target_options": {"to": 1.0}}, "schedule 'constant' takes value: "),
        ({"correction": "on"}, "correction must be one of auto, none, truncated, got 'on'"),
        ({"correction": "truncated"}, "correction='truncated' needs use_vllm=True: "),
        ({"correction_cap": 0.5}, "correction_cap must be at least 1, got 0.5"),
        ({"correction_sequence_bound": 1.0}, "correction_sequence_bound must be > 1 or None, got 1.0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changed, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        settings(**changed)


def test_a_group_must_not_straddle_ranks(monkeypatch):
    # Two ranks of four rows each, and groups of eight: TRL itself would take them.
    monkeypatch.setattr(AEPOConfig, "world_size", property(lambda self: 2))
    with pytest.raises(ValueError, match="which is 4: a prompt's group must not straddle ranks"):
        settings(per_device_train_batch_size=4, num_generations=8)


@pytest.mark.parametrize("name", sorted(zoo.METHODS))
def test_a_method_is_taken_or_refused_with_its_reason(name):
    method = zoo.build(name)
    why = refusal(method, Constant(0.5), samples_itself=False)
    if method.main_temperature is not None:
        assert name in why and "moves the temperature of the main responses" in why
    else:
        assert why is None
    alone = refusal(method, None, samples_itself=False)
    assert (alone is not None) == (method.controlled or why is not None)
    assert method.tempered is None or "rollout_func" in refusal(method, Constant(0.5), samples_itself=True)


def test_only_e3_is_refused():
    assert [n for n in zoo.METHODS if refusal(zoo.build(n), Constant(0.5), samples_itself=False)] == ["e3"]


def test_the_caps_of_an_uncontrolled_method_need_a_target_too():
    assert "needs a target" in refusal(zoo.build("aepo_eq2", normalizer="replace"), None, samples_itself=False)


def test_the_trainer_refuses_before_it_loads_a_model():
    # "nowhere" would be looked for.
    for args, said in (
        (settings(method="e3"), "method 'e3' moves the temperature"),
        (settings(target=None), "method 'aepo' needs a target"),
        (GRPOConfig("unused", use_cpu=True, bf16=False), "args must be an AEPOConfig, got GRPOConfig"),
    ):
        with pytest.raises(ValueError, match=said):
            AEPOTrainer("nowhere", world.reward, args)


def test_right_by_names_a_reward_function():
    with pytest.raises(ValueError, match="right_by must be one of reward, got 'right'"):
        world.run("aepo", target=0.5, right_by="right")


def test_a_trainer_without_what_a_method_needs_is_refused():
    has = {"_is_vlm": False, "aux_loss_enabled": False, "_entropy_bonus_enabled": False, "router_aux_loss_coef": 0.1}
    host.check_trainer(SimpleNamespace(**has))
    old = {name: value for name, value in has.items() if name != "_entropy_bonus_enabled"}
    with pytest.raises(ImportError, match=r"needs trl >= 1\.10\.0: older ones give an entropy no gradient"):
        host.check_trainer(SimpleNamespace(**old))
    with pytest.raises(ValueError, match=r"router_aux_loss_coef must be 0 for this model: .*, got 0\.1"):
        host.check_trainer(SimpleNamespace(**has | {"aux_loss_enabled": True}))
    with pytest.raises(ValueError, match="use_liger_kernel must be False with this version of TRL"):
        host.check_trainer(SimpleNamespace(**has | {"use_liger_kernel": True}))
    with pytest.raises(ValueError, match="processing_class must be a tokenizer"):
        host.check_trainer(SimpleNamespace(**has | {"_is_vlm": True}))


def test_a_command_line_takes_every_setting():
    from transformers import HfArgumentParser

    typed = ["--output_dir", "unused", "--method", "aepo_pi", "--method_options", '{"gain": 2.0}', "--use_cpu", "true"]
    typed += [
        "--bf16",
        "false",
        "--target_schedule",
        "linear",
        "--target_options",
        '{"start": 1, "end": 0.5, "steps": 9}',
    ]
    (args,) = HfArgumentParser(AEPOConfig).parse_args_into_dataclasses(typed)
    assert args.named_method().controller.gain == 2.0 and args.named_target()(9) == 0.5


@pytest.mark.parametrize("temperature", [0.5, 1.2])
def test_the_temperature_is_set_back_whatever_happens(temperature):
    trainer = world.run("grpo").trainer
    before = trainer.generation_config.temperature, dict(trainer.generation_kwargs)
    with pytest.raises(KeyError), host.sampling_at(trainer, temperature):
        assert trainer.generation_config.temperature == trainer.generation_kwargs["temperature"] == temperature
        raise KeyError
    assert (trainer.generation_config.temperature, trainer.generation_kwargs) == before
    served = SimpleNamespace(use_vllm=True, vllm_generation=SimpleNamespace(temperature=1.0))
    with host.sampling_at(served, temperature):
        assert served.vllm_generation.temperature == temperature
    assert served.vllm_generation.temperature == 1.0


def test_a_server_whose_log_probs_are_not_those_of_the_sampling_temperature_is_refused():
    def served(mode):
        client = SimpleNamespace(get_server_info=lambda: {"model_config": {"logprobs_mode": mode}})
        return SimpleNamespace(
            use_vllm=True,
            vllm_mode="server",
            accelerator=SimpleNamespace(is_main_process=True),
            vllm_generation=SimpleNamespace(vllm_client=client),
        )

    host.check_server(served("processed_logprobs"))
    with pytest.raises(ValueError, match=r"logprobs_mode is 'raw_logprobs': .*correction='none'"):
        host.check_server(served("raw_logprobs"))
