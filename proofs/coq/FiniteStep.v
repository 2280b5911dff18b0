(* Corollary 4.4 for the true entropy after one update of finite length, not only to first order: sampling at T > 1
   leaves more entropy than sampling at 1 as soon as eta is below an explicit bound. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax DeltaH FirstOrder Remainder Corollary_4_4.
Import ListNotations.
Open Scope R_scope.

(* the entropy after one update of Eq. 4 with samples at temperature T *)
Definition entropy_after {A} (acts : list A) (z r : A -> R) (eta T : R) : R :=
  entropy_along acts z (step acts z r T) eta.

Section FiniteStep.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].
Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.
Notation DH := (DeltaH acts z r).
Notation S T := (success acts z r T).

(* twice the second-order coefficient by which the two updates can differ *)
Definition curvature (T : R) : R := (S T ^ 2 + S 1 ^ 2) * (1 + ln (INR (length acts))).

Lemma curvature_nonneg T : 0 <= curvature T.
Proof.
  assert (L := ln_count_nonneg acts nonempty). assert (P := pow2_ge_0 (S T)). assert (P1 := pow2_ge_0 (S 1)).
  apply Rmult_le_pos; lra.
Qed.

Lemma entropy_at_start v : entropy_along acts z v 0 = entropy acts (softmax acts z).
Proof. apply entropy_ext. intros a _. apply softmax_ext. intros x. unfold moved. ring. Qed.

Theorem finite_step_gap eta T : 0 <= eta ->
  DH eta T - DH eta 1 - eta ^ 2 / 2 * curvature T <= entropy_after acts z r eta T - entropy_after acts z r eta 1.
Proof.
  intros He. assert (BT := theorem_4_3_first_order acts z r nonempty reward_nonneg eta T He).
  assert (B1 := theorem_4_3_first_order acts z r nonempty reward_nonneg eta 1 He).
  rewrite entropy_at_start in BT, B1. apply Rabs_le_between in BT. apply Rabs_le_between in B1.
  unfold entropy_after, curvature. lra.
Qed.

(* explicit: eta * curvature < 2 (DH(T) - DH(1)) / eta, the right-hand side being free of eta *)
Theorem finite_step_high eta T : 0 < eta -> eta * curvature T < 2 * (DH 1 T - DH 1 1) ->
  entropy_after acts z r eta 1 < entropy_after acts z r eta T.
Proof.
  intros He Small. assert (G := finite_step_gap eta T (Rlt_le _ _ He)).
  rewrite (DeltaH_scal acts z r eta T), (DeltaH_scal acts z r eta 1) in G.
  assert (0 < eta / 2 * (2 * (DH 1 T - DH 1 1) - eta * curvature T)) by (apply Rmult_lt_0_compat; lra). lra.
Qed.

(* so the high-temperature half holds for the true entropies once the step is short enough *)
Theorem corollary_4_4_finite_step T : 1 < T -> DH 1 1 < 0 ->
  exists eta0, 0 < eta0 /\ forall eta, 0 < eta < eta0 -> entropy_after acts z r eta 1 < entropy_after acts z r eta T.
Proof.
  intros HT H. assert (Q := corollary_4_4_high acts z r nonempty reward_nonneg 1 T Rlt_0_1 HT H).
  assert (P := curvature_nonneg T).
  exists (2 * (DH 1 T - DH 1 1) / (curvature T + 1)). split; [apply Rdiv_lt_0_compat; lra|].
  intros eta [E0 E1]. apply finite_step_high; [exact E0|].
  apply (Rmult_lt_compat_r (curvature T + 1)) in E1; [|lra].
  replace (2 * (DH 1 T - DH 1 1) / (curvature T + 1) * (curvature T + 1)) with (2 * (DH 1 T - DH 1 1)) in E1
    by (field; lra). nra.
Qed.
End FiniteStep.
