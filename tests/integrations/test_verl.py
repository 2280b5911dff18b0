"""AEPO's plug-in for verl against the core: skips where verl is not installed (`make test-verl`).

The losses go through verl's own `ppo_loss`, on nested tensors, with its configuration, its registry and its `agg_loss`.
"""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aepo import zoo
from aepo.batch import Rollouts
from aepo.controller import Loop
from aepo.correction import corrected
from aepo.loss import policy_loss
from aepo.method import assemble

pytest.importorskip("verl", reason="verl is not installed: make test-verl installs and tests it")

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import ppo_loss
from verl_configuration import GROUP, actor_config, chosen, composed

from aepo.integrations.verl import AEPOPolicyLossConfig, Driver, Scores, refusal
from aepo.integrations.verl.driver import FILE, grouped
from aepo.integrations.verl.settings import FIXED, SECTION, TARGET, problems

# Every method that verl's loss can carry, with options that are not the defaults and act on the batches below.
TAKEN: dict[str, dict[str, object]] = {
    "ce_gppo": {"beta_low": 0.5},
    "clip_b": {"mu": 0.1},
    "clip_cov": {"ratio": 0.2, "low": -0.5, "high": 5.0},
    "clip_higher": {"clip_high": 0.4, "average": "token"},
    "dcpo": {"limit": 0.5},
    "dr_grpo": {"max_tokens": 9},
    "entrocraft": {"width": 0.01},
    "entropic": {"gain": 0.7},
    "entropy_adv": {"beta": 0.3},
    "grpo": {"dual_clip": 1.1},
    "quantile": {"k": 0.6},
    "reinforce": {"average": "token"},
    "repo_r": {"start": 0.3},
    "reweighting": {"alpha": 2.0, "scope": "group"},
    "shorter": {"alpha": 3.0},
    "stare": {"strength": 0.4, "share": 0.3, "variant": "C2"},
    "steer": {"lowest": 0.5},
    "top_entropy": {"share": 0.4},
}
PROMPTS, LONGEST, ACTIONS = 3, 6, 5
# verl adds rows without a response until the batch can be split.
PADDING = 2
ROWS = PROMPTS * GROUP + PADDING
MINIBATCH = ROWS // 2


def driver_of(config, rows: int = MINIBATCH) -> Driver:
    return Driver(actor_config(config).policy_loss, group_size=GROUP, minibatch_rows=rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """One global batch as verl has it: rows of a prompt apart from each other, padding rows among them."""

    logits: Tensor
    token: Tensor
    mask: Tensor
    reward: Tensor
    uid: list[str]
    log_ratio: Tensor
    prompt_length: Tensor

    @classmethod
    def drawn(cls, seed: int) -> "Scene":
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(ROWS, generator=generator)
        uid = [f"prompt {row // GROUP}" for row in range(PROMPTS * GROUP)] + ["pad"] * PADDING
        length = torch.randint(1, LONGEST + 1, (ROWS,), generator=generator)
        length[0] = LONGEST
        mask = (torch.arange(LONGEST) < length.unsqueeze(-1)).double()
        # A tool's tokens inside a response are not the policy's.
        mask[0, 2] = 0.0
        # The last prompt's rewards are equal: dead rows, unless the method makes something of them.
        reward = torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0], dtype=torch.float64)
        for row in range(PROMPTS * GROUP, ROWS):
            mask[row] = 0.0
        draw = {"dtype": torch.float64, "generator": generator}
        return cls(
            logits=2 * torch.randn(ROWS, LONGEST, ACTIONS, **draw)[order],
            token=torch.randint(ACTIONS, (ROWS, LONGEST), generator=generator)[order],
            mask=mask[order],
            reward=reward[order],
            uid=[uid[row] for row in order],
            log_ratio=0.4 * torch.randn(ROWS, LONGEST, **draw)[order],
            prompt_length=torch.randint(1, 4, (ROWS,), generator=generator)[order],
        )

    def logp_at(self, temperature: float) -> Tensor:
        spread = (self.logits / temperature).log_softmax(-1)
        return spread.gather(-1, self.token.unsqueeze(-1)).squeeze(-1)

    @property
    def entropy(self) -> Tensor:
        logp = self.logits.log_softmax(-1)
        return -(logp.exp() * logp).sum(-1)

    def scores(self) -> Scores:
        return Scores(old_logp=self.logp_at(1.0), entropy=self.entropy, logp_at=self.logp_at)

    @property
    def core_order(self) -> Tensor:
        """The rows as the core wants them: prompt after prompt, no padding."""
        first = list(dict.fromkeys(name for name in self.uid if name != "pad"))
        return torch.tensor([row for name in first for row in range(ROWS) if self.uid[row] == name])

    def rollouts(self, temperature: float | None = None) -> Rollouts:
        rows = self.core_order
        return Rollouts(
            prompt=torch.arange(len(rows)) // GROUP,
            token=self.token[rows],
            mask=self.mask[rows],
            reward=self.reward[rows],
            group_size=GROUP,
            old_logp=self.logp_at(1.0)[rows],
            entropy=self.entropy[rows],
            logp_t=None if temperature is None else self.logp_at(temperature)[rows],
        )


