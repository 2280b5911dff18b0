(* Assumption B.4 sets every feature norm c_a to 1 for convenience. Theorem 4.3 needs it: with c = (1, 20, 1, 1) an
   update that lowers the entropy has Delta H'(1) < 0. *)
From Coq Require Import Reals List Lra.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Expectation Softmax Covariance DeltaH Theorem_4_3 FirstOrder Counterexamples.
Import ListNotations.
Open Scope R_scope.

(* Delta H when logit a has squared feature norm c_a: each logit moves c_a times as far *)
Definition DeltaH_norms {A} (acts : list A) (z r c : A -> R) (eta T : R) : R :=
  - eta * Sum acts (fun a => policy acts z T a * r a *
    (c a * dcov acts z a - expect acts (softmax acts z) (fun x => c x * dcov acts z x))).

Theorem unequal_norms_first_order {A} (acts : list A) (z r c : A -> R) eta T : acts <> [] ->
  eta * - cov acts (softmax acts z) z (fun a => c a * step acts z r T a) = DeltaH_norms acts z r c eta T.
Proof.
  intros nonempty. rewrite cov_centred_left. fold (mean acts z). unfold DeltaH_norms.
  set (Cc := expect acts (softmax acts z) (fun x => c x * dcov acts z x)).
  rewrite (Sum_ext acts (fun a => policy acts z T a * r a * (c a * dcov acts z a - Cc))
    (fun a => policy acts z T a * r a * (c a * dcov acts z a) + (- Cc) * (policy acts z T a * r a)))
    by (intros; ring).
  unfold expect at 1.
  rewrite (Sum_ext acts (fun a => softmax acts z a * ((z a - mean acts z) * (c a * step acts z r T a)))
    (fun a => policy acts z T a * r a * (c a * dcov acts z a)
      + (- success acts z r T) * (softmax acts z a * (c a * dcov acts z a)))) by (intros; unfold step, dcov; ring).
  rewrite !Sum_plus, !Sum_scal. unfold success, Cc, expect. ring.
Qed.

(* logits (0, 0, 2, 3) ln(3/2), the first action correct, the second one's feature twenty times as long *)
Notation z := (logits (3 / 2)).
Notation L := (ln (3 / 2)).
Definition first : nat -> R := indicator (Nat.eqb 0).
Definition norms (a : nat) : R := match a with 1%nat => 20 | _ => 1 end.

Lemma first_alone eta T :
  DeltaH_norms four z first norms eta T = - (50418 / 226981 * (eta * L)) * policy four z T 0%nat.
Proof.
  destruct probabilities as [P0 [P1 [P2 P3]]]. unfold DeltaH_norms, expect, dcov. rewrite mean_value_of_z.
  cbn [four Sum]. rewrite P0, P1, P2, P3. cbn [logits norms]. unfold first, indicator. simpl. lra.
Qed.

Theorem theorem_4_3_needs_equal_norms eta : 0 < eta ->
  DeltaH_norms four z first norms eta 1 < 0 /\ Derive (DeltaH_norms four z first norms eta) 1 < 0.
Proof.
  intros He. assert (P := L_pos). assert (EL : 0 < eta * L) by (apply Rmult_lt_0_compat; lra).
  destruct probabilities as [P0 _]. split.
  - rewrite first_alone, policy_one, P0. lra.
  - rewrite (Derive_ext _ (fun T => - (50418 / 226981 * (eta * L)) * policy four z T 0%nat)) by apply first_alone.
    erewrite is_derive_unique; [|apply is_derive_scal, (is_derive_policy four z 1 four_nonempty Rlt_0_1 0%nat)].
    rewrite (mean_at_one four z), mean_value_of_z, policy_one, P0. cbn [logits].
    assert (E2 : 0 < (eta * L) * L) by (apply Rmult_lt_0_compat; assumption). lra.
Qed.
