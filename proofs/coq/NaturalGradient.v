(* Theorem 4.3 for the natural policy gradient, dz_a = eta r_a pi^T_a / pi_a: the slope at T = 1 is
   eta sum r pi (z - m)^2 >= 0 with no premise, and averaged over correct samples the change is monotone in T. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance Theorem_4_3 Normalised.
Import ListNotations.
Open Scope R_scope.

Definition natural_step {A} (acts : list A) (z r : A -> R) (T : R) (a : A) : R :=
  policy acts z T a * r a / softmax acts z a.

Definition DeltaH_natural {A} (acts : list A) (z r : A -> R) (eta T : R) : R :=
  - eta * Sum acts (fun a => policy acts z T a * r a * (z a - mean acts z)).

Definition DeltaH_natural_normalised {A} (acts : list A) (z r : A -> R) (eta T : R) : R :=
  - eta * (correct_mean acts z r z T - mean acts z).

Section NaturalGradient.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].

(* Eq. 6 with the natural step *)
Theorem natural_first_order eta T :
  eta * - cov acts (softmax acts z) z (natural_step acts z r T) = DeltaH_natural acts z r eta T.
Proof.
  rewrite cov_centred_left. fold (mean acts z). unfold DeltaH_natural, expect.
  rewrite (Sum_ext acts (fun a => softmax acts z a * ((z a - mean acts z) * natural_step acts z r T a))
    (fun a => policy acts z T a * r a * (z a - mean acts z))).
  - ring.
  - intros a _. unfold natural_step. field. apply Rgt_not_eq, softmax_pos, nonempty.
Qed.

Theorem natural_slope eta :
  is_derive (DeltaH_natural acts z r eta) 1
    (eta * Sum acts (fun a => softmax acts z a * r a * (z a - mean acts z) ^ 2)).
Proof.
  unfold DeltaH_natural. evar_last.
  - apply is_derive_scal.
    apply (is_derive_Sum acts (fun t a => policy acts z t a * r a * (z a - mean acts z))
      (fun a => (-1) * (softmax acts z a * r a * (z a - mean acts z) ^ 2))).
    intros a _. apply (is_derive_ext (fun t => (r a * (z a - mean acts z)) * policy acts z t a));
      [intros; simpl; ring|].
    evar_last; [apply is_derive_scal, (is_derive_policy acts z 1 nonempty Rlt_0_1)|].
    rewrite (mean_at_one acts z), (policy_one acts z). simpl. field.
  - simpl. rewrite Sum_scal. ring.
Qed.

Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.

Theorem natural_slope_nonneg eta : 0 <= eta -> 0 <= Derive (DeltaH_natural acts z r eta) 1.
Proof.
  intros He. rewrite (is_derive_unique _ _ _ (natural_slope eta)). apply Rmult_le_pos; [exact He|].
  apply Sum_nonneg. intros a Ia. apply Rmult_le_pos; [|apply pow2_ge_0].
  apply Rmult_le_pos; [left; apply softmax_pos, nonempty|apply reward_nonneg, Ia].
Qed.

Theorem natural_normalised_monotone eta T1 T2 : (exists a, In a acts /\ 0 < r a) ->
  0 <= eta -> 0 < T1 -> T1 <= T2 ->
  DeltaH_natural_normalised acts z r eta T1 <= DeltaH_natural_normalised acts z r eta T2.
Proof.
  intros Some He H1 H2. unfold DeltaH_natural_normalised.
  assert (Q := correct_mean_cooling acts z r z nonempty reward_nonneg Some T1 T2 (correct_mean acts z r z T2) H1 H2
    (fun a _ => Rle_0_sqr (z a - correct_mean acts z r z T2))). nra.
Qed.
End NaturalGradient.
