(* How much entropy correctness allows: H <= h(J) + J ln|A*| + (1 - J) ln(K - |A*|) with J the probability of A*, so the
   entropy that the paper calls arbitrary ends at ln|A*| where every answer is correct. The paper has no such claim. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation.
Import ListNotations.
Open Scope R_scope.

(* h(J), with 0 ln 0 = 0 *)
Definition binary_entropy (J : R) : R := - (J * ln J) - (1 - J) * ln (1 - J).

(* a part of total probability P on a list of n actions has at most -P ln P + P ln n of the entropy *)
Lemma part_entropy {A} (l : list A) (p : A -> R) : (forall a, In a l -> 0 <= p a) ->
  - Sum l (fun a => p a * ln (p a)) <= Sum l p * ln (INR (length l)) - Sum l p * ln (Sum l p).
Proof.
  intros P. assert (SP := Sum_nonneg l p P). set (s := Sum l p) in *.
  destruct SP as [SP|SZ].
  2:{ rewrite <- SZ, Sum_zero; [lra|]. intros a Ia.
      rewrite (Sum_zero_term l p a P (eq_sym SZ) Ia). ring. }
  assert (N : 0 < INR (length l)).
  { destruct l as [|x l]; [unfold s in SP; simpl in SP; lra|]. apply lt_0_INR. simpl. apply Nat.lt_0_succ. }
  set (n := INR (length l)) in *. set (q := s / n). assert (Q : 0 < q) by (apply Rdiv_lt_0_compat; assumption).
  assert (LQ : ln q = ln s - ln n) by (apply ln_div; assumption).
  assert (T : - Sum l (fun a => p a * ln (p a)) <= Sum l (fun a => (- ln q - 1) * p a + q)).
  { rewrite <- (Rmult_1_l (Sum l (fun a => p a * ln (p a)))), Ropp_mult_distr_l, <- Sum_scal.
    apply Sum_le. intros a Ia. destruct (P a Ia) as [Pa|Za].
    - assert (L := ln_le_minus_one (q / p a) (Rdiv_lt_0_compat _ _ Q Pa)). rewrite ln_div in L by assumption.
      assert (p a * (ln q - ln (p a)) <= q - p a).
      { replace (q - p a) with (p a * (q / p a - 1)) by (field; lra). apply Rmult_le_compat_l; lra. }
      lra.
    - rewrite <- Za. lra. }
  rewrite Sum_plus, Sum_scal, Sum_const in T. fold s n in T.
  replace (n * q) with s in T by (unfold q; field; lra). rewrite LQ in T. lra.
Qed.

Section Ceiling.
Context {A : Type} (acts : list A) (p : A -> R) (ok : A -> bool).
Hypothesis nonneg : forall a, In a acts -> 0 <= p a.
Hypothesis total : Sum acts p = 1.
Notation correct := (filter ok acts).
Notation wrong := (filter (fun a => negb (ok a)) acts).
Notation J := (Sum correct p).

Theorem entropy_ceiling :
  entropy acts p <= binary_entropy J + J * ln (INR (length correct)) + (1 - J) * ln (INR (length wrong)).
Proof.
  assert (JW : Sum wrong p = 1 - J) by (rewrite <- total, (Sum_split ok acts p); ring).
  assert (Sub : forall f a, In a (filter f acts) -> 0 <= p a).
  { intros f a I. apply nonneg. apply filter_In in I. tauto. }
  assert (R := part_entropy correct p (Sub _)). assert (W := part_entropy wrong p (Sub _)). rewrite JW in W.
  unfold entropy, binary_entropy. rewrite (Sum_split ok acts (fun a => p a * ln (p a))). lra.
Qed.

Lemma wrong_count : INR (length wrong) = INR (length acts) - INR (length correct).
Proof.
  assert (Q := Sum_split ok acts (fun _ => 1)). rewrite !Sum_const, !Rmult_1_r in Q. lra.
Qed.

(* with the number of wrong actions written as K - |A*| *)
Corollary entropy_ceiling_counts :
  entropy acts p <= binary_entropy J + J * ln (INR (length correct))
    + (1 - J) * ln (INR (length acts) - INR (length correct)).
Proof. rewrite <- wrong_count. apply entropy_ceiling. Qed.

(* a policy that is always right has at most ln|A*| of entropy *)
Corollary entropy_ceiling_all_right : J = 1 -> entropy acts p <= ln (INR (length correct)).
Proof.
  intros HJ. assert (Q := entropy_ceiling). rewrite HJ in Q. unfold binary_entropy in Q.
  rewrite Rminus_eq_0, ln_1 in Q. lra.
Qed.
End Ceiling.