def estimated(driver: Driver, scene: Scene, step: int) -> tuple[Tensor, dict]:
    """The advantages that verl's own function gets from the estimator that it finds in its registry."""
    metrics: dict = {}
    scores = torch.zeros_like(scene.mask)
    scores[:, -1] = scene.reward
    data = DataProto.from_dict(
        tensors={"token_level_rewards": scores, "response_mask": scene.mask.long()},
        non_tensors={"uid": scene.uid},
    )
    with driver.turn(scene.scores(), step=step, metrics=metrics):
        data = compute_advantage(data, adv_estimator="aepo", config=OmegaConf.create({}))
    return data.batch["advantages"], metrics


def nested(rows: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def verl_loss(config, scene: Scene, advantages: Tensor, logp: Tensor, rows: Tensor, *, ranks: int, micro: int, **more):
    """One mini-batch through verl's ppo_loss: its ranks' mean of sums over micro-batches, as its engine takes it."""
    total = torch.zeros((), dtype=logp.dtype)
    parts = rows.tensor_split(ranks)
    for part in parts:
        for few in part.split(micro):
            # Padding rows have one token, which the mask takes out.
            ends = [int(line.nonzero().max()) + 1 if line.any() else 1 for line in scene.mask[few]]

            def cut(value: Tensor, few=few, ends=ends) -> Tensor:
                return nested([value[row, :end] for row, end in zip(few.tolist(), ends, strict=True)])

            # What the model says of position i is about token i + 1.
            whole = [
                torch.cat(
                    [logp.new_full((int(scene.prompt_length[row]) - 1,), -7.0), logp[row, :end], logp.new_ones(1)]
                )
                for row, end in zip(few.tolist(), ends, strict=True)
            ]
            data = TensorDict(
                {
                    "prompts": nested([torch.zeros(int(scene.prompt_length[row])) for row in few]),
                    "responses": cut(scene.token),
                    "response_mask": cut(scene.mask.long()),
                    "old_log_probs": cut(scene.logp_at(1.0)),
                    "advantages": cut(advantages),
                    **{name: cut(value) for name, value in more.items()},
                },
                batch_size=len(few),
            )
            tu.assign_non_tensor(
                data, dp_size=ranks, batch_num_tokens=int(scene.mask[rows].sum()), global_batch_size=len(rows)
            )
            loss, _ = ppo_loss(config, {"log_probs": nested(whole)}, data)
            total = total + loss / ranks
    return total


def compared(config, scene: Scene, driver: Driver, loop: Loop, *, step: int, ranks: int = 2, micro: int = 3):
    """Both losses and both gradients by log-prob of every mini-batch; the loop after the step."""
    method = driver.method
    advantages, _ = estimated(driver, scene, step)
    main = scene.rollouts()
    loop, control = loop.decide(
        method.controller, entropy=main.mean_entropy(), target=0.9, sees=driver.settings.sees, step=step
    )
    batch = assemble(method, control, scene.rollouts(float(control.temperature)))
    place = {row: i for i, row in enumerate(scene.core_order.tolist())}
    found = []
    for rows in torch.arange(ROWS).split(MINIBATCH):
        logp = (scene.logp_at(1.0) + scene.log_ratio).requires_grad_()
        got = verl_loss(actor_config(config), scene, advantages, logp, rows, ranks=ranks, micro=micro)
        here = [row for row in rows.tolist() if row in place]
        part = batch.rows(torch.tensor([place[row] for row in here])).scaled(ROWS / MINIBATCH)
        want, _ = policy_loss(logp[here], None, part, method.surrogate)
        found.append((got, want, *(torch.autograd.grad(loss, logp)[0] for loss in (got, want))))
    return found, loop


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_loss_and_gradient_through_verl_are_the_cores(name):
    config = chosen(name, TAKEN[name])
    driver = driver_of(config)
    loop = Loop.start(driver.method.controller, torch.zeros(()))
    moved = 0.0
    for step in range(3):
        found, loop = compared(config, Scene.drawn(step), driver, loop, step=step)
        for got, want, got_gradient, want_gradient in found:
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
            torch.testing.assert_close(got_gradient, want_gradient, rtol=0, atol=1e-12)
            moved += float(want_gradient.abs().sum())
    assert moved > 0.1


@pytest.mark.parametrize(("ranks", "micro"), [(1, ROWS), (1, 1), (2, 2), (3, 1)])
def test_ranks_and_micro_batches_do_not_change_the_loss(ranks, micro):
    config = chosen("reweighting", {"alpha": 3.0})
    driver = driver_of(config)
    loop = Loop.start(driver.method.controller, torch.zeros(()))
    found, _ = compared(config, Scene.drawn(5), driver, loop, step=0, ranks=ranks, micro=micro)
    for got, want, got_gradient, want_gradient in found:
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
        torch.testing.assert_close(got_gradient, want_gradient, rtol=0, atol=1e-12)


def test_verls_importance_weights_are_the_cores_correction():
    config, scene = chosen("repo_r", {"start": 0.3}), Scene.drawn(7)
    driver = driver_of(config, rows=ROWS)
    noise = torch.randn(scene.mask.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    engine = scene.logp_at(1.0) + noise
    rows = DataProto.from_dict(
        tensors={
            "old_log_probs": scene.logp_at(1.0),
            "rollout_log_probs": engine,
            "response_mask": scene.mask.long(),
        }
    )
    settings = OmegaConf.create({"rollout_is": "token", "rollout_is_threshold": 1.5, "rollout_rs": None})
    rows, _ = compute_rollout_correction_and_add_to_batch(rows, settings)
    logp = (scene.logp_at(1.0) + scene.log_ratio).requires_grad_()
    advantages, _ = estimated(driver, scene, 0)
    weights = rows.batch["rollout_is_weights"]
    every = torch.arange(ROWS)
    got = verl_loss(actor_config(config), scene, advantages, logp, every, ranks=1, micro=4, rollout_is_weights=weights)
    main = scene.rollouts()
    _, control = Loop.start(driver.method.controller, torch.zeros(())).decide(
        driver.method.controller, entropy=main.mean_entropy(), target=0.9, sees="current"
    )
    main = main.replace(engine_logp=engine[scene.core_order])
    batch = corrected(assemble(driver.method, control, main), main, None, cap=1.5, sequence_bound=None)
    want, _ = policy_loss(logp[scene.core_order], None, batch, driver.method.surrogate)
    assert float(weights.max()) == 1.5
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    for one, other in zip(torch.autograd.grad(got, logp), torch.autograd.grad(want, logp), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_rest_of_the_zoo_is_refused_by_name_and_no_other():
    refused = {name for name in zoo.METHODS if refusal(zoo.build(name)) is not None}
    assert refused == set(zoo.METHODS) - set(TAKEN)
    for name in refused:
        with pytest.raises(ValueError, match=rf"policy_loss\.method={name} cannot run inside verl: .*trainer"):
            AEPOPolicyLossConfig(method=name, target=0.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "reweigting"}, "unknown method 'reweigting', did you mean 'reweighting'"),
        ({"method_options": {"alpah": 2}}, "unknown option of method 'reweighting': 'alpah', did you mean 'alpha'"),
        ({"method_options": {"alpha": -1}}, "method_options={'alpha': -1}: alpha must be > 0, got -1"),
        ({"method_options": {"alpha": "x"}}, r"method_options={'alpha': 'x'}"),
        ({"target": None}, "target is missing: method=reweighting holds an entropy; set target"),
        ({"target": -0.5}, "target must be a number > 0, in nats, got -0.5"),
        ({"target": "high"}, "target must be a number > 0, in nats, got 'high'"),
        ({"target_schedule": "linear"}, "target=0.5 is constant: leave it out"),
        ({"target": None, "target_schedule": "linear"}, "target_schedule=linear needs target_options"),
        ({"target": None, "target_options": {"valu": 1}}, "schedule 'constant' takes value"),
        ({"target": None, "target_options": {"value": -1.0}}, "the target must be > 0 nats at step 0, got -1.0"),
        ({"sees": "next"}, "sees must be one of current, previous, got 'next'"),
        ({"loss_mode": "vanilla"}, "loss_mode must be aepo beside method=reweighting, got 'vanilla'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_the_cure(settings, said):
    with pytest.raises(ValueError) as error:
        AEPOPolicyLossConfig(**{"target": 0.5, **settings})
    assert said in str(error.value)
    assert SECTION in str(error.value)


def test_verls_own_first_check_sees_a_wrong_method():
    with pytest.raises(Exception, match="method=aepo cannot run inside verl: it samples a second branch"):
        actor_config(chosen("aepo", {}))


CHANGED = {
    "trainer.v1.trainer_mode": "sync",
    "algorithm.adv_estimator": "grpo",
    f"{SECTION}._target_": "verl.workers.config.PolicyLossConfig",
    f"{SECTION}.loss_mode": "vanilla",
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.rollout.temperature": 0.7,
    "actor_rollout_ref.rollout.top_p": 0.95,
    "actor_rollout_ref.rollout.top_k": 50,
    "actor_rollout_ref.rollout.do_sample": False,
    "actor_rollout_ref.actor.entropy_coeff": 0.001,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "algorithm.use_kl_in_reward": True,
    "algorithm.norm_adv_by_std_in_grpo": False,
    "algorithm.filter_groups.enable": True,
    "algorithm.rollout_correction.bypass_mode": True,
    "algorithm.rollout_correction.rollout_rs": "seq_mean_k1",
    "actor_rollout_ref.actor.clip_ratio": 0.1,
    "actor_rollout_ref.actor.clip_ratio_low": 0.1,
    "actor_rollout_ref.actor.clip_ratio_high": 0.28,
    "actor_rollout_ref.actor.clip_ratio_c": 10.0,
    "trainer.critic_warmup": 3,
    "distillation.enabled": True,
}


def test_verls_defaults_with_the_five_names_are_taken():
    assert problems(composed()) == []
    assert set(CHANGED) == set(FIXED)


@pytest.mark.parametrize("path", sorted(CHANGED))
def test_what_would_falsify_the_entropy_or_the_method_is_refused(path):
    # An override of a name that verl does not have is an error of its own.
    (problem,) = problems(composed(f"{path}={CHANGED[path]}"))
    assert problem.startswith(f"{path} must be ")
    assert f"got {CHANGED[path]!r}: " in problem


def test_the_loss_refuses_settings_of_another_class_and_another_sum():
    one = torch.ones(1, 1)
    loss = core_algos.get_policy_loss_fn("aepo")
    other = actor_config(composed(f"~{SECTION}.target", f"{SECTION}._target_=verl.workers.config.PolicyLossConfig"))
    with pytest.raises(ValueError, match=re.escape(f"{SECTION}._target_ must be {TARGET} with")):
        loss(one, one, one, one, "token-sum", other)
    with pytest.raises(ValueError, match=r"loss_agg_mode must be token-sum .* got 'token-mean'"):
        loss(one, one, one, one, "token-mean", actor_config(composed()))


def test_every_line_of_the_example_is_one_that_verl_and_the_plug_in_take():
    script = (Path(__file__).parents[2] / "examples" / "verl" / "run_gsm8k.sh").read_text()
    words = shlex.split(script.replace("\\\n", " "), comments=True)
    overrides = words[words.index("verl.trainer.main_ppo") + 1 : -1]
    assert words[-1] == "$@" and len(overrides) > 30
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides)
    assert problems(config) == []
    settings = actor_config(config).policy_loss
    assert (settings.named_method().name, settings.target_relative) == ("reweighting", True)


def test_the_estimator_says_which_trainer_it_needs():
    with pytest.raises(ValueError, match=r"needs trainer\.v1\.trainer_mode=aepo"):
        core_algos.get_adv_estimator_fn("aepo")(torch.ones(1, 1), torch.ones(1, 1), ["a"])


def test_the_controller_is_shown_the_mean_over_responses_and_verls_padding_has_no_part_in_it():
    scene = Scene.drawn(3)
    advantages, metrics = estimated(driver_of(chosen("reweighting", {})), scene, 0)
    assert metrics["actor/entropy"] == pytest.approx(float(scene.rollouts().mean_entropy()), abs=1e-12)
    assert metrics["aepo/entropy_error"] == pytest.approx(0.9 - metrics["actor/entropy"], abs=1e-6)
    assert not advantages[scene.mask == 0].any()
    # Far above the target the temperature is low, far below it is high.
    for target, cold in ((0.01, True), (5.0, False)):
        driver = driver_of(composed(f"{SECTION}.target={target}"))
        _, metrics = estimated(driver, scene, 0)
        assert (metrics["aepo/temperature"] < 1) == cold
        assert (metrics["aepo/raise_entropy"] == 0) == cold


def test_an_entropy_that_is_not_finite_stops_the_run():
    scene = Scene.drawn(3)
    scores = dataclasses.replace(scene.scores(), entropy=torch.full_like(scene.mask, float("nan")))
    with pytest.raises(FloatingPointError, match="step 4: the entropy is nan"):
        driver_of(composed()).advantages(scene.reward, scene.mask, scene.uid, scores, step=4)


def test_prompts_of_another_number_of_responses_are_refused():
    mask = torch.ones(5, 1)
    with pytest.raises(ValueError, match=r"actor_rollout_ref\.rollout\.n=2 responses, got prompts with 1, 3"):
        grouped(["a", "b", "b", "b", "c"], mask, group_size=2)
    with pytest.raises(ValueError, match="no token in any of the 5 responses"):
        grouped(["a"] * 5, mask * 0, group_size=2)


# Methods whose controller remembers, with options under which it does so here.
STATE: dict[str, dict[str, object]] = {
    "reweighting": {"gain": 0.1, "rate": 0.5, "within": 9.0},
    "repo_r": {},
    "stare": {"step": 0.05},
}


@pytest.mark.parametrize("sees", ["current", "previous"])
@pytest.mark.parametrize("name", sorted(STATE))
def test_resumed_at_step_4_of_8_the_controller_goes_on_bit_for_bit(name, sees, tmp_path):
    # So far above that every controller is pushed all the time.
    config = chosen(name, STATE[name], f"+{SECTION}.sees={sees}", f"{SECTION}.target=1.5")
    whole, halves, fresh = driver_of(config), driver_of(config), driver_of(config)
    again = []
    for step in range(8):
        scene = Scene.drawn(step)
        if step == 4:
            halves.save(tmp_path)
            halves = driver_of(config)
            halves.restore(tmp_path)
        want, got = estimated(whole, scene, step), estimated(halves, scene, step)
        assert torch.equal(want[0], got[0])
        assert {**want[1], "nan": 0} == pytest.approx({**got[1], "nan": 0}, abs=0, nan_ok=True)
        if step >= 4:
            again.append(torch.equal(estimated(fresh, scene, step)[0], want[0]))
    # The state matters: one that starts at step 4 goes elsewhere.
    assert not all(again)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_checkpoint_without_the_controller_or_of_another_method_is_refused(tmp_path):
    driver = driver_of(chosen("reweighting", {}))
    with pytest.raises(ValueError, match="is missing: this checkpoint was saved without AEPO"):
        driver.restore(tmp_path)
    driver.save(tmp_path)
    with pytest.raises(ValueError, match=r"method=repo_r, but .* is of method 'reweighting'"):
        driver_of(chosen("repo_r", {})).restore(tmp_path)


def test_verl_finds_the_plug_in_by_itself():
    code = (
        "import verl, sys; from verl.trainer.ppo import core_algos as c; "
        "print('aepo' in c.POLICY_LOSS_REGISTRY, 'aepo' in c.ADV_ESTIMATOR_REGISTRY); "
        "from verl.trainer.ppo.v1 import get_trainer_cls; print(get_trainer_cls('aepo').__module__)"
    )
    environment = os.environ | {"VERL_USE_EXTERNAL_PLUGINS": "auto"}
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    ).stdout
    assert said.split() == ["True", "True", "aepo.integrations.verl.trainer"]
