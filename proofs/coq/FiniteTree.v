(* Random processes with finitely many outcomes a step: the histories of each length, their chances, and expectations
   over them. A process over any finite probability space is of this form. No claim of the paper is here. *)
From Coq Require Import Reals List Lra.
From AEPO Require Import Sums Expectation.
Import ListNotations.
Open Scope R_scope.

Section Tree.
Context {A : Type} (outcomes : list A) (p : list A -> A -> R).

(* all histories of n steps, the latest outcome first *)
Fixpoint histories (n : nat) : list (list A) :=
  match n with O => [[]] | S n' => flat_map (fun h => map (fun a => a :: h) outcomes) (histories n') end.

(* p h a is the chance of the outcome a after the history h *)
Fixpoint chance (h : list A) : R := match h with [] => 1 | a :: h' => chance h' * p h' a end.

Definition mean_after (n : nat) (f : list A -> R) : R := expect (histories n) chance f.

(* given the history h, the expectation after one step more *)
Definition next_mean (f : list A -> R) (h : list A) : R := expect outcomes (p h) (fun a => f (a :: h)).

Lemma mean_after_zero f : mean_after 0 f = f [].
Proof. unfold mean_after, expect. simpl. ring. Qed.

(* the tower property *)
Lemma mean_after_next n f : mean_after (S n) f = mean_after n (next_mean f).
Proof.
  unfold mean_after, next_mean, expect. simpl histories. rewrite Sum_flat_map. apply Sum_ext. intros h _.
  rewrite Sum_map, <- Sum_scal. apply Sum_ext. intros a _. simpl. ring.
Qed.

Hypothesis total : forall h, Sum outcomes (p h) = 1.
Hypothesis nonneg : forall h a, In a outcomes -> 0 <= p h a.

Lemma histories_are_outcomes n h : In h (histories n) -> length h = n /\ 0 <= chance h.
Proof.
  revert h. induction n as [|n IH]; simpl; intros h I.
  - destruct I as [<-|[]]. simpl. split; [reflexivity|lra].
  - apply in_flat_map in I. destruct I as [g [Ig I]]. apply in_map_iff in I. destruct I as [a [<- Ia]].
    destruct (IH g Ig) as [L C]. simpl. split; [f_equal; exact L|apply Rmult_le_pos; auto].
Qed.

Lemma chance_total n : Sum (histories n) chance = 1.
Proof.
  assert (Q : mean_after n (fun _ => 1) = 1).
  { induction n as [|n IH]; [apply mean_after_zero|]. rewrite mean_after_next, <- IH at 1.
    apply expect_ext. intros h _. apply (expect_const outcomes (p h) (total h) 1). }
  unfold mean_after, expect in Q. rewrite <- Q. apply Sum_ext. intros; ring.
Qed.

(* what happens with chance 0 does not count *)
Lemma mean_after_le n f g : (forall h, length h = n -> 0 < chance h -> f h <= g h) -> mean_after n f <= mean_after n g.
Proof.
  intros Q. apply Sum_le. intros h Ih. destruct (histories_are_outcomes n h Ih) as [L [C|C]].
  - apply Rmult_le_compat_l; [lra|apply Q; assumption].
  - rewrite <- C. lra.
Qed.

Lemma mean_after_plus n f g : mean_after n (fun h => f h + g h) = mean_after n f + mean_after n g.
Proof. apply expect_plus. Qed.

Lemma mean_after_scal n c f : mean_after n (fun h => c * f h) = c * mean_after n f.
Proof. apply expect_scal. Qed.

Lemma mean_after_const n c : mean_after n (fun _ => c) = c.
Proof. apply (expect_const (histories n) chance (chance_total n)). Qed.
End Tree.

(* sums over the steps 0 .. n - 1 *)
Lemma Sum_steps_next n f : Sum (seq 0 (S n)) f = Sum (seq 0 n) f + f n.
Proof. rewrite seq_S, Sum_app. simpl. ring. Qed.
