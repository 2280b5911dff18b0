(* What is false, by exact rational arithmetic: Theorem 4.3's conclusion without its premise, the low-temperature half
   of Corollary 4.4 at every T < 1, Theorem 4.3 with a signed reward. The logits are multiples of one logarithm. *)
From Coq Require Import Reals List Lra.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Expectation Softmax Covariance DeltaH Theorem_4_3.
Import ListNotations.
Open Scope R_scope.

(* four actions with logits (0, 0, 2, 3) ln x *)
Definition four : list nat := [0; 1; 2; 3]%nat.
Definition logits (x : R) (a : nat) : R := match a with 2%nat => 2 * ln x | 3%nat => 3 * ln x | _ => 0 end.
Definition third : nat -> R := indicator (Nat.eqb 2).

Lemma four_nonempty : four <> [].
Proof. discriminate. Qed.

Lemma exp_multiple_of_ln x n : 0 < x -> exp (INR n * ln x) = x ^ n.
Proof. intros Hx. rewrite <- ln_pow by exact Hx. apply exp_ln, pow_lt, Hx. Qed.

(* at T = 1/n the tempered probabilities are proportional to 1, 1, x^(2n), x^(3n) *)
Lemma policy_values x n T : 0 < x -> T * INR n = 1 ->
  let Z := 2 + x ^ (2 * n) + x ^ (3 * n) in
  policy four (logits x) T 0%nat = 1 / Z /\ policy four (logits x) T 1%nat = 1 / Z /\
  policy four (logits x) T 2%nat = x ^ (2 * n) / Z /\ policy four (logits x) T 3%nat = x ^ (3 * n) / Z.
Proof.
  intros Hx HT Z.
  assert (HT0 : T <> 0) by (intros E; rewrite E in HT; lra).
  assert (IT : INR n = / T) by (apply Rmult_eq_reg_l with T; [rewrite HT; field|]; exact HT0).
  assert (E0 : exp (0 / T) = 1) by (unfold Rdiv; rewrite Rmult_0_l; apply exp_0).
  assert (E2 : exp (2 * ln x / T) = x ^ (2 * n)).
  { rewrite <- exp_multiple_of_ln by exact Hx. f_equal. rewrite mult_INR, IT. simpl. field. exact HT0. }
  assert (E3 : exp (3 * ln x / T) = x ^ (3 * n)).
  { rewrite <- exp_multiple_of_ln by exact Hx. f_equal. rewrite mult_INR, IT. simpl. field. exact HT0. }
  unfold policy, softmax, partition, four, Sum, logits. rewrite E0, E2, E3.
  replace (1 + (1 + (x ^ (2 * n) + (x ^ (3 * n) + 0)))) with Z by (unfold Z; ring). repeat split; reflexivity.
Qed.

Lemma softmax_values x : 0 < x ->
  let Z := 2 + x ^ 2 + x ^ 3 in
  softmax four (logits x) 0%nat = 1 / Z /\ softmax four (logits x) 1%nat = 1 / Z /\
  softmax four (logits x) 2%nat = x ^ 2 / Z /\ softmax four (logits x) 3%nat = x ^ 3 / Z.
Proof.
  intros Hx Z. assert (Q := policy_values x 1 1 Hx ltac:(simpl; lra)). rewrite !policy_one in Q. exact Q.
Qed.

(* ---- x = 3/2: the premise of Theorem 4.3 is false and so is its conclusion ---- *)
Section WithoutPremise.
Notation x := (3 / 2).
Notation z := (logits x).
Notation L := (ln x).

Lemma L_pos : 0 < L.
Proof. rewrite <- ln_1. apply ln_increasing; lra. Qed.

Lemma probabilities : softmax four z 0%nat = 8 / 61 /\ softmax four z 1%nat = 8 / 61 /\
  softmax four z 2%nat = 18 / 61 /\ softmax four z 3%nat = 27 / 61.
Proof. destruct (softmax_values x ltac:(lra)) as [P0 [P1 [P2 P3]]]. rewrite P0, P1, P2, P3. simpl. lra. Qed.

Lemma mean_value_of_z : mean four z = 117 / 61 * L.
Proof.
  destruct probabilities as [P0 [P1 [P2 P3]]]. unfold mean, expect. cbn [four Sum]. rewrite P0, P1, P2, P3.
  cbn [logits]. lra.
Qed.

Lemma gap_of_third : gap four z 2%nat = - (29268 / 226981) * L.
Proof.
  destruct probabilities as [P0 [P1 [P2 P3]]]. unfold gap, Ccov, expect, dcov. rewrite mean_value_of_z.
  cbn [four Sum]. rewrite P0, P1, P2, P3. cbn [logits]. lra.
Qed.

Theorem DeltaH_without_premise eta : DeltaH four z third eta 1 = 526824 / 13845841 * (eta * L).
Proof.
  destruct probabilities as [_ [_ [P2 _]]]. unfold DeltaH. cbn [four Sum]. rewrite !policy_one, P2, gap_of_third.
  unfold third, indicator; simpl. lra.
Qed.

