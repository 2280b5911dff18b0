(* Theorem 4.3's sign under other samplers: if the weight of a sample is non-decreasing in its logit (top-k, top-p,
   min-p, any T <= 1), then an update that lowers the entropy under pi also lowers it under the reweighted sampler. *)
From Coq Require Import Reals List Lra Psatz.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance Threshold DeltaH.
Import ListNotations.
Open Scope R_scope.

Section Samplers.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].
Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.

(* the first-order entropy change when action a is sampled with weight pi_a * weight a *)
Definition DeltaH_weighted (weight : A -> R) (eta : R) : R :=
  - eta * Sum acts (fun a => softmax acts z a * weight a * r a * gap acts z a).

Theorem likelihood_ratio_keeps_sign (weight : A -> R) eta : 0 < eta ->
  (forall a b, In a acts -> In b acts -> z a <= z b -> weight a <= weight b) ->
  (forall a, In a acts -> 0 <= weight a) ->
  DeltaH acts z r eta 1 <= 0 -> DeltaH_weighted weight eta <= 0.
Proof.
  intros He Mono W0 H.
  assert (Base : 0 <= Sum acts (fun a => softmax acts z a * r a * gap acts z a)).
  { unfold DeltaH in H. rewrite (Sum_ext acts _ (fun a => softmax acts z a * r a * gap acts z a)) in H
      by (intros; rewrite policy_one; reflexivity). nra. }
  assert (Goal : 0 <= Sum acts (fun a => softmax acts z a * weight a * r a * gap acts z a));
    [|unfold DeltaH_weighted; nra].
  assert (Pr : forall a, In a acts -> 0 <= softmax acts z a * r a).
  { intros a Ia. apply Rmult_le_pos; [left; apply softmax_pos, nonempty|apply reward_nonneg, Ia]. }
  destruct (Exists_dec (fun a => 0 < gap acts z a) acts (fun a => Rlt_dec 0 (gap acts z a))) as [E|E];
    rewrite Exists_exists in E.
  - (* a0: the lowest logit above the threshold; weights above it are larger, below it smaller *)
    destruct (argmin_ex (fun a => 0 < gap acts z a) (fun a => Rlt_dec 0 (gap acts z a)) z acts E)
      as [a0 [I0 [P0 M0]]].
    apply Rle_trans with (weight a0 * Sum acts (fun a => softmax acts z a * r a * gap acts z a));
      [apply Rmult_le_pos; auto|].
    rewrite <- Sum_scal. apply Sum_le. intros a Ia. specialize (Pr a Ia).
    assert (Q : 0 <= (weight a - weight a0) * gap acts z a).
    { destruct (Rlt_dec 0 (gap acts z a)) as [L|L].
      - assert (weight a0 <= weight a) by (apply Mono; auto). apply Rmult_le_pos; lra.
      - assert (z a <= z a0).
        { assert (B0 := proj2 (above_threshold acts z nonempty a0) ltac:(unfold gap in P0; lra)).
          apply Rnot_lt_le. intros L0.
          assert (B := proj1 (above_threshold acts z nonempty a) ltac:(lra)). unfold gap in L. lra. }
        assert (weight a <= weight a0) by (apply Mono; auto). nra. }
    assert (0 <= softmax acts z a * r a * ((weight a - weight a0) * gap acts z a)) by (apply Rmult_le_pos; lra). lra.
  - (* no action lowers the entropy, so by the premise every term is 0 *)
    assert (NP : forall a, In a acts -> gap acts z a <= 0).
    { intros a Ia. apply Rnot_lt_le. intros L. apply E. exists a; auto. }
    assert (NT : forall a, In a acts -> 0 <= (-1) * (softmax acts z a * r a * gap acts z a)).
    { intros a Ia. specialize (Pr a Ia). specialize (NP a Ia). nra. }
    assert (Z : Sum acts (fun a => (-1) * (softmax acts z a * r a * gap acts z a)) = 0).
    { assert (P := Sum_nonneg _ _ NT). rewrite Sum_scal in P |- *. lra. }
    right. symmetry. apply Sum_zero. intros a Ia. assert (T := Sum_zero_term acts _ a NT Z Ia). cbv beta in T.
    replace (softmax acts z a * weight a * r a * gap acts z a)
      with (weight a * (softmax acts z a * r a * gap acts z a)) by ring.
    replace (softmax acts z a * r a * gap acts z a) with 0 by lra. ring.
Qed.

(* truncation at any logit: what top-k, top-p and min-p keep, up to ties *)
Corollary truncation_keeps_sign cut eta : 0 < eta -> DeltaH acts z r eta 1 <= 0 ->
  DeltaH_weighted (fun a => if Rle_dec cut (z a) then 1 else 0) eta <= 0.
Proof.
  intros He H. apply likelihood_ratio_keeps_sign; [exact He| | |exact H].
  - intros a b _ _ L. destruct (Rle_dec cut (z a)); destruct (Rle_dec cut (z b)); lra.
  - intros a _. destruct (Rle_dec cut (z a)); lra.
Qed.
End Samplers.
