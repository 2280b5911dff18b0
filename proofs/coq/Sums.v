(* Finite sums over a list of actions: the algebra, positivity and derivative rules that every other file uses.
   No claim of the paper is here. *)
From Coq Require Import Reals List Lra Lia.
From Coquelicot Require Import Coquelicot.
Import ListNotations.
Open Scope R_scope.

Fixpoint Sum {A : Type} (l : list A) (f : A -> R) : R :=
  match l with [] => 0 | a :: l' => f a + Sum l' f end.

Section FiniteSums.
Context {A : Type}.
Implicit Types (l : list A) (f g : A -> R).

(* ---- algebra ---- *)

Lemma Sum_ext l f g : (forall a, In a l -> f a = g a) -> Sum l f = Sum l g.
Proof.
  induction l as [|a l IH]; simpl; intros E; [reflexivity|].
  rewrite (E a), IH by auto. reflexivity.
Qed.

Lemma Sum_plus l f g : Sum l (fun a => f a + g a) = Sum l f + Sum l g.
Proof. induction l as [|a l IH]; simpl; [lra|rewrite IH; lra]. Qed.

Lemma Sum_scal l c f : Sum l (fun a => c * f a) = c * Sum l f.
Proof. induction l as [|a l IH]; simpl; [lra|rewrite IH; lra]. Qed.

Lemma Sum_const l c : Sum l (fun _ => c) = INR (length l) * c.
Proof. induction l as [|a l IH]; [simpl; ring|]. cbn [Sum length]. rewrite IH, S_INR. ring. Qed.

Lemma Sum_zero l f : (forall a, In a l -> f a = 0) -> Sum l f = 0.
Proof.
  intros E. rewrite (Sum_ext l f (fun _ => 0) E), Sum_const. ring.
Qed.

Lemma Sum_filter (ok : A -> bool) l f :
  Sum (filter ok l) f = Sum l (fun a => if ok a then f a else 0).
Proof. induction l as [|a l IH]; simpl; [reflexivity|]. destruct (ok a); simpl; rewrite IH; lra. Qed.

Lemma Sum_split (ok : A -> bool) l f :
  Sum l f = Sum (filter ok l) f + Sum (filter (fun a => negb (ok a)) l) f.
Proof. induction l as [|a l IH]; simpl; [lra|]. destruct (ok a); simpl; rewrite IH; lra. Qed.

Lemma Sum_app l l' f : Sum (l ++ l') f = Sum l f + Sum l' f.
Proof. induction l as [|a l IH]; simpl; [lra|rewrite IH; lra]. Qed.

Lemma Sum_map {C} (l : list C) (g : C -> A) f : Sum (map g l) f = Sum l (fun c => f (g c)).
Proof. induction l as [|a l IH]; simpl; [reflexivity|rewrite IH; reflexivity]. Qed.

Lemma Sum_flat_map {C} (l : list C) (g : C -> list A) f : Sum (flat_map g l) f = Sum l (fun c => Sum (g c) f).
Proof. induction l as [|a l IH]; simpl; [reflexivity|rewrite Sum_app, IH; reflexivity]. Qed.

(* ---- order ---- *)

Lemma Sum_le l f g : (forall a, In a l -> f a <= g a) -> Sum l f <= Sum l g.
Proof.
  induction l as [|a l IH]; simpl; intros H; [lra|].
  assert (f a <= g a) by auto. assert (Sum l f <= Sum l g) by auto. lra.
Qed.

Lemma Sum_nonneg l f : (forall a, In a l -> 0 <= f a) -> 0 <= Sum l f.
Proof. intros H. rewrite <- (Sum_zero l (fun _ => 0)) by reflexivity. apply Sum_le, H. Qed.

Lemma Sum_term l f b : (forall a, In a l -> 0 <= f a) -> In b l -> f b <= Sum l f.
Proof.
  induction l as [|x l IH]; simpl; intros H Hb; [destruct Hb|].
  assert (0 <= f x) by auto. assert (0 <= Sum l f) by (apply Sum_nonneg; auto).
  destruct Hb as [->|Hb]; [lra|]. assert (f b <= Sum l f) by auto. lra.
