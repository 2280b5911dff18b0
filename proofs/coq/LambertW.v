(* Lambert's function W0 on [0, oo): the one w >= 0 with w e^w = x, built from the intermediate value theorem.
   It gives Theorem 4.3's threshold in closed form (Threshold.v). *)
From Coq Require Import Reals Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Calculus.
Open Scope R_scope.

Lemma w_exp_w_increasing v w : 0 <= v -> v < w -> v * exp v < w * exp w.
Proof. intros Hv Hw. assert (E := exp_increasing v w Hw). assert (P := exp_pos v). nra. Qed.

Lemma w_exp_w_continuous : continuity (fun w => w * exp w).
Proof.
  intros w. apply derivable_continuous_pt, derivable_pt_mult; [apply derivable_pt_id|apply derivable_pt_exp].
Qed.

Lemma lambert_exists x : 0 <= x -> {w | 0 <= w /\ w * exp w = x}.
Proof.
  intros Hx. assert (E1 : 1 <= exp x) by (assert (Q := exp_ineq1_le x); lra).
  destruct (IVT_gen (fun w => w * exp w) 0 x x w_exp_w_continuous) as [w [Hw E]].
  - rewrite Rmult_0_l, Rmin_left, Rmax_right by nra. nra.
  - rewrite Rmin_left, Rmax_right in Hw by lra. exists w. split; [lra|exact E].
Qed.

(* 0 outside the domain, where no statement uses it *)
Definition W0 (x : R) : R :=
  match Rle_dec 0 x with left Hx => proj1_sig (lambert_exists x Hx) | right _ => 0 end.

Theorem W0_spec x : 0 <= x -> 0 <= W0 x /\ W0 x * exp (W0 x) = x.
Proof.
  intros Hx. unfold W0. destruct (Rle_dec 0 x) as [H|H]; [|contradiction].
  exact (proj2_sig (lambert_exists x H)).
Qed.

Lemma w_exp_w_lt_iff v w : 0 <= v -> 0 <= w -> (v < w <-> v * exp v < w * exp w).
Proof.
  intros Hv Hw. split; [apply w_exp_w_increasing, Hv|]. intros H.
  destruct (Rtotal_order v w) as [L|[E|L]]; [exact L|subst; lra|].
  assert (Q := w_exp_w_increasing w v Hw L). lra.
Qed.

Theorem W0_unique x w : 0 <= w -> w * exp w = x -> w = W0 x.
Proof.
  intros Hw E. assert (Hx : 0 <= x) by (rewrite <- E; apply Rmult_le_pos; [exact Hw|left; apply exp_pos]).
  destruct (W0_spec x Hx) as [H0 H1].
  destruct (Rtotal_order w (W0 x)) as [L|[L|L]]; [|exact L|]; exfalso.
  - assert (Q := w_exp_w_increasing _ _ Hw L). lra.
  - assert (Q := w_exp_w_increasing _ _ H0 L). lra.
Qed.

Lemma W0_zero : W0 0 = 0.
Proof. symmetry. apply W0_unique; [lra|ring]. Qed.

Lemma W0_pos x : 0 < x -> 0 < W0 x.
Proof.
  intros Hx. destruct (W0_spec x (Rlt_le _ _ Hx)) as [[H|H] E]; [exact H|].
  exfalso. rewrite <- H in E. lra.
Qed.
