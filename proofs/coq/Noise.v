(* A controller whose steps are random: a conditional drift of at least eps towards the target and a conditional
   second moment of a step of at most B^2 bound the average of E|H_k - target| over the steps; also for a target that
   moves. The process is any finite tree. The paper has no such claim. *)
From Coq Require Import Reals List Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Expectation FiniteTree MovingTarget.
Import ListNotations.
Open Scope R_scope.

Section Noise.
Context {A : Type} (outcomes : list A) (p : list A -> A -> R).
Hypothesis total : forall h, Sum outcomes (p h) = 1.
Hypothesis nonneg : forall h a, In a outcomes -> 0 <= p h a.
Variables (H : list A -> R) (target : nat -> R) (eps B delta : R).

(* the means, given the history, of a step and of its square *)
Definition drift (h : list A) : R := expect outcomes (p h) (fun a => H (a :: h) - H h).
Definition second_moment (h : list A) : R := expect outcomes (p h) (fun a => (H (a :: h) - H h) ^ 2).

Definition drifts_towards : Prop := forall h, 0 < chance p h ->
  (H h < target (length h) -> eps <= drift h) /\ (target (length h) < H h -> drift h <= - eps).
Definition moves_by_noise : Prop := forall h, 0 < chance p h -> second_moment h <= B ^ 2.

Notation error h := (H h - target (length h)).

Hypothesis B_nonneg : 0 <= B.
Hypothesis towards : drifts_towards.
Hypothesis noise : moves_by_noise.
Hypothesis slow : moves_at_most target delta.

(* one step, given the history: the squared error falls by the drift's share and rises by the noise's *)
Lemma squared_error_after_one_step h : 0 < chance p h ->
  next_mean outcomes p (fun g => error g ^ 2) h <= error h ^ 2 - 2 * (eps - delta) * Rabs (error h) + (B + delta) ^ 2.
Proof.
  intros C. destruct (towards h C) as [Up Down]. assert (V := noise h C). assert (D := slow (length h)).
  set (d := target (S (length h)) - target (length h)) in *. set (e := error h) in *.
  assert (E : next_mean outcomes p (fun g => error g ^ 2) h
    = e ^ 2 + 2 * e * (drift h - d) + (d ^ 2 - 2 * d * drift h + second_moment h)).
  { unfold next_mean, drift, second_moment.
    rewrite (expect_ext outcomes (p h) (fun a => (H (a :: h) - target (length (a :: h))) ^ 2)
      (fun a => ((H (a :: h) - H h) ^ 2 + 2 * (e - d) * (H (a :: h) - H h)) + (e - d) ^ 2)).
    - rewrite expect_shift by apply total. rewrite expect_plus, expect_scal. ring.
    - intros a _. cbn [length]. unfold e, d. ring. }
  assert (J : drift h ^ 2 <= second_moment h).
  { assert (Q := var_nonneg outcomes (p h) (nonneg h) (fun a => H (a :: h) - H h)).
    rewrite var_as_cov in Q by apply total. unfold cov in Q. fold (drift h) in Q.
    unfold second_moment. rewrite (expect_ext outcomes (p h) (fun a => (H (a :: h) - H h) ^ 2)
      (fun a => (H (a :: h) - H h) * (H (a :: h) - H h))) by (intros; ring). lra. }
  apply Rabs_le_between in D. fold d in D.
  assert (M : - B <= drift h <= B) by (split; nra).
  assert (N : d ^ 2 - 2 * d * drift h + second_moment h <= (B + delta) ^ 2) by nra.
  rewrite E. clear E. destruct (Rtotal_order (H h) (target (length h))) as [L|[L|L]].
  - specialize (Up L). rewrite Rabs_left by (unfold e; lra).
    assert (0 <= - e * (drift h - d - (eps - delta))) by (apply Rmult_le_pos; unfold e; lra). lra.
  - replace e with 0 by (unfold e; lra). rewrite Rabs_R0. lra.
  - specialize (Down L). rewrite Rabs_right by (unfold e; lra).
    assert (0 <= e * (- (drift h) + d - (eps - delta))) by (apply Rmult_le_pos; unfold e; lra). lra.
Qed.

Lemma noise_total_error n :
  2 * (eps - delta) * Sum (seq 0 n) (fun k => mean_after outcomes p k (fun h => Rabs (error h)))
    + mean_after outcomes p n (fun h => error h ^ 2)
  <= (H [] - target 0%nat) ^ 2 + INR n * (B + delta) ^ 2.
Proof.
  induction n as [|n IH]; [simpl; rewrite mean_after_zero; simpl; lra|].
  rewrite Sum_steps_next, S_INR, mean_after_next.
  assert (Q : mean_after outcomes p n (next_mean outcomes p (fun g => error g ^ 2))
    <= mean_after outcomes p n (fun h => (error h ^ 2 + (- (2 * (eps - delta))) * Rabs (error h)) + (B + delta) ^ 2)).
  { apply mean_after_le; [exact nonneg|]. intros h _ C. assert (P := squared_error_after_one_step h C). lra. }
  rewrite mean_after_plus, mean_after_plus, mean_after_scal, mean_after_const in Q by exact total. lra.
