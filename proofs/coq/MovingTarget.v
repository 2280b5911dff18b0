(* A target that moves: where every step moves the entropy towards it by at least eps and at most B, and the target
   moves by at most delta < eps a step, the error ends within B + delta, after an explicit number of steps. So
   every function of the step whose slope is below eps is followed; a target that is faster than B is lost. The paper
   only says "arbitrary functions". *)
From Coq Require Import Reals List Lra Lia.
From Coquelicot Require Import Coquelicot.
Open Scope R_scope.

(* step k moves H towards the target by at least eps and at most B: it may cross the target, and then lands within B of
   where the target was *)
Definition moves_towards (H target : nat -> R) (eps B : R) (k : nat) : Prop :=
  (H k < target k -> eps <= H (S k) - H k <= B) /\ (target k <= H k -> eps <= H k - H (S k) <= B).

Definition moves_at_most (target : nat -> R) (delta : R) : Prop :=
  forall k, Rabs (target (S k) - target k) <= delta.

Section Followed.
Variables (H target : nat -> R) (eps B delta : R).
Notation error k := (Rabs (H k - target k)).
Hypothesis steps : forall k, moves_towards H target eps B k.
Hypothesis slow : moves_at_most target delta.
Hypothesis authority : delta < eps.

Lemma speed_nonneg : 0 <= delta.
Proof. apply Rle_trans with (2 := slow 0%nat). apply Rabs_pos. Qed.

Lemma moving_target_one_step k : error (S k) <= Rmax (B + delta) (error k - (eps - delta)).
Proof.
  assert (D := slow k). apply Rabs_le_between in D. destruct (steps k) as [Up Down].
  destruct (Rlt_dec (H k) (target k)) as [L|L].
  - specialize (Up L). rewrite (Rabs_left (H k - target k)) by lra.
    assert (M1 := Rmax_l (B + delta) (- (H k - target k) - (eps - delta))).
    assert (M2 := Rmax_r (B + delta) (- (H k - target k) - (eps - delta))). apply Rabs_le_between. lra.
  - apply Rnot_lt_le in L. specialize (Down L). rewrite (Rabs_right (H k - target k)) by lra.
    assert (M1 := Rmax_l (B + delta) (H k - target k - (eps - delta))).
    assert (M2 := Rmax_r (B + delta) (H k - target k - (eps - delta))).
    apply Rabs_le_between. lra.
Qed.

(* at every step: the error falls by eps - delta a step until it is within B + delta, and stays there *)
Theorem moving_target_error k : error k <= Rmax (B + delta) (error 0%nat - INR k * (eps - delta)).
Proof.
  induction k as [|k IH].
  - simpl INR. rewrite Rmult_0_l, Rminus_0_r. apply Rmax_r.
  - apply Rle_trans with (1 := moving_target_one_step k). rewrite S_INR. apply Rmax_lub; [apply Rmax_l|].
    revert IH. apply Rmax_case; intros IH.
    + apply Rle_trans with (2 := Rmax_l _ _). lra.
    + apply Rle_trans with (2 := Rmax_r _ _). lra.
Qed.

Theorem moving_target_followed n : error 0%nat <= B + delta + INR n * (eps - delta) ->
  forall k, (n <= k)%nat -> error k <= B + delta.
Proof.
  intros Far k Hk. apply Rle_trans with (1 := moving_target_error k). apply Rmax_lub; [lra|].
  assert (INR n * (eps - delta) <= INR k * (eps - delta)); [|lra].
  apply Rmult_le_compat_r; [lra|apply le_INR, Hk].
Qed.

(* such an n, spelled out: less than one step more than the way to the band over eps - delta *)
Corollary moving_target_hitting_time : exists n,
  INR n <= Rmax 0 (error 0%nat - (B + delta)) / (eps - delta) + 1 /\
  forall k, (n <= k)%nat -> error k <= B + delta.
