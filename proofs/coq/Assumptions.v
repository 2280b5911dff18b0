(* What the theorems rest on. `make proofs` prints it: the standard library's classical reals, functional extensionality
   and excluded middle, and nothing of ours. Each headline theorem is printed by itself, all others together. *)
From AEPO Require Import Sums Calculus Expectation Softmax Lemma_4_1 Covariance LambertW Threshold DeltaH
  Theorem_4_3 OneThreshold Corollary_4_4 FirstOrder Remainder Lipschitz FiniteStep Normalised Samplers
  NaturalGradient BangBang Ceiling AllCorrect OneCorrect Counterexamples UnequalNorms.

(* Lemma 4.1 *)
Print Assumptions lemma_4_1_derivative.
Print Assumptions lemma_4_1_strict.
Print Assumptions lemma_4_1_constant.

(* Theorem 4.3: the covariances and the threshold *)
Print Assumptions Ccov_pos_iff_not_constant.
Print Assumptions above_threshold.
Print Assumptions at_threshold.
Print Assumptions below_threshold.
Print Assumptions probability_at_threshold.

(* Theorem 4.3, first half *)
Print Assumptions theorem_4_3_first_order.
Print Assumptions step_lipschitz.

(* Theorem 4.3, second half *)
Print Assumptions slope_identity_at_one.
Print Assumptions theorem_4_3_quantitative.
Print Assumptions theorem_4_3.
Print Assumptions theorem_4_3_as_printed.

(* Corollary 4.4 *)
Print Assumptions one_threshold.
Print Assumptions some_temperature_raises.
Print Assumptions high_temperature_contraction.
Print Assumptions corollary_4_4_high.
Print Assumptions corollary_4_4_low_local.
Print Assumptions corollary_4_4_finite_step.
Print Assumptions corollary_4_4_normalised.

(* beyond the paper *)
Print Assumptions likelihood_ratio_keeps_sign.
Print Assumptions natural_slope_nonneg.
Print Assumptions band_of_updates.
Print Assumptions entropy_ceiling.
Print Assumptions all_correct_sign.
Print Assumptions one_correct_sign.

(* what is false *)
Print Assumptions theorem_4_3_needs_its_premise.
Print Assumptions theorem_4_3_needs_its_reward_sign.
Print Assumptions theorem_4_3_needs_equal_norms.
Print Assumptions low_half_is_not_global.

(* the steps on the way *)
Definition supporting :=
  (@lemma_4_1_monotone, @Ccov_is_covariance, @Ccov_nonneg, @dcov_is_covariance, @covariance_as_printed, @W0_spec,
   @W0_unique, @threshold_above_mean, @is_derive_DeltaH, @Derive_DeltaH, @DeltaH_as_printed, @slope_split,
   @slope_lower_bound, @sign_monotone, @sign_strictly_monotone, @entropy_first_derivative,
   @entropy_second_derivative, @first_order_identity, @entropy_remainder, @covariance_of_range, @entropy_lipschitz,
   @finite_step_gap, @finite_step_high, @normalised_monotone, @truncation_keeps_sign, @natural_first_order,
   @natural_slope, @natural_normalised_monotone, @band, @entropy_ceiling_counts, @entropy_ceiling_all_right,
   @all_correct_formula, @all_correct_at_one, @all_correct_hot_strict, @all_correct_cold_strict,
   @one_correct_formula, @one_correct_step, @one_correct_ratio, @DeltaH_without_premise, @slope_without_premise,
   @DeltaH_low_at_one, @DeltaH_low_at_quarter, @unequal_norms_first_order).
Print Assumptions supporting.
