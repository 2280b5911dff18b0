(* The first-order entropy change of Theorem 4.3, Delta H(T) = -eta sum_{a in A*} pi^T_a (d_a - C), and its derivative.
   A non-negative reward r stands where the paper has the indicator of A*; `printed` is the paper's own formula. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance Threshold.
Import ListNotations.
Open Scope R_scope.

(* d_a - C = Cov_pi(z, delta_a - pi): positive where raising pi_a lowers the entropy *)
Definition gap {A} (acts : list A) (z : A -> R) (a : A) : R := dcov acts z a - Ccov acts z.

Definition DeltaH {A} (acts : list A) (z r : A -> R) (eta T : R) : R :=
  - eta * Sum acts (fun a => policy acts z T a * r a * gap acts z a).

(* d Delta H / dT *)
Definition slope {A} (acts : list A) (z r : A -> R) (eta T : R) : R :=
  eta / T ^ 2 * Sum acts (fun a =>
    policy acts z T a * r a * ((z a - expect acts (policy acts z T) z) * gap acts z a)).

Definition indicator {A} (ok : A -> bool) (a : A) : R := if ok a then 1 else 0.

Lemma indicator_nonneg {A} (ok : A -> bool) a : 0 <= indicator ok a.
Proof. unfold indicator. destruct (ok a); lra. Qed.

Section DeltaH.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].

Theorem is_derive_DeltaH eta T : 0 < T -> is_derive (DeltaH acts z r eta) T (slope acts z r eta T).
Proof.
  intros HT. unfold DeltaH. evar_last.
  - apply is_derive_scal.
    apply (is_derive_Sum acts (fun t a => policy acts z t a * r a * gap acts z a) (fun a => (- / T ^ 2) *
      (policy acts z T a * r a * ((z a - expect acts (policy acts z T) z) * gap acts z a)))).
    intros a _. apply (is_derive_ext (fun t => (r a * gap acts z a) * policy acts z t a)); [intros; simpl; ring|].
    evar_last; [apply is_derive_scal, (is_derive_policy acts z T nonempty HT)|]. simpl. field. lra.
  - simpl. rewrite Sum_scal. unfold slope. field. lra.
Qed.

Corollary Derive_DeltaH eta T : 0 < T -> Derive (DeltaH acts z r eta) T = slope acts z r eta T.
Proof. intros HT. apply is_derive_unique, is_derive_DeltaH, HT. Qed.

Lemma DeltaH_scal eta T : DeltaH acts z r eta T = eta * DeltaH acts z r 1 T.
Proof. unfold DeltaH. ring. Qed.

(* the entropy falls only where the logits vary *)
Lemma falling_needs_variation eta T : DeltaH acts z r eta T <> 0 -> 0 < Ccov acts z.
Proof.
  intros H. destruct (Ccov_nonneg acts z nonempty) as [P|P]; [exact P|]. exfalso. apply H.
  assert (Z : constant_on acts z).
  { destruct (off_level acts z (mean acts z)) as [[a [Ia Ha]]|Z].
    - exfalso. assert (0 < Ccov acts z); [|lra]. apply (Ccov_pos_iff_not_constant acts z nonempty).
      intros Z. apply Ha. unfold mean.
      rewrite (expect_ext acts _ z (fun _ => z a)) by (intros x Ix; apply Z; assumption).
      rewrite expect_const; [reflexivity|]. apply softmax_total, nonempty.
    - intros a b Ia Ib. rewrite (Z a Ia), (Z b Ib). reflexivity. }
  unfold DeltaH. rewrite Sum_zero; [ring|]. intros a Ia. unfold gap, dcov. rewrite <- P.
  unfold mean. rewrite (expect_ext acts _ z (fun _ => z a)) by (intros x Ix; apply Z; assumption).
  rewrite expect_const by apply softmax_total, nonempty. ring.
Qed.
End DeltaH.

(* ---- the function as the paper prints it: a sum over A* of Cov_pi(z, delta_{a*} - pi) ---- *)
Section Printed.
Context {A : Type} (acts : list A) (z : A -> R) (ok : A -> bool).
Hypothesis nonempty : acts <> [].
Hypothesis distinct : NoDup acts.
Variable eq_dec : forall x y : A, {x = y} + {x <> y}.

Definition printed (eta T : R) : R :=
  - eta * Sum (filter ok acts) (fun b => policy acts z T b *
    cov acts (softmax acts z) z (fun a => delta eq_dec a b - softmax acts z a)).

Theorem DeltaH_as_printed eta T : DeltaH acts z (indicator ok) eta T = printed eta T.
Proof.
  unfold DeltaH, printed. rewrite Sum_filter. f_equal. apply Sum_ext. intros b Ib.
  rewrite (covariance_as_printed acts z nonempty distinct eq_dec b Ib). unfold indicator, gap.
  destruct (ok b); ring.
Qed.
End Printed.
