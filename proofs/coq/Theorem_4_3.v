(* Theorem 4.3 (Lemma B.5), second half, strictly and with a constant: where the update lowers the entropy,
   Delta H'(T) >= (tau - m_T) |Delta H(T)| / T^2 > 0 for every T >= 1, with the closed-form threshold tau and any
   non-negative reward. The first half, Delta H as the first-order change of the entropy, is in FirstOrder.v. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance Threshold DeltaH.
Import ListNotations.
Open Scope R_scope.

Section Theorem_4_3.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].
Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.
Notation m := (mean acts z).
Notation tau0 := (tau acts z).
Notation DH := (DeltaH acts z r).
Notation mT T := (expect acts (policy acts z T) z).

Lemma mean_at_one : mT 1 = m.
Proof. apply Sum_ext. intros a _. rewrite policy_one. reflexivity. Qed.

Lemma mean_above_hot T : 1 <= T -> mT T <= m.
Proof. intros HT. rewrite <- mean_at_one. apply policy_mean_decreasing; [exact nonempty|lra|exact HT]. Qed.

(* the slope splits at any level: a part that the threshold makes non-negative and a multiple of Delta H *)
Theorem slope_split eta T c : 0 < T ->
  slope acts z r eta T =
    eta / T ^ 2 * Sum acts (fun a => policy acts z T a * r a * ((z a - c) * gap acts z a))
    - (c - mT T) / T ^ 2 * DH eta T.
Proof.
  intros HT. unfold slope, DeltaH.
  rewrite (Sum_ext acts (fun a => policy acts z T a * r a * ((z a - mT T) * gap acts z a))
    (fun a => policy acts z T a * r a * ((z a - c) * gap acts z a)
      + (c - mT T) * (policy acts z T a * r a * gap acts z a))) by (intros; ring).
  rewrite Sum_plus, Sum_scal. field. lra.
Qed.

(* the paper's temperature: DH'(1) = eta [ sum r pi (z - tau)(d - C) + (tau - m) sum r pi (d - C) ] *)
Theorem slope_identity_at_one eta :
  Derive (DH eta) 1 =
    eta * (Sum acts (fun a => r a * softmax acts z a * ((z a - tau0) * (dcov acts z a - Ccov acts z)))
      + (tau0 - m) * Sum acts (fun a => r a * softmax acts z a * (dcov acts z a - Ccov acts z))).
Proof.
  rewrite (Derive_DeltaH acts z r nonempty eta 1 Rlt_0_1), (slope_split eta 1 tau0 Rlt_0_1), mean_at_one.
  unfold DeltaH, gap.
  rewrite (Sum_ext acts (fun a => policy acts z 1 a * r a * ((z a - tau0) * (dcov acts z a - Ccov acts z)))
    (fun a => r a * softmax acts z a * ((z a - tau0) * (dcov acts z a - Ccov acts z))))
    by (intros; rewrite policy_one; ring).
  rewrite (Sum_ext acts (fun a => policy acts z 1 a * r a * (dcov acts z a - Ccov acts z))
    (fun a => r a * softmax acts z a * (dcov acts z a - Ccov acts z))) by (intros; rewrite policy_one; ring).
  field.
Qed.

(* no premise: the slope is at least a multiple of minus Delta H, at every temperature *)
Theorem slope_lower_bound eta T : 0 <= eta -> 0 < T -> - (tau0 - mT T) / T ^ 2 * DH eta T <= slope acts z r eta T.
Proof.
  intros He HT. rewrite (slope_split eta T tau0 HT).
  assert (0 <= eta / T ^ 2 * Sum acts (fun a => policy acts z T a * r a * ((z a - tau0) * gap acts z a))).
  { apply Rmult_le_pos.
    - apply Rmult_le_pos; [exact He|left; apply Rinv_0_lt_compat, pow_lt, HT].
    - apply Sum_nonneg. intros a Ia. apply Rmult_le_pos.
      + apply Rmult_le_pos; [left; apply softmax_pos, nonempty|apply reward_nonneg, Ia].
      + rewrite Rmult_comm. apply (gap_sign acts z nonempty). }
  replace (- (tau0 - mT T) / T ^ 2 * DH eta T) with (- ((tau0 - mT T) / T ^ 2 * DH eta T)) by (field; lra). lra.
Qed.

Lemma premise_threshold eta T : DH eta T < 0 -> m < tau0.
Proof.
  intros H. apply threshold_above_mean.
  apply (falling_needs_variation acts z r nonempty eta T). lra.
Qed.

(* the quantitative theorem at the paper's temperature *)
Theorem theorem_4_3_quantitative eta : 0 < eta -> DH eta 1 < 0 ->
  m < tau0 /\ (tau0 - m) * Rabs (DH eta 1) <= Derive (DH eta) 1.
Proof.
  intros He H. assert (Q := premise_threshold eta 1 H). split; [exact Q|].
  rewrite (Derive_DeltaH acts z r nonempty eta 1 Rlt_0_1), Rabs_left by exact H.
  assert (B := slope_lower_bound eta 1 (Rlt_le _ _ He) Rlt_0_1). rewrite mean_at_one in B.
  replace (- (tau0 - m) / 1 ^ 2 * DH eta 1) with ((tau0 - m) * - DH eta 1) in B by field. exact B.
Qed.

(* strict, and at every temperature T >= 1 at which the update lowers the entropy *)
Theorem theorem_4_3 eta T : 0 < eta -> 1 <= T -> DH eta T < 0 -> 0 < Derive (DH eta) T.
Proof.
  intros He HT H. assert (HT0 : 0 < T) by lra.
  rewrite (Derive_DeltaH acts z r nonempty eta T HT0).
  apply Rlt_le_trans with (2 := slope_lower_bound eta T (Rlt_le _ _ He) HT0).
  assert (Q := premise_threshold eta T H). assert (M := mean_above_hot T HT).
  replace (- (tau0 - mT T) / T ^ 2 * DH eta T) with ((tau0 - mT T) * - DH eta T / T ^ 2) by (field; lra).
  apply Rdiv_lt_0_compat; [apply Rmult_lt_0_compat; lra|apply pow_lt, HT0].
Qed.
End Theorem_4_3.

(* the paper's own statement: its formula, its set A*, T = 1 *)
Corollary theorem_4_3_as_printed {A} (acts : list A) (z : A -> R) (ok : A -> bool)
  (eq_dec : forall x y : A, {x = y} + {x <> y}) eta :
  acts <> [] -> NoDup acts -> 0 < eta ->
  printed acts z ok eq_dec eta 1 < 0 -> 0 < Derive (printed acts z ok eq_dec eta) 1.
Proof.
  intros nonempty distinct He H.
  rewrite <- (Derive_ext (DeltaH acts z (indicator ok) eta)) by
    (intros T; apply DeltaH_as_printed; assumption).
  rewrite <- (DeltaH_as_printed acts z ok nonempty distinct) in H.
  apply theorem_4_3; [exact nonempty|intros; apply indicator_nonneg|exact He|lra|exact H].
Qed.
