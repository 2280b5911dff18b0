(* Theorem 4.3, first half (Eq. 5 and 6 of the paper), without the approximation signs: along z + t v the entropy has
   derivative -Cov(z, v), and for the update of Eq. 4 this is Delta H(T) / eta. Remainder.v bounds what is left out. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance DeltaH.
Import ListNotations.
Open Scope R_scope.

(* logits after a step of length t in direction v, and the entropy there *)
Definition moved {A} (z v : A -> R) (t : R) (a : A) : R := z a + t * v a.
Definition entropy_along {A} (acts : list A) (z v : A -> R) (t : R) : R := entropy acts (softmax acts (moved z v t)).

(* S_T, the sampled reward; and Eq. 5: eta * step is the change of the logits *)
Definition success {A} (acts : list A) (z r : A -> R) (T : R) : R := expect acts (policy acts z T) r.
Definition step {A} (acts : list A) (z r : A -> R) (T : R) (a : A) : R :=
  policy acts z T a * r a - success acts z r T * softmax acts z a.

Section Path.
Context {A : Type} (acts : list A) (z v : A -> R).
Hypothesis nonempty : acts <> [].
Notation p t := (softmax acts (moved z v t)).
Notation E t := (expect acts (p t)).

Lemma is_derive_moved t a : is_derive (fun t => moved z v t a) t (v a).
Proof. unfold moved. auto_derive; [trivial|ring]. Qed.

Theorem entropy_first_derivative t :
  is_derive (entropy_along acts z v) t (- cov acts (p t) (moved z v t) v).
Proof. apply (is_derive_entropy acts (moved z v)); [exact nonempty|apply is_derive_moved]. Qed.

Theorem entropy_second_derivative t :
  is_derive (fun t => - cov acts (p t) (moved z v t) v) t
    (- E t (fun a => (1 + (moved z v t a - E t (moved z v t))) * (v a - E t v) ^ 2)).
Proof.
  assert (total := softmax_total acts (moved z v t) nonempty).
  set (dv := fun a => v a - E t v).
  assert (D0 := fun f f' => is_derive_expect acts (moved z v) v t nonempty (is_derive_moved t) f f').
  assert (Dzv : is_derive (fun t => E t (fun a => moved z v t a * v a)) t
    (E t (fun a => moved z v t a * v a * dv a + v a * v a))).
  { apply (D0 (fun t a => moved z v t a * v a)). intros a _.
    apply (is_derive_ext (fun t => v a * moved z v t a)); [intros; simpl; ring|].
    apply is_derive_scal, is_derive_moved. }
  assert (Dz : is_derive (fun t => E t (moved z v t)) t (E t (fun a => moved z v t a * dv a + v a))).
  { apply (D0 (moved z v)). intros a _. apply is_derive_moved. }
  assert (Dv : is_derive (fun t => E t v) t (E t (fun a => v a * dv a + 0))).
  { apply (D0 (fun _ => v) (fun _ => 0)). intros a _. apply (is_derive_const (K:=R_AbsRing) (V:=R_NormedModule)). }
  unfold cov. evar_last.
  - apply (is_derive_opp (fun t => E t (fun a => moved z v t a * v a) - E t (moved z v t) * E t v)).
    apply (is_derive_minus (fun t => E t (fun a => moved z v t a * v a)) (fun t => E t (moved z v t) * E t v));
      [exact Dzv|].
    apply (is_derive_mult (fun t => E t (moved z v t)) (fun t => E t v)); [exact Dz|exact Dv|].
    intros; apply Rmult_comm.
  - unfold opp, minus, plus, opp, mult; simpl; unfold mult; simpl. f_equal.
    assert (Z : E t dv = 0) by exact (expect_centred acts (p t) total v).
    assert (V : E t (fun a => v a * dv a) = E t (fun a => v a * v a) - E t v * E t v).
    { rewrite (expect_ext acts (p t) (fun a => v a * dv a) (fun a => v a * v a + (- E t v) * v a))
        by (intros; unfold dv; ring). rewrite expect_plus, expect_scal. ring. }
    set (Ew := E t (moved z v t)) in *.
    rewrite (expect_ext acts (p t) (fun a => (1 + (moved z v t a - Ew)) * ((v a - E t v) * ((v a - E t v) * 1)))
      (fun a => moved z v t a * v a * dv a + ((- E t v) * (moved z v t a * dv a)
        + ((1 - Ew) * (v a * dv a) + (- (1 - Ew) * E t v) * dv a)))) by (intros; unfold dv; ring).
    rewrite !expect_plus, !expect_scal, Z, V, (expect_const acts (p t) total). ring.
Qed.
End Path.

(* Eq. 6 with Eq. 5 put in: the directional derivative along the paper's step is Delta H *)
Theorem first_order_identity {A} (acts : list A) (z r : A -> R) eta T : acts <> [] ->
  eta * - cov acts (softmax acts z) z (step acts z r T) = DeltaH acts z r eta T.
Proof.
  intros nonempty. rewrite cov_centred_left. fold (mean acts z). unfold DeltaH, gap.
  rewrite (Sum_ext acts (fun a => policy acts z T a * r a * (dcov acts z a - Ccov acts z))
    (fun a => policy acts z T a * r a * dcov acts z a + (- Ccov acts z) * (policy acts z T a * r a)))
    by (intros; ring).
  unfold expect at 1. rewrite (Sum_ext acts (fun a => softmax acts z a * ((z a - mean acts z) * step acts z r T a))
    (fun a => policy acts z T a * r a * dcov acts z a
      + (- success acts z r T) * (softmax acts z a * dcov acts z a))) by (intros; unfold step, dcov; ring).
  rewrite !Sum_plus, !Sum_scal. unfold success, Ccov, expect. ring.
Qed.
