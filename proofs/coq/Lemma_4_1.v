(* Lemma 4.1 in exact form: dH(pi^T)/dT = Var_{pi^T}(z) / T^3, so the entropy of the tempered policy never falls as T
   rises; it rises strictly unless all logits are equal, and is constant exactly then. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax.
Import ListNotations.
Open Scope R_scope.

Section Lemma_4_1.
Context {A : Type} (acts : list A) (z : A -> R).
Hypothesis nonempty : acts <> [].

Theorem lemma_4_1_derivative T : 0 < T ->
  is_derive (fun t => entropy acts (policy acts z t)) T (var acts (policy acts z T) z / T ^ 3).
Proof.
  intros HT. evar_last.
  - apply (is_derive_entropy acts (fun t a => z a / t) (fun a => - (z a / T ^ 2)) T nonempty).
    intros; apply is_derive_cooling, HT.
  - assert (total := softmax_total acts (fun a => z a / T) nonempty).
    rewrite (var_as_cov acts (policy acts z T) total). unfold policy.
    rewrite (cov_ext acts _ (fun a => z a / T) (fun a => z a / T) _ (fun a => (- / T ^ 2) * z a))
      by (intros; field; lra).
    rewrite (cov_scal acts _ total), cov_comm.
    rewrite (cov_ext acts _ z z (fun a => z a / T) (fun a => / T * z a)) by (intros; field; lra).
    rewrite (cov_scal acts _ total). field. lra.
Qed.

Lemma variance_pos_unless_constant T : ~ constant_on acts z -> 0 < var acts (policy acts z T) z.
Proof.
  intros N. destruct (not_constant_off_level acts z (expect acts (policy acts z T) z) N) as [a [Ia Ha]].
  apply (Sum_pos_at acts _ a); [|exact Ia|].
  - intros x Ix. apply Rmult_le_pos; [left; apply softmax_pos, nonempty|apply pow2_ge_0].
  - apply Rmult_lt_0_compat; [apply softmax_pos, nonempty|]. apply pow2_gt_0. lra.
Qed.

Theorem lemma_4_1_monotone T1 T2 : 0 < T1 -> T1 <= T2 ->
  entropy acts (policy acts z T1) <= entropy acts (policy acts z T2).
Proof.
  intros H1 H2.
  apply (nondecreasing_of_derivative (fun t => entropy acts (policy acts z t))
    (fun t => var acts (policy acts z t) z / t ^ 3) T1 T2 H2).
  - intros t Ht. apply lemma_4_1_derivative. lra.
  - intros t Ht. apply Rmult_le_pos; [apply var_nonneg, softmax_nonneg, nonempty|].
    left. apply Rinv_0_lt_compat, pow_lt. lra.
Qed.

Theorem lemma_4_1_strict T1 T2 : ~ constant_on acts z -> 0 < T1 -> T1 < T2 ->
  entropy acts (policy acts z T1) < entropy acts (policy acts z T2).
Proof.
  intros N H1 H2.
  apply (increasing_of_derivative (fun t => entropy acts (policy acts z t))
    (fun t => var acts (policy acts z t) z / t ^ 3) T1 T2 H2).
  - intros t Ht. apply lemma_4_1_derivative. lra.
  - intros t Ht. apply Rdiv_lt_0_compat; [apply variance_pos_unless_constant, N|apply pow_lt; lra].
Qed.

Theorem lemma_4_1_constant :
  constant_on acts z <->
  (forall T1 T2, 0 < T1 -> 0 < T2 -> entropy acts (policy acts z T1) = entropy acts (policy acts z T2)).
Proof.
  split.
  - intros Z.
    assert (U : forall T a, In a acts -> policy acts z T a = / INR (length acts)).
    { intros T a Ia. unfold policy, softmax, partition.
      rewrite (Sum_ext acts (fun x => exp (z x / T)) (fun _ => exp (z a / T)))
        by (intros x Ix; rewrite (Z x a Ix Ia); reflexivity).
      rewrite Sum_const. assert (KP := count_pos acts nonempty). assert (EP := exp_pos (z a / T)). field. lra. }
    intros T1 T2 _ _. apply entropy_ext. intros a Ia. rewrite !U by exact Ia. reflexivity.
  - intros H. destruct acts as [|a0 l] eqn:EA; [congruence|]. rewrite <- EA in *.
    destruct (off_level acts z (z a0)) as [[a [Ia Ha]]|Z].
    + exfalso. assert (N : ~ constant_on acts z).
      { intros Z. apply Ha, Z; [exact Ia|rewrite EA; left; reflexivity]. }
      assert (S := lemma_4_1_strict 1 2 N Rlt_0_1 ltac:(lra)). rewrite (H 1 2) in S by lra. lra.
    + intros a b Ia Ib. rewrite (Z a Ia), (Z b Ib). reflexivity.
Qed.
End Lemma_4_1.
