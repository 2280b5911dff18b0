(* Which actions lower the entropy, in closed form: tau = m + W0(C e^H) is the one logit level at which
   d_a = pi_a (z_a - m) crosses C. The proof of Theorem 4.3 (Lemma B.5) uses a level u that this makes explicit. *)
From Coq Require Import Reals List Lra Psatz.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance LambertW.
Import ListNotations.
Open Scope R_scope.

(* the level at which d_a crosses c, for any c >= 0 *)
Definition level {A} (acts : list A) (z : A -> R) (c : R) : R :=
  mean acts z + W0 (c * exp (entropy acts (softmax acts z))).

Definition tau {A} (acts : list A) (z : A -> R) : R := level acts z (Ccov acts z).

Section Threshold.
Context {A : Type} (acts : list A) (z : A -> R).
Hypothesis nonempty : acts <> [].
Notation pi := (softmax acts z).
Notation m := (mean acts z).
Notation H := (entropy acts pi).
Notation d := (dcov acts z).
Notation C := (Ccov acts z).

(* d_a e^H = x e^x with x = z_a - m *)
Lemma dcov_exp_entropy a : d a * exp H = (z a - m) * exp (z a - m).
Proof.
  unfold dcov. rewrite (softmax_of_entropy acts z nonempty a).
  assert (E : exp (- H) * exp H = 1) by (rewrite <- exp_plus, Rplus_opp_l; apply exp_0).
  transitivity ((z a - m) * exp (z a - m) * (exp (- H) * exp H)); [ring|rewrite E; ring].
Qed.

Lemma level_above_mean c : 0 <= c -> m <= level acts z c.
Proof.
  intros Hc. destruct (W0_spec (c * exp H)) as [W _]; [|unfold level; lra].
  apply Rmult_le_pos; [exact Hc|left; apply exp_pos].
Qed.

Lemma dcov_level_sign c a : 0 <= c ->
  (level acts z c < z a /\ c < d a) \/ (z a = level acts z c /\ d a = c) \/ (z a < level acts z c /\ d a < c).
Proof.
  intros Hc. assert (EH := exp_pos H). assert (L := dcov_exp_entropy a).
  assert (P : 0 <= c * exp H) by (apply Rmult_le_pos; lra).
  destruct (W0_spec _ P) as [W0n W0e]. unfold level. set (w := W0 (c * exp H)) in *. set (x := z a - m) in *.
  destruct (Rlt_dec x 0) as [N|N].
  - right; right. assert (EX := exp_pos x). assert (d a * exp H < 0) by nra.
    split; [unfold x in N; lra|nra].
  - apply Rnot_lt_le in N. destruct (Rtotal_order x w) as [G|[G|G]].
    + right; right. assert (Q := w_exp_w_increasing x w N G). split; [unfold x in G; lra|nra].
    + right; left. rewrite G in L. split; [unfold x in G; lra|nra].
    + left. assert (Q := w_exp_w_increasing w x W0n G). split; [unfold x in G; lra|nra].
Qed.

Lemma gap_sign_at c a : 0 <= c -> 0 <= (d a - c) * (z a - level acts z c).
Proof. intros Hc. destruct (dcov_level_sign c a Hc) as [[]|[[]|[]]]; nra. Qed.

(* sign(d_a - C) = sign(z_a - tau) *)
Theorem above_threshold a : tau acts z < z a <-> C < d a.
Proof. destruct (dcov_level_sign C a (Ccov_nonneg acts z nonempty)) as [[]|[[]|[]]]; unfold tau; lra. Qed.

Theorem at_threshold a : z a = tau acts z <-> d a = C.
Proof. destruct (dcov_level_sign C a (Ccov_nonneg acts z nonempty)) as [[]|[[]|[]]]; unfold tau; lra. Qed.

Theorem below_threshold a : z a < tau acts z <-> d a < C.
Proof. destruct (dcov_level_sign C a (Ccov_nonneg acts z nonempty)) as [[]|[[]|[]]]; unfold tau; lra. Qed.

Lemma gap_sign a : 0 <= (d a - C) * (z a - tau acts z).
Proof. apply gap_sign_at, Ccov_nonneg, nonempty. Qed.

Theorem threshold_above_mean : 0 < C -> m < tau acts z.
Proof.
  intros HC. assert (W := W0_pos (C * exp H)). unfold tau, level.
  assert (0 < C * exp H) by (apply Rmult_lt_0_compat; [exact HC|apply exp_pos]). lra.
Qed.

(* the probability of an action whose logit is the threshold *)
Theorem probability_at_threshold a : 0 < C -> z a = tau acts z -> pi a = C / W0 (C * exp H).
Proof.
  intros HC E. assert (W : 0 < W0 (C * exp H)).
  { apply W0_pos, Rmult_lt_0_compat; [exact HC|apply exp_pos]. }
  assert (Q := proj1 (at_threshold a) E). unfold dcov in Q. rewrite E in Q. unfold tau, level in Q.
  rewrite <- Q at 1. field. lra.
Qed.
End Threshold.