Theorem slope_without_premise eta : Derive (DeltaH four z third eta) 1 = - (2634120 / 844596301) * (eta * L ^ 2).
Proof.
  destruct probabilities as [_ [_ [P2 _]]].
  rewrite (Derive_DeltaH four z third four_nonempty eta 1 Rlt_0_1). unfold slope. rewrite (mean_at_one four z).
  cbn [four Sum]. rewrite !policy_one, P2, gap_of_third, mean_value_of_z. unfold third, indicator; simpl. field.
Qed.

Theorem theorem_4_3_needs_its_premise eta : 0 < eta ->
  0 < DeltaH four z third eta 1 /\ Derive (DeltaH four z third eta) 1 < 0.
Proof.
  intros He. rewrite DeltaH_without_premise, slope_without_premise. assert (P := L_pos).
  assert (0 < eta * L) by (apply Rmult_lt_0_compat; lra).
  assert (0 < eta * L ^ 2) by (apply Rmult_lt_0_compat; [lra|apply pow_lt, P]). lra.
Qed.

(* a reward of -1 on the first action: the premise of Theorem 4.3 holds and its conclusion fails *)
Definition minus_first (a : nat) : R := - indicator (Nat.eqb 0) a.

Lemma gap_of_first : gap four z 0%nat = - (91854 / 226981) * L.
Proof.
  destruct probabilities as [P0 [P1 [P2 P3]]]. unfold gap, Ccov, expect, dcov. rewrite mean_value_of_z.
  cbn [four Sum]. rewrite P0, P1, P2, P3. cbn [logits]. lra.
Qed.

Theorem theorem_4_3_needs_its_reward_sign eta : 0 < eta ->
  DeltaH four z minus_first eta 1 < 0 /\ Derive (DeltaH four z minus_first eta) 1 < 0.
Proof.
  intros He. destruct probabilities as [P0 _].
  assert (D : DeltaH four z minus_first eta 1 = - (734832 / 13845841) * (eta * L)).
  { unfold DeltaH. cbn [four Sum]. rewrite !policy_one, P0, gap_of_first. unfold minus_first, indicator; simpl. lra. }
  assert (S : Derive (DeltaH four z minus_first eta) 1 = - (85975344 / 844596301) * (eta * L ^ 2)).
  { rewrite (Derive_DeltaH four z minus_first four_nonempty eta 1 Rlt_0_1). unfold slope.
    rewrite (mean_at_one four z). cbn [four Sum]. rewrite !policy_one, P0, gap_of_first, mean_value_of_z.
    unfold minus_first, indicator; simpl. field. }
  rewrite D, S. assert (P := L_pos). assert (0 < eta * L) by (apply Rmult_lt_0_compat; lra).
  assert (0 < eta * L ^ 2) by (apply Rmult_lt_0_compat; [lra|apply pow_lt, P]). lra.
Qed.
End WithoutPremise.

(* ---- x = 5/4: the premise holds, and at T = 1/4 the entropy falls less than at T = 1 ---- *)
Section LowHalf.
Notation x := (5 / 4).
Notation z := (logits x).
Notation L := (ln x).

Lemma gap_of_third_low : gap four z 2%nat = 462200 / 43986977 * L.
Proof.
  destruct (softmax_values x ltac:(lra)) as [P0 [P1 [P2 P3]]].
  assert (M : mean four z = 575 / 353 * L).
  { unfold mean, expect. cbn [four Sum]. rewrite P0, P1, P2, P3. cbn [logits]. simpl. lra. }
  unfold gap, Ccov, expect, dcov. rewrite M. cbn [four Sum]. rewrite P0, P1, P2, P3. cbn [logits]. simpl. lra.
Qed.

Theorem DeltaH_low_at_one eta : DeltaH four z third eta 1 = - (46220000 / 15527402881) * (eta * L).
Proof.
  destruct (softmax_values x ltac:(lra)) as [_ [_ [P2 _]]]. unfold DeltaH. cbn [four Sum].
  rewrite !policy_one, P2, gap_of_third_low. unfold third, indicator; simpl. lra.
Qed.

Theorem DeltaH_low_at_quarter eta :
  DeltaH four z third eta (1 / 4) = - (46220000000000 / 16613663785272689) * (eta * L).
Proof.
  destruct (policy_values x 4 (1 / 4) ltac:(lra) ltac:(simpl; lra)) as [_ [_ [P2 _]]]. unfold DeltaH.
  cbn [four Sum]. rewrite P2, gap_of_third_low. unfold third, indicator; simpl. lra.
Qed.

Theorem low_half_is_not_global eta : 0 < eta ->
  DeltaH four z third eta 1 < 0 /\ DeltaH four z third eta 1 < DeltaH four z third eta (1 / 4).
Proof.
  intros He. rewrite DeltaH_low_at_one, DeltaH_low_at_quarter.
  assert (P : 0 < L) by (rewrite <- ln_1; apply ln_increasing; lra).
  assert (0 < eta * L) by (apply Rmult_lt_0_compat; lra). lra.
Qed.
End LowHalf.
