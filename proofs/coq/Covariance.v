(* The covariances of Theorem 4.3:  Cov_pi(z, delta_a) = pi_a (z_a - m)  and  C = Cov_pi(z, pi).  The paper's proof uses
   C >= 0 without saying so; it is Chebyshev's association inequality, strict unless all logits are equal. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax.
Import ListNotations.
Open Scope R_scope.

(* Cov_pi(z, delta_a) and Cov_pi(z, pi), in the form that the proofs use *)
Definition dcov {A} (acts : list A) (z : A -> R) (a : A) : R := softmax acts z a * (z a - mean acts z).
Definition Ccov {A} (acts : list A) (z : A -> R) : R := expect acts (softmax acts z) (dcov acts z).

Section Covariance.
Context {A : Type} (acts : list A) (z : A -> R).
Hypothesis nonempty : acts <> [].
Notation pi := (softmax acts z).
Notation m := (mean acts z).
Notation d := (dcov acts z).
Notation C := (Ccov acts z).

Lemma dcov_total : Sum acts d = 0.
Proof. exact (expect_centred acts pi (softmax_total acts z nonempty) z). Qed.

Theorem Ccov_is_covariance : C = cov acts pi z pi.
Proof. rewrite cov_centred_left. apply expect_ext. intros; unfold dcov, mean; ring. Qed.

(* C = E[(z - m)(pi - e^m / Z)]: both factors have the sign of z - m *)
Lemma Ccov_as_association :
  C = Sum acts (fun a => pi a * ((z a - m) * (exp (z a) - exp m)) * / partition acts z).
Proof.
  assert (P := partition_pos acts z nonempty).
  transitivity (Sum acts (fun a => pi a * ((z a - m) * (exp (z a) - exp m)) * / partition acts z
    + (exp m / partition acts z) * d a)).
  - apply Sum_ext. intros a _. unfold dcov, softmax. field. lra.
  - rewrite Sum_plus, Sum_scal, dcov_total. ring.
Qed.

Lemma association_nonneg x y : 0 <= (x - y) * (exp x - exp y).
Proof.
  destruct (Rle_dec x y) as [L|L].
  - assert (exp x <= exp y) by (apply exp_le; lra). nra.
  - assert (exp y <= exp x) by (apply exp_le; lra). nra.
Qed.

Lemma association_pos x y : x <> y -> 0 < (x - y) * (exp x - exp y).
Proof.
  intros N. destruct (Rlt_dec x y) as [L|L].
  - assert (exp x < exp y) by (apply exp_increasing; lra). nra.
  - assert (exp y < exp x) by (apply exp_increasing; lra). nra.
Qed.

Theorem Ccov_nonneg : 0 <= C.
Proof.
  rewrite Ccov_as_association. apply Sum_nonneg. intros a _.
  apply Rmult_le_pos; [|left; apply Rinv_0_lt_compat, partition_pos, nonempty].
  apply Rmult_le_pos; [left; apply softmax_pos, nonempty|apply association_nonneg].
Qed.

Theorem Ccov_pos_iff_not_constant : 0 < C <-> ~ constant_on acts z.
Proof.
  split.
  - intros HC Z. assert (Zm : forall a, In a acts -> d a = 0).
    { intros a Ia. unfold dcov. replace m with (z a); [ring|]. unfold mean.
      rewrite (expect_ext acts pi z (fun _ => z a)) by (intros x Ix; apply Z; assumption).
      rewrite (expect_const acts pi (softmax_total acts z nonempty)). reflexivity. }
    unfold Ccov, expect in HC. rewrite Sum_zero in HC; [lra|]. intros a Ia. rewrite Zm by exact Ia. ring.
  - intros N. destruct (not_constant_off_level acts z m N) as [a [Ia Ha]].
    assert (V : 0 < / partition acts z) by apply Rinv_0_lt_compat, partition_pos, nonempty.
    rewrite Ccov_as_association. apply (Sum_pos_at acts _ a); [|exact Ia|].
    + intros x _. apply Rmult_le_pos; [|lra].
      apply Rmult_le_pos; [left; apply softmax_pos, nonempty|apply association_nonneg].
    + apply Rmult_lt_0_compat; [|exact V].
      apply Rmult_lt_0_compat; [apply softmax_pos, nonempty|apply association_pos, Ha].
Qed.

(* ---- the covariances as printed, with Kronecker's delta: they need actions to be listed once each ---- *)
Hypothesis distinct : NoDup acts.
Variable eq_dec : forall x y : A, {x = y} + {x <> y}.
Definition delta (x y : A) : R := if eq_dec x y then 1 else 0.

Lemma Sum_delta (f : A -> R) b (l : list A) : NoDup l -> In b l -> Sum l (fun a => f a * delta a b) = f b.
Proof.
  induction l as [|x l IH]; intros ND I; [destruct I|]. inversion ND; subst. simpl. destruct I as [->|I].
  - rewrite Sum_zero; [unfold delta; destruct (eq_dec b b); [ring|congruence]|].
    intros a Ia. unfold delta. destruct (eq_dec a b); [subst; contradiction|ring].
  - rewrite IH by assumption. unfold delta. destruct (eq_dec x b); [subst; contradiction|ring].
Qed.

Theorem dcov_is_covariance b : In b acts -> d b = cov acts pi z (fun a => delta a b).
Proof.
  intros Ib. rewrite cov_centred_left. unfold expect.
  rewrite (Sum_ext acts _ (fun a => d a * delta a b)) by (intros; unfold dcov, mean, expect; ring).
  rewrite Sum_delta by assumption. reflexivity.
Qed.

(* the summand of Delta H: Cov_pi(z, delta_b - pi) = d_b - C *)
Theorem covariance_as_printed b : In b acts -> cov acts pi z (fun a => delta a b - pi a) = d b - C.
Proof.
  intros Ib. assert (total := softmax_total acts z nonempty).
  rewrite (cov_ext acts pi z z _ (fun a => (-1) * pi a + delta a b)) by (intros; ring).
  rewrite (cov_lin acts pi z (-1)), <- Ccov_is_covariance, <- dcov_is_covariance by exact Ib. ring.
Qed.
End Covariance.
