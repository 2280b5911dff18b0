(* When every action is correct, Theorem 4.3's premise is never met: Delta H(1) = 0, and away from T = 1 the sign is
   that of T - 1. A constant reward has no drift at T = 1, so all of Delta H comes from the temperature. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance Threshold DeltaH OneThreshold.
Import ListNotations.
Open Scope R_scope.

Section AllCorrect.
Context {A : Type} (acts : list A) (z : A -> R).
Hypothesis nonempty : acts <> [].
Notation one := (fun _ : A => 1).
Notation DH := (DeltaH acts z one).

Theorem all_correct_formula eta T :
  DH eta T = - eta * (expect acts (policy acts z T) (dcov acts z) - Ccov acts z).
Proof.
  unfold DeltaH. f_equal. transitivity (expect acts (policy acts z T) (fun a => dcov acts z a + - Ccov acts z)).
  - apply Sum_ext. intros; unfold gap; ring.
  - rewrite expect_shift by apply softmax_total, nonempty. ring.
Qed.

Theorem all_correct_at_one eta : DH eta 1 = 0.
Proof.
  rewrite all_correct_formula. replace (expect acts (policy acts z 1) (dcov acts z)) with (Ccov acts z); [ring|].
  apply Sum_ext. intros. rewrite policy_one. reflexivity.
Qed.

Lemma one_nonneg a : In a acts -> 0 <= 1.
Proof. intros; lra. Qed.

(* the strict sign of the change is that of T - 1 *)
Theorem all_correct_hot_strict eta T : ~ constant_on acts z -> 0 < eta -> 1 < T -> 0 < DH eta T.
Proof.
  intros N He HT. destruct (not_constant_off_level acts z (tau acts z) N) as [a [Ia Ha]].
  apply (sign_strictly_monotone acts z one nonempty one_nonneg eta 1 T a); try assumption; try lra.
  rewrite all_correct_at_one. lra.
Qed.

Theorem all_correct_cold_strict eta T : ~ constant_on acts z -> 0 < eta -> 0 < T < 1 -> DH eta T < 0.
Proof.
  intros N He HT. destruct (not_constant_off_level acts z (tau acts z) N) as [a [Ia Ha]].
  apply Rnot_le_lt. intros P.
  assert (Q := sign_strictly_monotone acts z one nonempty one_nonneg eta T 1 a Ia Rlt_0_1 Ha He
    (proj1 HT) (proj2 HT) P).
  rewrite all_correct_at_one in Q. lra.
Qed.

Lemma all_correct_constant eta T : constant_on acts z -> DH eta T = 0.
Proof.
  intros Z. destruct (Req_dec (DH eta T) 0) as [E|E]; [exact E|]. exfalso.
  apply (falling_needs_variation acts z one nonempty) in E.
  apply (Ccov_pos_iff_not_constant acts z nonempty) in E. contradiction.
Qed.

Theorem all_correct_sign eta T : 0 < eta -> 0 < T -> (1 <= T -> 0 <= DH eta T) /\ (T <= 1 -> DH eta T <= 0).
Proof.
  intros He HT. destruct (off_level acts z (tau acts z)) as [[a [Ia Ha]]|Z].
  - split; intros H.
    + apply (sign_monotone acts z one nonempty one_nonneg eta 1 T He Rlt_0_1 H). rewrite all_correct_at_one. lra.
    + destruct H as [H|H]; [|subst; rewrite all_correct_at_one; lra]. apply Rnot_lt_le. intros P.
      assert (Q := sign_strictly_monotone acts z one nonempty one_nonneg eta T 1 a Ia Rlt_0_1 Ha He HT H
        (Rlt_le _ _ P)).
      rewrite all_correct_at_one in Q. lra.
  - assert (K : constant_on acts z) by (intros a b Ia Ib; rewrite (Z a Ia), (Z b Ib); reflexivity).
    rewrite (all_correct_constant eta T K). lra.
Qed.
End AllCorrect.
