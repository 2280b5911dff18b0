"""The tests can fail: each named mistake in the shared core is planted, and the named check must notice it.

The checks are hand-worked tests of the files beside this one; they pass on the core as it is. The mistakes in the
theory are in tests/theory, those in the simulator's worlds in tests/tabular.
"""

import pytest
import test_advantage
import test_batch
import test_categorical
import test_controller
import test_controller_laws
import test_loss
import test_method
import test_passk
import test_weights
import test_zoo_by_hand
from mutation import Mutant, assert_harmless, assert_noticed

from aepo import advantage, batch, categorical, controller, loss, method, normalizer, passk, tilt, weights
from aepo.batch import Batch
from aepo.zoo import clipping, surprisal
from aepo.zoo.aepo import _tempered
from aepo.zoo.reweighting import centred_ratio, dcpo, entrocraft, entropic

MUTANTS = [
    Mutant(
        "the loss has the wrong sign",
        loss.policy_loss,
        "loss = -(batch.weight * objective)",
        "loss = (batch.weight * objective)",
        test_loss.test_the_loss_is_what_descends_when_a_good_token_gets_likelier,
    ),
    Mutant(
        "the clip has no min",
        loss.ClippedSurrogate.__call__,
        "objective = torch.minimum(ratio * batch.advantage, clipped * batch.advantage)",
        "objective = clipped * batch.advantage",
        test_loss.test_the_clipped_surrogate_by_hand,
    ),
    Mutant(
        "nothing is clipped",
        loss.ClippedSurrogate.__call__,
        "torch.minimum(ratio * batch.advantage, clipped * batch.advantage)",
        "ratio * batch.advantage",
        test_loss.test_the_clipped_surrogate_by_hand,
    ),
    Mutant(
        "the two clip ranges are swapped",
        loss.ClippedSurrogate.__call__,
        "ratio.clamp(1 - self.clip_low, 1 + self.clip_high)",
        "ratio.clamp(1 - self.clip_high, 1 + self.clip_low)",
        test_loss.test_the_low_and_the_high_clip_range_are_separate,
    ),
    Mutant(
        "the dual clip touches positive advantages",
        loss.dual_clipped,
        "torch.where(advantage < 0, torch.maximum(objective, bound * advantage), objective)",
        "torch.maximum(objective, bound * advantage)",
        test_loss.test_dual_clip_bounds_negative_advantages_only,
    ),
    Mutant(
        "the loss is a mean within the micro-batch",
        loss.policy_loss,
        "loss = -(batch.weight * objective).sum((-2, -1))",
        "loss = -(batch.weight * objective).sum((-2, -1)) / batch.mask.sum((-2, -1))",
        test_loss.test_the_parts_of_a_batch_add_up_by_hand,
    ),
    Mutant(
        "the entropy bonus is a penalty",
        loss.policy_loss,
        "loss = loss - (batch.entropy_weight",
        "loss = loss + (batch.entropy_weight",
        test_loss.test_the_entropy_bonus_lowers_the_loss_by_hand,
    ),
    Mutant(
        "padding reaches the loss",
        Batch.on,
        "value if self.full else",
        "value if True else",
        test_loss.test_a_nan_in_the_padding_by_hand,
    ),
    Mutant(
        "the population's deviation stands in for the sample's",
        advantage.group_normalized,
        "variance = variance * (group_size / (group_size - 1))",
        "variance = variance * 1.0",
        test_advantage.test_grpo_advantages_by_hand,
    ),
    Mutant(
        "equal rewards are divided by the epsilon",
        advantage.group_normalized,
        "centred.masked_fill_(equal, 0.0)",
        "centred",
        test_advantage.test_equal_rewards_by_hand,
    ),
    Mutant(
        "the share is ignored",
        advantage.group_normalized,
        "if share is None else share.unflatten",
        "if True else share.unflatten",
        test_advantage.test_an_exact_expectation_by_hand,
    ),
    Mutant(
        "entropy shaping may flip a sign",
        advantage.entropy_shaped,
        "torch.minimum(beta * entropy.detach(), advantage.abs() / kappa)",
        "beta * entropy.detach()",
        test_advantage.test_entropy_shaping_by_hand,
    ),
    Mutant(
        "the shaped advantage carries a gradient",
        advantage.entropy_shaped,
        "entropy.detach()",
        "entropy",
        test_advantage.test_the_shaped_advantage_takes_the_entropy_as_a_constant,
    ),
    Mutant(
        "a response's tokens are summed, not averaged",
        weights.sequence_mean,
        "row_weight.unsqueeze(-1) * mask / mask.sum(-1, keepdim=True).clamp(min=1)",
        "row_weight.unsqueeze(-1) * mask",
        test_weights.test_the_two_means_by_hand,
    ),
    Mutant(
        "negative samples enter the tempered term",
        method.by_reward,
        "rollouts.reward > 0",
        "rollouts.reward >= 0",
        test_method.test_positives_by_hand,
    ),
    Mutant(
        "tempered samples are credited with their advantage, negative ones too",
        method.reward_credit,
        "return rollouts.reward",
        "return _group_advantage(rollouts)",
        test_method.test_the_three_normalizers_by_hand,
    ),
    Mutant(
        "alpha is ignored",
        method.assemble,
        "* tempered.alpha",
        "* 1.0",
        test_method.test_the_three_normalizers_by_hand,
    ),
    Mutant(
        "replaced rows do not give way",
        normalizer.replace,
        "main.row_weight.masked_fill(gives_way, 0.0)",
        "main.row_weight * 1.0",
        test_method.test_the_three_normalizers_by_hand,
    ),
    Mutant(
        "more rows give way than there are",
        normalizer.replace,
        "kept & (kept.cumsum(-1) <= rows)",
        "kept",
        test_method.test_replace_never_swaps_more_rows_than_there_are,
    ),
    Mutant(
        "Eq. 1's second mean counts what is not kept",
        normalizer.all_samples,
        " * kept.unsqueeze(-1)",
        "",
        test_method.test_the_three_normalizers_by_hand,
    ),
    Mutant(
        "the two caps are swapped",
        method.Tempered.kept,
        "(self.cap_up, self.cap_down)",
        "(self.cap_down, self.cap_up)",
        test_method.test_under_replace_the_authors_caps_of_60_up_and_30_down_apply,
    ),
    Mutant(
        "the authors' caps apply to every normalizer",
        _tempered,
        'if normalizer == "replace":',
        "if True:",
        lambda: test_method.test_without_replace_there_is_no_cap_unless_one_is_asked_for("all"),
    ),
    Mutant(
        "the controller is inverted",
        controller.BangBang.update,
        "up = ~(entropy >= target)",
        "up = entropy >= target",
        test_controller.test_bang_bang_by_its_truth_table,
    ),
    Mutant(
        "an unknown entropy counts as above the target",
        controller.BangBang.update,
        "up = ~(entropy >= target)",
        "up = entropy < target",
        test_controller.test_bang_bang_by_its_truth_table,
    ),
    Mutant(
        "the controller always sees the current entropy",
        controller.Loop.decide,
        'entropy if sees == "current" else self.previous_entropy',
        "entropy",
        test_controller.test_previous_and_current_by_hand,
    ),
    Mutant(
        "the temperature multiplies the logits",
        categorical.log_softmax,
        "logits / temperature",
        "logits * temperature",
        test_categorical.test_log_probabilities_of_two_actions_by_hand,
    ),
    Mutant(
        "an impossible action gives nan",
        categorical.entropy_of,
        "finite(log_probs)",
        "log_probs.clone()",
        lambda: test_categorical.test_an_action_without_probability_sends_no_nan(-float("inf")),
    ),
    Mutant(
        "the mean entropy is over tokens, not over responses",
        batch.means_of_rows,
        "length = mask.sum(-1).clamp(min=1)",
        "length = mask.sum((-2, -1), keepdim=True).squeeze(-1) / mask.shape[-2]",
        test_batch.test_the_mean_entropy_by_hand,
    ),
    Mutant(
        "a part of a batch keeps the whole's entropy weight",
        Batch.scaled,
        "entropy_weight=self.entropy_weight * factor",
        "entropy_weight=self.entropy_weight",
        test_batch.test_one_of_two_minibatches_weighs_twice_by_hand,
    ),
    Mutant(
        "pass@k with replacement",
        passk.pass_at_k,
        "log_all_wrong = torch.log1p(-(k / i).clamp(max=1.0)).cumsum(0)",
        "log_all_wrong = k * torch.log1p(-torch.arange(1, samples + 1, dtype=torch.float64) / samples)",
        test_passk.test_all_counts_of_a_thousand_samples_are_exact,
    ),
    Mutant(
        "the clip range is not the paper's",
        loss.ClippedSurrogate.__post_init__,
        "if self.clip_high < 0:",
        'object.__setattr__(self, "clip_high", 0.28)\n    if self.clip_high < 0:',
        test_loss.test_the_clipped_surrogate_by_hand,
    ),
    Mutant(
        "Eq. 3 keeps only positives",
        method.every_row,
        "torch.ones_like(rollouts.reward, dtype=torch.bool)",
        "rollouts.reward > 0",
        test_method.test_equation_3_keeps_its_negative_samples,
    ),
    Mutant(
        "the reweighting is not centred",
        centred_ratio,
        "r / mean.masked_fill(mean == 0, 1.0) - 1",
        "r / mean.masked_fill(mean == 0, 1.0)",
        test_zoo_by_hand.test_reweighting_by_hand,
    ),
    Mutant(
        "a right answer alone is reweighted",
        centred_ratio,
        "rows.sum(-2, keepdim=True) < 2",
        "rows.sum(-2, keepdim=True) < 0",
        test_zoo_by_hand.test_a_right_answer_alone_gets_nothing_by_hand,
    ),
    Mutant(
        "the log-prob at the temperature is ignored",
        tilt.tempering,
        'rollouts.scored("logp_t") - old_logp',
        "old_logp - old_logp",
        test_zoo_by_hand.test_reweighting_by_hand,
    ),
    Mutant(
        "DCPO does not take w from the ordinary advantage",
        dcpo,
        "(1 - w) * advantage",
        "advantage",
        test_zoo_by_hand.test_dcpo_by_hand,
    ),
    Mutant(
        "EntroPIC's sign is flipped",
        entropic,
        "torch.where(advantage > 0, 1 - u, 1 + u)",
        "torch.where(advantage > 0, 1 + u, 1 - u)",
        test_zoo_by_hand.test_entropic_by_hand,
    ),
    Mutant(
        "Entrocraft drops the negatives where entropy is to rise",
        entrocraft,
        "(push > 0) & (advantage > 0)",
        "(push > 0) & (advantage < 0)",
        test_zoo_by_hand.test_entrocraft_by_hand,
    ),
    Mutant(
        "the quantile is the mean",
        advantage.quantile_centred,
        "grouped.sort(-1).values[..., index : index + 1]",
        "grouped.mean(-1, keepdim=True)",
        test_zoo_by_hand.test_quantile_by_hand,
    ),
    Mutant(
        "Dr. GRPO divides by the response's own length",
        weights.fixed_length,
        "(mask.shape[-1] if tokens is None else tokens)",
        "mask.sum(-1, keepdim=True).clamp(min=1)",
        test_zoo_by_hand.test_dr_grpo_by_hand,
    ),
    Mutant(
        "Clip-Cov drops tokens outside its band",
        clipping.clip_cov,
        "weight, ratio) & inside, 0.0)",
        "weight, ratio), 0.0)",
        test_zoo_by_hand.test_clip_cov_drops_only_tokens_inside_the_band_by_hand,
    ),
    Mutant(
        "Clip-Cov draws the same at every step",
        clipping.clip_cov,
        'f"clip_cov/{control.step}"',
        '"clip_cov"',
        test_zoo_by_hand.test_clip_covs_draw_depends_on_the_step_alone_and_reaches_every_candidate,
    ),
    Mutant(
        "KL-Cov rewards the distance",
        clipping.KLCovSurrogate.__call__,
        "objective - self.coef",
        "objective + self.coef",
        test_zoo_by_hand.test_kl_cov_penalises_a_marked_token_and_clips_none_by_hand,
    ),
    Mutant(
        "the smallest values are selected",
        weights.top_share,
        "flat.sort(-1, descending=True)",
        "flat.sort(-1, descending=False)",
        test_zoo_by_hand.test_top_entropy_trains_the_most_uncertain_fifth_by_hand,
    ),
    Mutant(
        "CE-GPPO differentiates its scale",
        clipping.GradientPreservingSurrogate.__call__,
        "constant = ratio.detach()",
        "constant = ratio",
        test_zoo_by_hand.test_ce_gppo_by_hand,
    ),
    Mutant(
        "STEER takes the entropy from the surprise instead of adding it",
        clipping.steer,
        '(logp + rollouts.scored("entropy"))',
        '(logp - rollouts.scored("entropy"))',
        test_zoo_by_hand.test_steer_by_hand,
    ),
    Mutant(
        "Clip_B takes the entropy from the surprise instead of adding it",
        categorical.entropy_effect,
        "(logp + entropy)",
        "(logp - entropy)",
        test_zoo_by_hand.test_clip_b_drops_wrong_tokens_far_below_the_mean_by_hand,
    ),
    Mutant(
        "Clip_B drops right tokens, too",
        clipping.clip_b,
        "(advantage < 0) & (effect",
        "(advantage != 0) & (effect",
        test_zoo_by_hand.test_clip_b_drops_wrong_tokens_far_below_the_mean_by_hand,
    ),
    Mutant(
        "Clip_V drops every candidate",
        clipping.clip_v,
        "top_share(change, candidate, share, of=weight)",
        "candidate",
        test_zoo_by_hand.test_clip_v_drops_the_few_worst_tokens_against_their_own_distribution_by_hand,
    ),
    Mutant(
        "Clip_V forgets the distribution's mean",
        clipping.clip_v,
        'rollouts.scored("mean_effect") - own',
        "-own",
        test_zoo_by_hand.test_clip_v_drops_the_few_worst_tokens_against_their_own_distribution_by_hand,
    ),
    Mutant(
        "E3 takes the logarithm of the vocabulary once",
        controller.TemperatureScheduler.scale.fget,
        "math.log(self.vocabulary) + math.log(math.log(self.vocabulary))",
        "math.log(self.vocabulary)",
        test_zoo_by_hand.test_e3s_controller_by_hand,
    ),
    Mutant(
        "E3 cools where the entropy is too low",
        controller.TemperatureScheduler.update,
        "(target / entropy).log()",
        "(entropy / target).log()",
        test_zoo_by_hand.test_e3s_controller_by_hand,
    ),
    Mutant(
        "REPO-R does not look at the advantage's sign",
        surprisal.repo_r,
        "1 - advantage.sign() * control",
        "1 - control",
        test_zoo_by_hand.test_repo_r_by_hand,
    ),
    Mutant(
        "REPO-R turns an advantage round",
        surprisal.repo_r,
        "* logp).clamp(min=0)",
        "* logp)",
        test_zoo_by_hand.test_repo_r_by_hand,
    ),
    Mutant(
        "the doubling push never turns",
        controller.Doubling.update,
        "torch.where(-along / 2 < self.lowest, self.lowest, along / 2)",
        "along / 2",
        test_zoo_by_hand.test_repo_rs_controller_by_hand,
    ),
    Mutant(
        "the doubling push has no limit",
        controller.Doubling.update,
        "(2 * along).clamp(max=self.limit)",
        "2 * along",
        test_zoo_by_hand.test_repo_rs_controller_by_hand,
    ),
    Mutant(
        "STARE amplifies the least surprising tokens",
        surprisal.stare,
        'surprisal, on, w = -rollouts.scored("old_logp")',
        'surprisal, on, w = rollouts.scored("old_logp")',
        test_zoo_by_hand.test_stare_by_hand,
    ),
    Mutant(
        "STARE rounds its share down",
        weights.top_share,
        "* share + UPWARDS",
        "* share + 0.0",
        test_zoo_by_hand.test_stare_by_hand,
    ),
    Mutant(
        "the gate stays open above the target",
        controller.Gate.update,
        "_pushed(strength * below",
        "_pushed(strength",
        test_zoo_by_hand.test_stare_by_hand,
    ),
    Mutant(
        "entropy-ratio clipping drops the value too",
        clipping.EntropyRatioSurrogate.__call__,
        "objective.detach()",
        "0.0 * objective",
        test_zoo_by_hand.test_entropy_ratio_clipping_keeps_the_value_and_stops_the_gradient_by_hand,
    ),
    Mutant(
        "a certain token's entropy ratio is huge",
        clipping.EntropyRatioSurrogate.__call__,
        "(batch.old_entropy + ENTROPY_EPSILON)",
        "batch.old_entropy.clamp(min=1e-12)",
        test_zoo_by_hand.test_entropy_ratio_clipping_keeps_the_value_and_stops_the_gradient_by_hand,
    ),
    Mutant(
        "SIREN's mean is over all tokens",
        method._entropy_weight,
        "share = share / total.masked_fill(total == 0, 1.0)",
        "share = share * 1.0",
        lambda: test_zoo_by_hand.test_sirens_gradient_is_that_of_the_squared_distance_by_autograd(0.2),
    ),
    Mutant(
        "the PI controller winds up",
        controller.ProportionalIntegral.update,
        "(known.abs() < self.within) & ~further",
        "known.abs() < self.within",
        test_controller_laws.test_windup_by_hand,
    ),
    Mutant(
        "the integral adds up the output's share of the error",
        controller.ProportionalIntegral.update,
        "integral + self.rate * known * moves",
        "integral + self.rate * self.gain * known * moves",
        test_controller_laws.test_proportional_integral_control_by_hand,
    ),
    Mutant(
        "the gain grows when the error turns",
        controller.AdaptiveGain.demanded,
        'error * state["error"] < 0',
        'error * state["error"] > 0',
        test_controller_laws.test_the_adaptive_gain_by_hand,
    ),
    Mutant(
        "hysteresis has no memory",
        controller.Hysteresis.update,
        '(error >= -self.width) & state["up"]',
        "(error >= -self.width)",
        test_controller_laws.test_hysteresis_switches_only_outside_its_band_by_hand,
    ),
    Mutant(
        "the dual coefficient falls while entropy is too low",
        controller.Dual.update,
        "+ self.rate * error",
        "- self.rate * error",
        test_zoo_by_hand.test_sacs_dual_by_hand,
    ),
    Mutant(
        "the staircase acts above the target",
        controller.Staircase.update,
        "coef * below",
        "coef",
        test_zoo_by_hand.test_skyworks_staircase_by_hand,
    ),
    Mutant(
        "the control's error has the other sign",
        controller.Loop.decide,
        "error=target - seen",
        "error=seen - target",
        test_controller_laws.test_the_error_is_positive_below_the_target_by_hand,
    ),
    Mutant(
        "a marked row without an advantage is dropped",
        Batch.live.fget,
        "counts = counts | (self.mark & (self.weight != 0))",
        "counts = counts | False",
        test_batch.test_a_row_without_advantage_is_live_where_a_token_is_marked,
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_noticed(mutant, monkeypatch):
    assert_noticed(mutant, monkeypatch)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_an_unchanged_line_changes_nothing(mutant, monkeypatch):
    assert_harmless(mutant, monkeypatch)
