(* When one action is correct, temperature cannot turn the update: its direction is e_a - pi whatever T is, only its
   length pi^T_a changes, so Delta H keeps the sign that it has at T = 1. Control needs several correct actions. *)
From Coq Require Import Reals List Lra Psatz.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance DeltaH FirstOrder.
Import ListNotations.
Open Scope R_scope.

Section OneCorrect.
Context {A : Type} (acts : list A) (z : A -> R) (right : A).
Hypothesis nonempty : acts <> [].
Hypothesis distinct : NoDup acts.
Hypothesis listed : In right acts.
Variable eq_dec : forall x y : A, {x = y} + {x <> y}.
Notation r := (fun a => delta eq_dec a right).

(* the sum over A* is one term *)
Theorem one_correct_formula eta T :
  DeltaH acts z r eta T = - eta * (policy acts z T right * gap acts z right).
Proof.
  unfold DeltaH. f_equal.
  rewrite (Sum_ext acts _ (fun a => policy acts z T a * gap acts z a * delta eq_dec a right)) by (intros; ring).
  apply (Sum_delta eq_dec (fun a => policy acts z T a * gap acts z a) right acts distinct listed).
Qed.

Theorem one_correct_step T a :
  step acts z r T a = policy acts z T right * (delta eq_dec a right - softmax acts z a).
Proof.
  unfold step, success, expect. rewrite (Sum_delta eq_dec (policy acts z T) right acts distinct listed).
  replace (policy acts z T a * delta eq_dec a right) with (policy acts z T right * delta eq_dec a right); [ring|].
  unfold delta. destruct (eq_dec a right); [subst; ring|ring].
Qed.

Theorem one_correct_ratio eta T :
  DeltaH acts z r eta T = policy acts z T right / softmax acts z right * DeltaH acts z r eta 1.
Proof.
  rewrite !one_correct_formula, (policy_one acts z right). field.
  apply Rgt_not_eq, softmax_pos, nonempty.
Qed.

(* so the entropy falls at every temperature if it falls at one *)
Theorem one_correct_sign eta T : DeltaH acts z r eta 1 < 0 <-> DeltaH acts z r eta T < 0.
Proof.
  rewrite (one_correct_ratio eta T).
  assert (P : 0 < policy acts z T right / softmax acts z right)
    by (apply Rdiv_lt_0_compat; apply softmax_pos, nonempty).
  split; intros; nra.
Qed.
End OneCorrect.