Proof.
  set (way := Rmax 0 (error 0%nat - (B + delta))). assert (W := Rmax_l 0 (error 0%nat - (B + delta))). fold way in W.
  assert (W' := Rmax_r 0 (error 0%nat - (B + delta))). fold way in W'.
  assert (Q : 0 <= way / (eps - delta)) by (apply Rdiv_le_0_compat; lra).
  destruct (nfloor_ex _ Q) as [m [Lo Hi]]. exists (S m). rewrite S_INR. split; [lra|].
  apply moving_target_followed. rewrite S_INR.
  apply (Rmult_lt_compat_r (eps - delta)) in Hi; [|lra].
  replace (way / (eps - delta) * (eps - delta)) with way in Hi by (field; lra). lra.
Qed.
End Followed.

(* ---- functions of the step ---- *)

Definition lipschitz (f : R -> R) (slope : R) : Prop := forall x y, Rabs (f x - f y) <= slope * Rabs (x - y).

Lemma lipschitz_moves_at_most f slope N : lipschitz f slope -> 0 < N ->
  moves_at_most (fun k => f (INR k / N)) (slope / N).
Proof.
  intros L HN k. cbv beta. apply Rle_trans with (1 := L (INR (S k) / N) (INR k / N)).
  rewrite S_INR. replace ((INR k + 1) / N - INR k / N) with (/ N) by (field; lra).
  rewrite Rabs_right by (apply Rle_ge, Rlt_le, Rinv_0_lt_compat, HN). apply Rle_refl.
Qed.

(* The drift needs its sign only between a lowest and a highest entropy: if the function keeps a distance of B to both
   ends, the loop never leaves them. *)
Theorem moving_lipschitz_function_followed (H : nat -> R) f slope eps B lowest highest n :
  lipschitz f slope -> slope < eps ->
  (forall k, lowest + B <= f (INR k) <= highest - B) -> lowest <= H 0%nat <= highest ->
  (forall k, lowest <= H k <= highest -> moves_towards H (fun j => f (INR j)) eps B k) ->
  Rabs (H 0%nat - f 0) <= B + slope + INR n * (eps - slope) ->
  forall k, (n <= k)%nat -> Rabs (H k - f (INR k)) <= B + slope.
Proof.
  intros L Slow Inside Start Steps Far.
  assert (Slope : 0 <= slope).
  { assert (Q := L 1 0). rewrite Rminus_0_r, Rabs_R1 in Q. assert (P := Rabs_pos (f 1 - f 0)). lra. }
  assert (Stay : forall k, lowest <= H k <= highest).
  { induction k as [|k IH]; [exact Start|]. destruct (Steps k IH) as [Up Down]. specialize (Inside k).
    destruct (Rlt_dec (H k) (f (INR k))) as [M|M]; [specialize (Up M)|specialize (Down (Rnot_lt_le _ _ M))]; lra. }
  apply (moving_target_followed H (fun j => f (INR j)) eps B slope).
  - intros k. apply Steps, Stay.
  - intros k. cbv beta. apply Rle_trans with (1 := L _ _). rewrite S_INR.
    replace (INR k + 1 - INR k) with 1 by ring. rewrite Rabs_R1. lra.
  - exact Slow.
  - exact Far.
Qed.

(* What "arbitrary functions" can mean: a run of more than slope / eps steps, each no longer than half a tolerance,
   follows f of the share of the run that is done to within the tolerance. *)
Theorem moving_function_approximated (H : nat -> R) f slope eps B tolerance N n :
  lipschitz f slope -> 0 < N -> slope < N * eps -> B <= tolerance / 2 ->
  (forall k, moves_towards H (fun j => f (INR j / N)) eps B k) ->
  Rabs (H 0%nat - f 0) <= INR n * (eps - slope / N) ->
  forall k, (n <= k)%nat -> Rabs (H k - f (INR k / N)) <= tolerance.
Proof.
  intros L HN Slow Short Steps Far k Hk.
  assert (Authority : slope / N < eps).
  { apply (Rmult_lt_reg_r N); [exact HN|]. replace (slope / N * N) with slope by (field; lra). lra. }
  assert (EB : eps <= B).
  { destruct (Steps 0%nat) as [Up Down].
    destruct (Rlt_dec (H 0%nat) (f (INR 0 / N))) as [M|M];
      [specialize (Up M)|specialize (Down (Rnot_lt_le _ _ M))]; lra. }
  assert (D := speed_nonneg _ _ (lipschitz_moves_at_most f slope N L HN)).
  apply Rle_trans with (B + slope / N); [|lra].
  revert k Hk. apply (moving_target_followed H (fun j => f (INR j / N)) eps B (slope / N)).
  - exact Steps.
  - apply lipschitz_moves_at_most; assumption.
  - exact Authority.
  - simpl INR. replace (0 / N) with 0 by (field; lra). lra.
Qed.

(* ---- a target that is too fast ---- *)

Section Lost.
Variables (H target : nat -> R) (B delta : R).

Lemma rising_target_gains (up : forall k, target k + delta <= target (S k)) (bound : forall k, H (S k) <= H k + B) j k :
  target j - H j + INR k * (delta - B) <= target (j + k)%nat - H (j + k)%nat.
Proof.
  induction k as [|k IH]; [rewrite Nat.add_0_r; simpl; lra|].
  rewrite Nat.add_succ_r, S_INR. specialize (up (j + k)%nat). specialize (bound (j + k)%nat). lra.
Qed.

(* The target is ahead by at least delta - B more after each step, so that the error passes every level for good. Only
   the steps in the target's direction need a bound. *)
Theorem moving_target_lost : B < delta ->
  (forall k, target k + delta <= target (S k)) -> (forall k, H (S k) <= H k + B) ->
  (forall k, target k - H k + (delta - B) <= target (S k) - H (S k)) /\
  (forall k, INR k * (delta - B) - Rabs (H 0%nat - target 0%nat) <= Rabs (H k - target k)) /\
  (forall level, exists n, forall k, (n <= k)%nat -> level < Rabs (H k - target k)).
Proof.
  intros Fast Up Bound.
  assert (Rate : forall k, INR k * (delta - B) - Rabs (H 0%nat - target 0%nat) <= Rabs (H k - target k)).
  { intros k. assert (Q := rising_target_gains Up Bound 0%nat k). rewrite Nat.add_0_l in Q.
    assert (P := Rle_abs (H 0%nat - target 0%nat)). assert (P' := Rle_abs (- (H k - target k))).
    rewrite Rabs_Ropp in P'. lra. }
  repeat split.
  - intros k. specialize (Up k). specialize (Bound k). lra.
  - exact Rate.
  - intros level. set (far := Rmax 0 (level + Rabs (H 0%nat - target 0%nat)) / (delta - B)).
    assert (F : 0 <= far) by (apply Rdiv_le_0_compat; [apply Rmax_l|lra]).
    destruct (nfloor_ex far F) as [m [_ Hi]]. exists (S m). intros k Hk.
    apply Rlt_le_trans with (2 := Rate k).
    assert (M := Rmax_r 0 (level + Rabs (H 0%nat - target 0%nat))).
    assert (K : INR (S m) * (delta - B) <= INR k * (delta - B))
      by (apply Rmult_le_compat_r; [lra|apply le_INR, Hk]).
    rewrite S_INR in K. apply (Rmult_lt_compat_r (delta - B)) in Hi; [|lra]. unfold far in Hi.
    replace (Rmax 0 (level + Rabs (H 0%nat - target 0%nat)) / (delta - B) * (delta - B))
      with (Rmax 0 (level + Rabs (H 0%nat - target 0%nat))) in Hi by (field; lra). lra.
Qed.
End Lost.

(* the same for a target that falls *)
Corollary moving_target_lost_below (H target : nat -> R) B delta : B < delta ->
  (forall k, target (S k) <= target k - delta) -> (forall k, H k - B <= H (S k)) ->
  (forall k, H k - target k + (delta - B) <= H (S k) - target (S k)) /\
  (forall k, INR k * (delta - B) - Rabs (H 0%nat - target 0%nat) <= Rabs (H k - target k)) /\
  (forall level, exists n, forall k, (n <= k)%nat -> level < Rabs (H k - target k)).
Proof.
  intros Fast Down Bound.
  assert (Flip : forall k, Rabs (- H k - - target k) = Rabs (H k - target k)).
  { intros k. rewrite <- Rabs_Ropp. f_equal. ring. }
  destruct (moving_target_lost (fun k => - H k) (fun k => - target k) B delta Fast) as [_ [Rate Level]].
  { intros k. specialize (Down k). lra. }
  { intros k. specialize (Bound k). lra. }
  repeat split.
  - intros k. specialize (Down k). specialize (Bound k). lra.
  - intros k. rewrite <- !Flip. apply Rate.
  - intros level. destruct (Level level) as [n Hn]. exists n. intros k Hk. rewrite <- Flip. apply Hn, Hk.
Qed.

(* ---- the premises are needed ---- *)

(* with delta = eps the error may stay what it was, however long the run *)
Theorem moving_target_needs_authority eps far : 0 <= eps -> 0 < far -> exists H target,
  (forall k, moves_towards H target eps eps k) /\ moves_at_most target eps /\
  forall k, Rabs (H k - target k) = far.
Proof.
  intros He Hfar. exists (fun k => INR k * eps), (fun k => far + INR k * eps).
  split; [|split].
  - intros k. split; intros; rewrite S_INR; lra.
  - intros k. rewrite S_INR. replace (far + (INR k + 1) * eps - (far + INR k * eps)) with eps by ring.
    rewrite Rabs_right by lra. apply Rle_refl.
  - intros k. replace (INR k * eps - (far + INR k * eps)) with (- far) by ring.
    rewrite Rabs_Ropp. apply Rabs_right. lra.
Qed.

(* without a longest step the loop may cross a target that stands still, to and fro, as far from it as at the start *)
Theorem moving_target_needs_a_longest_step far : 0 < far -> exists H,
  (forall k, moves_towards H (fun _ => 0) far (2 * far) k) /\ forall k, Rabs (H k - 0) = far.
Proof.
  intros Hfar. exists (fun k => if Nat.even k then far else - far).
  assert (Next : forall k, Nat.even (S k) = negb (Nat.even k)).
  { intros k. rewrite Nat.even_succ, <- Nat.negb_even. reflexivity. }
  split.
  - intros k. unfold moves_towards. rewrite Next. destruct (Nat.even k); simpl; split; intros; lra.
  - intros k. destruct (Nat.even k); rewrite Rminus_0_r; [|rewrite Rabs_Ropp]; apply Rabs_right; lra.
Qed.
