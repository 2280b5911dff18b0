(* The two-temperature controller of Section 4.2: if every update moves the entropy by at most B, and by at least delta
   towards the target, then it is in the band |H - target| <= B after |H_0 - target| / delta steps and stays there. *)
From Coq Require Import Reals List Lra Lia.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Expectation Softmax DeltaH FirstOrder Remainder Lipschitz MovingTarget.
Import ListNotations.
Open Scope R_scope.

Section Band.
Variables (H : nat -> R) (target B delta : R).
Hypothesis bounded : forall k, Rabs (H (S k) - H k) <= B.
Hypothesis rises_below : forall k, H k < target -> H k + delta <= H (S k).
Hypothesis falls_above : forall k, target <= H k -> H (S k) <= H k - delta.
Hypothesis drifts : 0 < delta.

(* a target that moves by nothing; the hitting time counts the whole way, which is no less than the way to the band *)
Theorem band n : Rabs (H 0%nat - target) <= INR n * delta ->
  forall k, (n <= k)%nat -> Rabs (H k - target) <= B.
Proof.
  intros Far k Hk.
  assert (B0 : 0 <= B) by (apply Rle_trans with (2 := bounded 0%nat); apply Rabs_pos).
  rewrite <- (Rplus_0_r B). revert k Hk. apply (moving_target_followed H (fun _ => target) delta B 0).
  - intros k. assert (Q := bounded k). apply Rabs_le_between in Q. split; intros L.
    + assert (U := rises_below k L). lra.
    + assert (U := falls_above k L). lra.
  - intros k. rewrite Rminus_eq_0, Rabs_R0. apply Rle_refl.
  - exact drifts.
  - rewrite Rminus_0_r. lra.
Qed.
End Band.

(* for the update of Eq. 4 with rewards in [0, 1], B = eta ln K whatever the temperatures are *)
Theorem band_of_updates {A} (acts : list A) (r : A -> R) (z : nat -> A -> R) (T : nat -> R) eta target delta n :
  acts <> [] -> (forall a, In a acts -> 0 <= r a <= 1) -> 0 <= eta -> 0 < delta ->
  (forall k a, z (S k) a = z k a + eta * step acts (z k) r (T k) a) ->
  let H k := entropy acts (softmax acts (z k)) in
  (forall k, H k < target -> H k + delta <= H (S k)) ->
  (forall k, target <= H k -> H (S k) <= H k - delta) ->
  Rabs (H 0%nat - target) <= INR n * delta ->
  forall k, (n <= k)%nat -> Rabs (H k - target) <= eta * ln (INR (length acts)).
Proof.
  intros nonempty Hr He Hd Upd H Up Down Far.
  apply (band H target (eta * ln (INR (length acts))) delta); try assumption.
  intros k. set (v := step acts (z k) r (T k)).
  assert (E1 : H (S k) = entropy_along acts (z k) v eta).
  { apply entropy_ext. intros a _. apply softmax_ext. intros x. rewrite Upd. reflexivity. }
  assert (E0 : H k = entropy_along acts (z k) v 0).
  { apply entropy_ext. intros a _. apply softmax_ext. intros x. unfold moved. ring. }
  rewrite E1, E0.
  apply Rle_trans with (eta * success acts (z k) r (T k) * ln (INR (length acts))).
  - apply step_lipschitz; [exact nonempty|intros a Ia; apply (Hr a Ia)|exact He].
  - apply Rmult_le_compat_r; [apply ln_count_nonneg, nonempty|].
    rewrite <- (Rmult_1_r eta) at 2. apply Rmult_le_compat_l; [exact He|].
    apply (expect_between acts (policy acts (z k) (T k)) (softmax_total acts _ nonempty)
      (softmax_nonneg acts _ nonempty) r 0 1 Hr).
Qed.
