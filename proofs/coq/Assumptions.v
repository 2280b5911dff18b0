(* What the theorems rest on. `make proofs` prints it: the standard library's classical reals, functional extensionality
   and excluded middle, and nothing of ours. Theorems are printed in groups: a group's axioms are those of its members. *)
From AEPO Require Import Sums Calculus Expectation Softmax Lemma_4_1 Covariance LambertW Threshold DeltaH
  Theorem_4_3 OneThreshold Corollary_4_4 FirstOrder Remainder Lipschitz FiniteStep Normalised Samplers
  NaturalGradient MovingTarget FiniteTree Noise Floor BangBang Ceiling AllCorrect OneCorrect Counterexamples
  UnequalNorms.

(* Lemma 4.1 *)
Definition group_lemma :=
  (@lemma_4_1_derivative, @lemma_4_1_strict, @lemma_4_1_constant).
Print Assumptions group_lemma.

(* Theorem 4.3: the covariances and the threshold *)
Definition group_covariances_and_threshold :=
  (@Ccov_pos_iff_not_constant, @above_threshold, @at_threshold, @below_threshold, @probability_at_threshold).
Print Assumptions group_covariances_and_threshold.

(* Theorem 4.3, first half *)
Definition group_first_order :=
  (@theorem_4_3_first_order, @step_lipschitz).
Print Assumptions group_first_order.

(* Theorem 4.3, second half *)
Definition group_second_half :=
  (@slope_identity_at_one, @theorem_4_3_quantitative, @theorem_4_3, @theorem_4_3_as_printed).
Print Assumptions group_second_half.

(* Corollary 4.4 *)
Definition group_corollary :=
  (@one_threshold, @some_temperature_raises, @high_temperature_contraction, @corollary_4_4_high,
   @corollary_4_4_low_local, @corollary_4_4_finite_step, @corollary_4_4_normalised).
Print Assumptions group_corollary.

(* beyond the paper *)
Definition group_beyond :=
  (@likelihood_ratio_keeps_sign, @natural_slope_nonneg, @band_of_updates, @entropy_ceiling,
   @all_correct_sign, @one_correct_sign).
Print Assumptions group_beyond.

(* the loop: a target that moves *)
Definition group_moving_target :=
  (@moving_target_error, @moving_target_followed, @moving_target_hitting_time, @moving_lipschitz_function_followed,
   @moving_function_approximated, @moving_target_lost, @moving_target_lost_below, @moving_target_needs_authority,
   @moving_target_needs_a_longest_step).
Print Assumptions group_moving_target.

(* the loop: noise *)
Definition group_noise :=
  (@noise_moving_target, @noise_average_error, @noise_needs_a_drift, @noise_needs_a_second_moment).
Print Assumptions group_noise.

(* the loop: what no controller can do *)
Definition group_floor :=
  (@noise_floor_exists, @noise_floor, @noise_floor_is_attained, @noise_floor_average,
   @noise_floor_needs_a_target_fixed_before).
Print Assumptions group_floor.

(* what is false *)
Definition group_false_claims :=
  (@theorem_4_3_needs_its_premise, @theorem_4_3_needs_its_reward_sign, @theorem_4_3_needs_equal_norms,
   @low_half_is_not_global).
Print Assumptions group_false_claims.

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
   @DeltaH_low_at_one, @DeltaH_low_at_quarter, @unequal_norms_first_order,
   @moving_target_one_step, @squared_error_after_one_step, @noise_total_error, @mean_after_next, @chance_total,
   @median_is_nearest, @median_exists, @move_chance_total).
Print Assumptions supporting.
