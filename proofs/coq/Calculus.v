(* One-variable calculus on the real line: monotonicity from the sign of a derivative, a second-order Taylor bound
   with an explicit constant, and two elementary inequalities for exp and ln. No claim of the paper is here. *)
From Coq Require Import Reals Lra Psatz.
From Coquelicot Require Import Coquelicot.
Open Scope R_scope.

Lemma exp_le x y : x <= y -> exp x <= exp y.
Proof. intros [L|L]; [left; apply exp_increasing; exact L|subst; lra]. Qed.

Lemma ln_le_minus_one x : 0 < x -> ln x <= x - 1.
Proof. intros Hx. assert (Q := exp_ineq1_le (ln x)). rewrite exp_ln in Q by exact Hx. lra. Qed.

Lemma is_derive_continuity_pt f x l : is_derive f x l -> continuity_pt f x.
Proof. intros D. apply continuity_pt_filterlim, (ex_derive_continuous f). exists l. exact D. Qed.

Lemma mean_value (f f' : R -> R) a b : a < b -> (forall x, a <= x <= b -> is_derive f x (f' x)) ->
  exists c, a <= c <= b /\ f b - f a = f' c * (b - a).
Proof.
  intros H D. destruct (MVT_gen f a b f') as [c [Hc E]].
  - intros x Hx. rewrite Rmin_left, Rmax_right in Hx by lra. apply D. lra.
  - intros x Hx. rewrite Rmin_left, Rmax_right in Hx by lra. apply (is_derive_continuity_pt f x (f' x)), D. lra.
  - rewrite Rmin_left, Rmax_right in Hc by lra. exists c. split; [exact Hc|exact E].
Qed.

Lemma nondecreasing_of_derivative (f f' : R -> R) a b : a <= b ->
  (forall x, a <= x <= b -> is_derive f x (f' x)) -> (forall x, a <= x <= b -> 0 <= f' x) -> f a <= f b.
Proof.
  intros [H|H] D P; [|subst; lra].
  destruct (mean_value f f' a b H D) as [c [Hc E]]. assert (Q := P c Hc). nra.
Qed.

Lemma increasing_of_derivative (f f' : R -> R) a b : a < b ->
  (forall x, a <= x <= b -> is_derive f x (f' x)) -> (forall x, a <= x <= b -> 0 < f' x) -> f a < f b.
Proof.
  intros H D P. destruct (mean_value f f' a b H D) as [c [Hc E]]. assert (Q := P c Hc). nra.
Qed.

Lemma lipschitz_of_derivative (f f' : R -> R) M t : 0 <= t ->
  (forall x, is_derive f x (f' x)) -> (forall x, Rabs (f' x) <= M) -> Rabs (f t - f 0) <= M * t.
Proof.
  intros [H|H] D B.
  - destruct (mean_value f f' 0 t H (fun x _ => D x)) as [c [_ E]].
    rewrite E, Rminus_0_r, Rabs_mult, (Rabs_pos_eq t) by lra. apply Rmult_le_compat_r; [lra|apply B].
  - subst. rewrite Rminus_eq_0, Rabs_R0. lra.
Qed.

(* |f(t) - f(0) - t f'(0)| <= t^2 M / 2 when |f''| <= M *)
Lemma taylor_second_order (f f1 f2 : R -> R) M t : 0 <= t ->
  (forall x, is_derive f x (f1 x)) -> (forall x, is_derive f1 x (f2 x)) -> (forall x, Rabs (f2 x) <= M) ->
  Rabs (f t - f 0 - t * f1 0) <= t ^ 2 / 2 * M.
Proof.
  intros Ht D1 D2 B.
  assert (One_side : forall s, s = 1 \/ s = -1 -> s * (f t - f 0 - t * f1 0) <= t ^ 2 / 2 * M).
  { intros s Hs. set (g := fun x => M * x ^ 2 / 2 - s * (f x - x * f1 0)).
    assert (Q : g 0 <= g t).
    { apply (nondecreasing_of_derivative g (fun x => M * x - s * (f1 x - f1 0))); [exact Ht| |].
      - intros x _. unfold g. apply (is_derive_minus (fun x => M * x ^ 2 / 2) (fun x => s * (f x - x * f1 0))).
        + auto_derive; [trivial|field].
        + apply is_derive_scal. apply (is_derive_minus f (fun x => x * f1 0)); [apply D1|].
          auto_derive; [trivial|ring].
      - intros x Hx. assert (L := lipschitz_of_derivative f1 f2 M x (proj1 Hx) D2 B).
        apply Rabs_le_between in L. destruct Hs; subst; lra. }
    unfold g in Q. nra. }
  assert (P := One_side 1 (or_introl eq_refl)). assert (N := One_side (-1) (or_intror eq_refl)).
  apply Rabs_le. lra.
Qed.

Lemma below_on_the_left (f : R -> R) x l : is_derive f x l -> 0 < l ->
  exists eps, 0 < eps /\ forall y, x - eps < y < x -> f y < f x.
Proof.
  intros D L. apply is_derive_Reals in D. destruct (D l L) as [del Hd].
  exists del. split; [apply cond_pos|]. intros y Hy.
  assert (Q := Hd (y - x) ltac:(lra) ltac:(rewrite Rabs_left; lra)).
  replace (x + (y - x)) with y in Q by ring. apply Rabs_lt_between in Q.
  assert (P : 0 < (f y - f x) / (y - x)) by lra.
  replace (f y) with (f x + (f y - f x) / (y - x) * (y - x)) by (field; lra). nra.
Qed.