Qed.

(* one strict inequality among weak ones makes the sums' inequality strict *)
Lemma Sum_lt l f g b : (forall a, In a l -> f a <= g a) -> In b l -> f b < g b -> Sum l f < Sum l g.
Proof.
  intros H Hb Hlt.
  assert (T : g b - f b <= Sum l (fun a => g a + (-1) * f a)).
  { replace (g b - f b) with (g b + (-1) * f b) by ring.
    apply (Sum_term l (fun a => g a + (-1) * f a)); [|exact Hb]. intros a Ia. specialize (H a Ia). lra. }
  rewrite Sum_plus, Sum_scal in T. lra.
Qed.

Lemma Sum_pos_at l f b : (forall a, In a l -> 0 <= f a) -> In b l -> 0 < f b -> 0 < Sum l f.
Proof. intros H Hb Hlt. apply Rlt_le_trans with (1 := Hlt). apply Sum_term; assumption. Qed.

Lemma Sum_pos l f : l <> [] -> (forall a, In a l -> 0 < f a) -> 0 < Sum l f.
Proof.
  destruct l as [|a l]; intros Hne H; [congruence|].
  apply (Sum_pos_at _ _ a); [intros; left; auto|left; reflexivity|apply H; left; reflexivity].
Qed.

Lemma Sum_pos_ex l f : 0 < Sum l f -> exists a, In a l /\ 0 < f a.
Proof.
  induction l as [|a l IH]; simpl; intros H; [lra|].
  destruct (Rlt_dec 0 (f a)); [exists a; auto|].
  destruct IH as [b [Ib Hb]]; [lra|]. exists b; auto.
Qed.

Lemma Sum_zero_term l f b : (forall a, In a l -> 0 <= f a) -> Sum l f = 0 -> In b l -> f b = 0.
Proof. intros H E Hb. assert (T := Sum_term l f b H Hb). specialize (H b Hb). lra. Qed.

(* a member of l that satisfies P and has the least h among those that do *)
Lemma argmin_ex (P : A -> Prop) (P_dec : forall a, {P a} + {~ P a}) (h : A -> R) l :
  (exists a, In a l /\ P a) ->
  exists a0, In a0 l /\ P a0 /\ forall a, In a l -> P a -> h a0 <= h a.
Proof.
  induction l as [|x l IH]; intros [a [Ha Pa]]; [destruct Ha|].
  destruct (Exists_dec P l P_dec) as [E|E]; rewrite Exists_exists in E.
  - destruct (IH E) as [a0 [I0 [P0 M0]]].
    destruct (P_dec x) as [Px|Px]; [destruct (Rle_dec (h x) (h a0)) as [L|L]|].
    + exists x. split; [left; reflexivity|split; [exact Px|]].
      intros b [->|Hb] Pb; [lra|]. specialize (M0 b Hb Pb). lra.
    + exists a0. split; [right; exact I0|split; [exact P0|]]. intros b [->|Hb] Pb; [lra|auto].
    + exists a0. split; [right; exact I0|split; [exact P0|]]. intros b [->|Hb] Pb; [contradiction|auto].
  - destruct Ha as [->|Ha]; [|exfalso; eauto].
    exists a. split; [left; reflexivity|split; [exact Pa|]]. intros b [->|Hb] Pb; [lra|exfalso; eauto].
Qed.

(* ---- derivative ---- *)

Lemma is_derive_Sum l (f : R -> A -> R) (df : A -> R) x :
  (forall a, In a l -> is_derive (fun t => f t a) x (df a)) ->
  is_derive (fun t => Sum l (f t)) x (Sum l df).
Proof.
  induction l as [|a l IH]; simpl; intros H.
  - apply (is_derive_const (K:=R_AbsRing) (V:=R_NormedModule) 0 x).
  - apply (is_derive_plus (fun t => f t a) (fun t => Sum l (f t))); auto.
Qed.
End FiniteSums.