Qed.

Theorem noise_moving_target n : delta < eps -> (0 < n)%nat ->
  / INR n * Sum (seq 0 n) (fun k => mean_after outcomes p k (fun h => Rabs (error h)))
  <= (H [] - target 0%nat) ^ 2 / (2 * (eps - delta) * INR n) + (B + delta) ^ 2 / (2 * (eps - delta)).
Proof.
  intros Authority Hn. assert (N : 0 < INR n) by (apply lt_0_INR, Hn). assert (T := noise_total_error n).
  assert (P : 0 <= mean_after outcomes p n (fun h => error h ^ 2)).
  { rewrite <- (mean_after_const outcomes p total n 0). apply mean_after_le; [exact nonneg|].
    intros h _ _. apply pow2_ge_0. }
  set (s := Sum _ _) in *.
  apply Rmult_le_reg_l with (2 * (eps - delta) * INR n); [apply Rmult_lt_0_compat; lra|].
  replace (2 * (eps - delta) * INR n * (/ INR n * s)) with (2 * (eps - delta) * s) by (field; lra).
  replace (2 * (eps - delta) * INR n * _) with ((H [] - target 0%nat) ^ 2 + INR n * (B + delta) ^ 2) by (field; lra).
  lra.
Qed.
End Noise.

(* a target that stands still *)
Theorem noise_average_error {A} (outcomes : list A) p (H : list A -> R) target eps B n :
  (forall h, Sum outcomes (p h) = 1) -> (forall h a, In a outcomes -> 0 <= p h a) -> 0 <= B -> 0 < eps ->
  drifts_towards outcomes p H (fun _ => target) eps -> moves_by_noise outcomes p H B -> (0 < n)%nat ->
  / INR n * Sum (seq 0 n) (fun k => mean_after outcomes p k (fun h => Rabs (H h - target)))
  <= (H [] - target) ^ 2 / (2 * eps * INR n) + B ^ 2 / (2 * eps).
Proof.
  intros total nonneg HB He Towards Noise Hn.
  assert (Q := noise_moving_target outcomes p total nonneg H (fun _ => target) eps B 0 HB Towards Noise).
  rewrite Rminus_0_r, Rplus_0_r in Q. apply Q; [|exact He|exact Hn].
  intros k. rewrite Rminus_eq_0, Rabs_R0. apply Rle_refl.
Qed.

(* ---- the premises are needed: both processes have one outcome a step, of chance 1 ---- *)

Definition sure (h : list unit) (a : unit) : R := 1.

Lemma sure_mean n f c : (forall h : list unit, f h = c) -> mean_after [tt] sure n f = c.
Proof.
  intros E. rewrite <- (mean_after_const [tt] sure (fun _ => Rplus_0_r 1) n c). apply expect_ext. intros h _. apply E.
Qed.

Lemma sure_average n f c : (0 < n)%nat -> (forall h : list unit, f h = c) ->
  / INR n * Sum (seq 0 n) (fun k => mean_after [tt] sure k f) = c.
Proof.
  intros Hn E. rewrite (Sum_ext _ _ (fun _ => c)) by (intros; apply sure_mean, E).
  rewrite Sum_const, seq_length. field. apply Rgt_not_eq, lt_0_INR, Hn.
Qed.

(* without a drift the error may stay what it was, with no noise at all *)
Theorem noise_needs_a_drift far : 0 < far -> exists H : list unit -> R,
  moves_by_noise [tt] sure H 0 /\
  forall n, (0 < n)%nat -> / INR n * Sum (seq 0 n) (fun k => mean_after [tt] sure k (fun h => Rabs (H h - 0))) = far.
Proof.
  intros Hfar. exists (fun _ => far). split.
  - intros h _. unfold second_moment, expect. simpl. lra.
  - intros n Hn. apply sure_average; [exact Hn|]. intros h. rewrite Rminus_0_r. apply Rabs_right. lra.
Qed.

(* with a drift as large as one likes but no bound on a step's second moment it may be as large *)
Theorem noise_needs_a_second_moment far : 0 < far -> exists H : list unit -> R,
  drifts_towards [tt] sure H (fun _ => 0) (2 * far) /\
  forall n, (0 < n)%nat -> / INR n * Sum (seq 0 n) (fun k => mean_after [tt] sure k (fun h => Rabs (H h - 0))) = far.
Proof.
  intros Hfar. exists (fun h => if Nat.even (length h) then far else - far). split.
  - intros h _. unfold drift, expect. cbn [length Sum]. rewrite Nat.even_succ, <- Nat.negb_even.
    destruct (Nat.even (length h)); unfold sure; simpl; split; intros; lra.
  - intros n Hn. apply sure_average; [exact Hn|]. intros h. rewrite Rminus_0_r.
    destruct (Nat.even (length h)); [|rewrite Rabs_Ropp]; apply Rabs_right; lra.
Qed.
