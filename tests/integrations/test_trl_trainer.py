"""What TRL's trainer does around the method: checkpoints, adapters, rewards, evaluation, metrics, correction."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import trl_world as world
from trl_world import EOS, GROUP, PROMPTS, right

from aepo import zoo
from aepo.controller import temperature_law
from aepo.correction import corrected
from aepo.integrations.trl import trainer as trainer_module
from aepo.integrations.trl.rows import only_reads_rewards
from aepo.schedule import Linear

STATEFUL = {"method": "aepo_reach", "target": 1.44, "stored": False, "optim": "adamw_torch", "lr": 3e-3}


# Checkpoints


@pytest.mark.parametrize("sees", ["current", "previous"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, sees):
    settings = STATEFUL | {"sees": sees}
    whole = world.run(**settings, steps=8)
    world.run(**settings, steps=4, out=str(tmp_path), save_strategy="steps", save_steps=4)
    saved = json.loads((tmp_path / "checkpoint-4" / "aepo_loop.json").read_text())
    assert saved["state"]["gain"] != zoo.build("aepo_reach").controller.start and len(saved["ups"]) == 4
    assert set(saved["ups"]) == {False, True} or sees == "previous"
    resumed = world.run(**settings, steps=8, out=str(tmp_path), resume=str(tmp_path / "checkpoint-4"))
    assert all(torch.equal(resumed.after[name], value) for name, value in whole.after.items())
    assert world.apart(whole.before, whole.after) > 1e-3
    for name in ("entropy", "push", "temperature", "duty_up"):
        assert resumed.history[7][name] == whole.history[7][name]


def test_a_checkpoint_of_another_controller_or_of_none_is_refused(tmp_path):
    world.run("aepo_pi", target=2.0, steps=1, out=str(tmp_path), save_strategy="steps", save_steps=1)
    checkpoint = tmp_path / "checkpoint-1"
    with pytest.raises(ValueError, match=r"memory of method 'aepo_pi', which has \['integral'\]; method 'repo_r' has"):
        world.run("repo_r", target=2.0, steps=2, resume=str(checkpoint))
    (checkpoint / "aepo_loop.json").unlink()
    with pytest.raises(
        ValueError, match=r"aepo_loop\.json is missing, .* was saved without AEPO; go on with the trainer"
    ):
        world.run("aepo_pi", target=2.0, steps=2, resume=str(checkpoint))


# Adapters


@pytest.mark.parametrize("method", ["aepo", "reweighting"])
def test_an_adapter_is_trained_and_its_base_is_not(method):
    from peft import LoraConfig

    # Dropout would give every pass another policy.
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.5, task_type="CAUSAL_LM")
    runs = [
        world.run(method, target=2.0, steps=2, accumulation=a, lr=0.5, stored=False, peft_config=config) for a in (1, 2)
    ]
    assert any(not torch.equal(runs[0].after[name], value) for name, value in runs[0].before.items() if "lora_" in name)
    assert all(torch.equal(runs[0].after[name], value) for name, value in runs[0].before.items() if "lora_" not in name)
    assert runs[0].history[0]["policy_kl"] == pytest.approx(0.0, abs=1e-9)
    assert runs[0].history[0]["clip_fraction"] == 0.0


# Rewards


def ended(completion_ids, **_):
    return [0.5 * float(tokens[-1] == EOS) for tokens in completion_ids]


def only_long(completion_ids, **_):
    return [right(tokens) if len(tokens) > 3 else None for tokens in completion_ids]


def main_rewards(run) -> tuple[torch.Tensor, torch.Tensor | None]:
    rollouts = run.trainer.seen[0]
    return rollouts.reward, rollouts.right_by


def watched(trainer) -> None:
    """Keep the rollouts of every generation."""
    trainer.seen, measure = [], trainer._measure

    def measured(control, batch, main, second):
        trainer.seen += [main, second]
        measure(control, batch, main, second)

    trainer._measure = measured


def responses() -> list[list[int]]:
    return [world.response(world.prompt(i), 1.0, j) for i in range(PROMPTS) for j in range(GROUP)]


@pytest.mark.parametrize(("right_by", "decides"), [(None, ended), ("reward", world.reward), ("ended", ended)])
def test_several_rewards_add_up_and_one_says_what_is_right(right_by, decides):
    run = world.run(
        "aepo", target=2.0, right_by=right_by, reward_funcs=[ended, world.reward], reward_weights=[2.0, 0.25],
        prepare=watched,
    )  # fmt: skip
    reward, by = main_rewards(run)
    rows = responses()
    want = [2.0 * a + 0.25 * b for a, b in zip(ended(rows), world.reward(rows), strict=True)]
    assert reward.tolist() == pytest.approx(want) and by.tolist() == decides(rows)


def test_a_response_that_no_function_judges_counts_as_wrong():
    run = world.run("aepo", target=2.0, reward_funcs=only_long, prepare=watched)
    reward, by = main_rewards(run)
    assert None in only_long(responses()) and by is None
    assert reward.tolist() == [one or 0.0 for one in only_long(responses())]


# Evaluation and metrics


def test_evaluation_is_trls_and_what_is_measured_has_its_names():
    run = world.run(
        "aepo", target=2.0, steps=2, accumulation=2, eval_strategy="steps", eval_steps=1,
        per_device_eval_batch_size=GROUP, eval_dataset=world.dataset(2), method_options={"prompt_fraction": 1.0},
    )  # fmt: skip
    train = [row for row in run.history if "loss" in row]
    evaluated = [row for row in run.history if "eval_loss" in row]
    assert len(train) == len(evaluated) == 2
    assert {"eval_reward", "eval_entropy", "eval_clip_ratio/region_mean"} <= set(evaluated[0])
    assert not {name for name in evaluated[0] if "tempered" in name or "target" in name}
    # Sampled at T = 1 for training, at the controller's T, then for the evaluation at T = 1 again.
    assert [round(t, 6) for t, _ in run.calls[:4]] == [1.0, 1.2, 1.0, 1.0]
    first = train[0]
    assert first["entropy_target"] == 2.0 and first["temperature"] == pytest.approx(1.2) and first["duty_up"] == 1.0
    assert first["entropy_error"] == pytest.approx(2.0 - first["entropy"])
    rows = responses()
    assert first["reward"] == pytest.approx(sum(map(right, rows)) / len(rows))
    tempered = [world.response(world.prompt(i), 1.2, j) for i in range(PROMPTS) for j in range(GROUP)]
    assert run.calls[1] == (pytest.approx(1.2), len(tempered))
    assert first["tempered/reward"] == pytest.approx(sum(map(right, tempered)) / len(tempered))
    assert first["positives"] == sum(map(right, tempered)) > 0
    tokens = sum(map(len, rows + tempered)) + 2 * GROUP * sum(len(world.prompt(i)) for i in range(PROMPTS))
    assert first["num_tokens"] == tokens


def test_the_entropy_is_the_mean_over_responses_of_the_mean_over_their_tokens():
    run = world.run("grpo", prepare=watched)
    model = world.tiny()
    entropies = []
    for i in range(PROMPTS):
        for j in range(GROUP):
            of, tokens = world.prompt(i), world.response(world.prompt(i), 1.0, j)
            logits = model(input_ids=torch.tensor([[*of, *tokens]])).logits[0, len(of) - 1 : -1].double()
            p = logits.softmax(-1)
            entropies.append((-(p * p.log()).sum(-1).mean()).item())
    assert run.history[0]["entropy"] == pytest.approx(sum(entropies) / len(entropies), abs=1e-5)


def test_these_methods_score_nothing_before_the_update():
    found = {name for name in zoo.METHODS if only_reads_rewards(zoo.build(name))}
    assert found == {
        "ce_gppo", "clip_higher", "dr_grpo", "entropy_reg", "entropy_reg_nll", "grpo", "quantile", "reinforce"
    }  # fmt: skip


@pytest.mark.parametrize(
    "read",
    [
        lambda rollouts: rollouts.scored("entropy").mean(-1),
        lambda rollouts: rollouts.reward - rollouts.old_logp.sum(-1),
        lambda rollouts: rollouts.reward * rollouts.entropy,
    ],
)
def test_a_method_of_ones_own_that_reads_scores_gets_them(read):
    assert not only_reads_rewards(dataclasses.replace(zoo.build("grpo"), advantage=read))
    assert only_reads_rewards(dataclasses.replace(zoo.build("grpo"), advantage=lambda rollouts: rollouts.reward))


@pytest.mark.parametrize(
    ("settings", "scored_again"),
    [
        ({"method": "grpo", "accumulation": 4}, False),
        ({"method": "entropy_reg"}, False),
        # The policy of the second update is not the one that sampled.
        ({"method": "grpo", "minibatches": 2, "steps": 2}, True),
        ({"method": "grpo", "num_iterations": 2, "steps": 2}, True),
        ({"method": "kl_cov"}, True),
        ({"method": "reweighting", "target": 2.0}, True),
    ],
)
def test_each_row_is_computed_once_where_nothing_asks_for_scores_before_the_update(settings, scored_again):
    entered = []

    def watch(trainer):
        trainer.model.model.register_forward_pre_hook(
            lambda _, given, named: entered.append(named["input_ids"].shape[0]), with_kwargs=True
        )

    run = world.run(**settings, prepare=watch)
    rows, live = PROMPTS * GROUP, run.history[0]["live_rows"]
    assert sum(entered) >= rows + live if scored_again else sum(entered) == rows
    assert live < rows or settings["method"] == "entropy_reg"


def test_rows_that_cannot_move_the_policy_are_not_computed():
    run = world.run("grpo", accumulation=4)
    sizes = [len(micro["completion_ids"]) for micro in run.trainer._buffered_inputs]
    assert sum(sizes) == run.history[0]["live_rows"] < PROMPTS * GROUP and max(sizes) - min(sizes) <= 1
    # By length: the padding of a micro-batch is small.
    assert len({micro["completion_ids"].shape[1] for micro in run.trainer._buffered_inputs}) > 1


def test_the_table_of_completions_shows_the_main_branch_alone(tmp_path):
    pandas = pytest.importorskip("pandas")
    run = world.run("aepo", target=2.0, log_completions=True, out=str(tmp_path))
    table = pandas.read_parquet(next(Path(tmp_path, "completions").glob("*.parquet")))
    assert len(table) == PROMPTS * GROUP and len(run.calls) == 2


def test_authority_is_measured_where_it_is_asked_for_and_changes_nothing():
    settings = {"target": 2.0, "steps": 2, "method_options": {"prompt_fraction": 1.0}}
    plain = world.run("aepo", **settings)
    asked = world.run("aepo", **settings, report_authority=True)
    assert world.apart(plain.after, asked.after) == 0.0
    names = {"control/drift_main", "control/drift_second"}
    assert names <= set(asked.history[0]) and not names & set(plain.history[0])
    assert asked.history[0]["control/drift_second"] != 0.0


# Targets, controllers, and what they see


def test_a_target_is_a_schedule_of_the_optimizer_steps():
    options = {"start": 2.0, "end": 1.0, "steps": 4}
    run = world.run("aepo", target_schedule="linear", target_options=json.dumps(options), minibatches=2, steps=4)
    # Two optimizer steps a generation.
    found = [row["entropy_target"] for row in run.history if "entropy_target" in row]
    assert found == [2.0, 1.5]


def test_a_relative_target_is_a_share_of_the_first_entropy():
    run = world.run("aepo", target=0.5, target_relative=True, steps=2)
    first, second, *_ = run.history
    assert first["entropy_target"] == pytest.approx(first["entropy"] / 2) == second["entropy_target"]


def test_the_previous_entropy_is_unknown_at_first_and_then_one_step_old():
    run = world.run("aepo_pi", target=2.0, sees="previous", steps=2, method_options={"gain": 1.0, "rate": 0.0})
    first, second, *_ = run.history
    assert first["temperature"] == pytest.approx(2.0)
    assert math.log(second["temperature"]) == pytest.approx(2.0 - first["entropy"], abs=1e-5)


def test_a_method_of_ones_own_takes_the_place_of_the_named_one():
    law = temperature_law(gain=1.0, rate=0.0, t_low=0.5, t_high=3.0)
    own = dataclasses.replace(zoo.build("aepo"), name="own", controller=law)

    class Own(trainer_module.AEPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, method=own, target=Linear(start=2.0, end=1.0, steps=2), **kwargs)

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:
        patched.setattr(world, "AEPOTrainer", Own)
        run = world.run("grpo", steps=2)
    for row, target in zip(run.history, (2.0, 1.5), strict=False):
        assert math.log(row["temperature"]) == pytest.approx(target - row["entropy"], abs=1e-5)


# Correction


def test_weights_are_corrected_at_the_sampling_temperature(monkeypatch):
    """A sampler whose log-probs are the trainer's at its own temperature less 0.1 on every token of odd place."""
    import aepo.integrations.trl.host as host

    seen = {}

    def heard(trainer) -> None:
        watched(trainer)
        type(trainer.args).corrects = property(lambda self: True)
        sampled = trainer._sampled

        def with_logps(inputs):
            block = sampled(inputs)
            temperature = trainer.generation_config.temperature
            with torch.no_grad():
                logp, _ = host.stats(trainer, trainer.model, block.inputs, temperature=temperature)
            block.inputs["sampling_per_token_logps"] = logp - 0.1 * (torch.arange(logp.shape[1]) % 2)
            block.inputs["sampling_per_token_logps"][0, 0] = float("nan")
            return block

        trainer._sampled = with_logps

        def kept(batch, main, second, **options):
            seen["before"], seen["after"] = batch, corrected(batch, main, second, **options)
            return seen["after"]

        monkeypatch.setattr(trainer_module, "corrected", kept)

    monkeypatch.setattr(world, "AEPOConfig", type("Config", (world.AEPOConfig,), {}))
    world.run("aepo", target=2.0, prepare=heard, correction_cap=3.0, method_options={"prompt_fraction": 1.0})
    before, after = seen["before"], seen["after"]
    odd = torch.arange(before.token.shape[1]) % 2 == 1
    on = before.weight != 0
    factor = (after.weight / before.weight.where(on, 1.0))[on]
    # No row of T = 1.2 is far from 1, as one compared at T = 1 would be.
    assert on[PROMPTS * GROUP :].any()
    torch.testing.assert_close(factor, torch.where(odd, math.exp(0.1), 1.0).expand_as(on)[on], rtol=1e-4, atol=1e-5)
