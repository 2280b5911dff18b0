(* What no controller can do: where the next step is random, the expected distance to any target that is fixed before
   it is at least the floor, the least over the allowed controls of the expected distance to the median; and so on
   average over the steps. The paper has no such claim. *)
From Coq Require Import Reals List Lra Lia.
From AEPO Require Import Sums Expectation FiniteTree.
Import ListNotations.
Open Scope R_scope.

(* ---- one distribution: the median is the nearest number on average ---- *)
Section Median.
Context {A : Type} (outcomes : list A) (p X : A -> R).

Definition deviation (c : R) : R := expect outcomes p (fun a => Rabs (X a - c)).

Definition at_most (c : R) : R := expect outcomes p (fun a => if Rle_dec (X a) c then 1 else 0).
Definition at_least (c : R) : R := expect outcomes p (fun a => if Rle_dec c (X a) then 1 else 0).
Definition is_median (m : R) : Prop := 1 / 2 <= at_most m /\ 1 / 2 <= at_least m.

Hypothesis total : Sum outcomes p = 1.
Hypothesis nonneg : forall a, In a outcomes -> 0 <= p a.

Lemma median_is_nearest m c : is_median m -> deviation m <= deviation c.
Proof.
  intros [Low High].
  assert (Side : forall (d : R) (one : A -> R), 0 <= d -> 1 / 2 <= expect outcomes p one ->
    (forall a, Rabs (X a - m) + d * (2 * one a - 1) <= Rabs (X a - c)) -> deviation m <= deviation c).
  { intros d one Hd Half Q.
    assert (T : expect outcomes p (fun a => (Rabs (X a - m) + 2 * d * one a) + - d) <= deviation c).
    { apply expect_le; [exact nonneg|]. intros a _. specialize (Q a). lra. }
    rewrite expect_shift, expect_plus, expect_scal in T by exact total. fold (deviation m) in T.
    assert (0 <= d * (2 * expect outcomes p one - 1)) by (apply Rmult_le_pos; lra). lra. }
  destruct (Rle_dec m c) as [L|L].
  - apply (Side (c - m) (fun a => if Rle_dec (X a) m then 1 else 0)); [lra|exact Low|].
    intros a. destruct (Rle_dec (X a) m) as [M|M].
    + rewrite (Rabs_left1 (X a - m)), (Rabs_left1 (X a - c)) by lra. lra.
    + rewrite (Rabs_right (X a - m)) by lra. assert (Q := Rle_abs (X a - c)). lra.
  - apply (Side (m - c) (fun a => if Rle_dec m (X a) then 1 else 0)); [lra|exact High|].
    intros a. destruct (Rle_dec m (X a)) as [M|M].
    + rewrite (Rabs_right (X a - m)), (Rabs_right (X a - c)) by lra. lra.
    + rewrite (Rabs_left (X a - m)) by lra. assert (Q := Rle_abs (- (X a - c))). rewrite Rabs_Ropp in Q. lra.
Qed.

(* one of the values is a median: the least that half of the chance is at or below *)
Lemma median_exists : exists a, In a outcomes /\ is_median (X a).
Proof.
  assert (Some_outcome : exists a, In a outcomes /\ True).
  { destruct outcomes as [|a l]; [simpl in total; lra|]. exists a. split; [left; reflexivity|exact I]. }
  destruct (argmin_ex (fun _ => True) (fun _ => left I) (fun a => - X a) outcomes Some_outcome) as [top [It [_ Top]]].
  assert (Full : at_most (X top) = 1).
  { rewrite <- (expect_const outcomes p total 1). apply expect_ext. intros a Ia. specialize (Top a Ia I).
    destruct (Rle_dec (X a) (X top)); [reflexivity|exfalso; lra]. }
  destruct (argmin_ex (fun a => 1 / 2 <= at_most (X a)) (fun a => Rle_dec _ _) X outcomes) as [a [Ia [Low Least]]].
  { exists top. split; [exact It|rewrite Full; lra]. }
  exists a. split; [exact Ia|split; [exact Low|]].
  destruct (Exists_dec (fun b => X b < X a) outcomes (fun b => Rlt_dec _ _)) as [E|E]; rewrite Exists_exists in E.
  - (* b: the largest value below; less than half of the chance is at or below it, the rest is at or above X a *)
    destruct (argmin_ex (fun b => X b < X a) (fun b => Rlt_dec _ _) (fun b => - X b) outcomes E)
      as [b [Ib [Below Next]]].
    assert (Rest : 1 <= at_most (X b) + at_least (X a)).
    { unfold at_most, at_least. rewrite <- expect_plus, <- (expect_const outcomes p total 1) at 1.
      apply expect_le; [exact nonneg|]. intros c Ic.
      destruct (Rle_dec (X c) (X b)); destruct (Rle_dec (X a) (X c)); try lra.
      exfalso. assert (Q := Next c Ic ltac:(lra)). lra. }
    destruct (Rle_dec (1 / 2) (at_most (X b))) as [Half|Half]; [|lra].
    assert (Q := Least b Ib Half). lra.
  - replace (at_least (X a)) with 1; [lra|]. rewrite <- (expect_const outcomes p total 1) at 1.
    apply expect_ext. intros c Ic. destruct (Rle_dec (X a) (X c)) as [Q|Q]; [reflexivity|].
    exfalso. apply E. exists c. split; [exact Ic|lra].
Qed.
End Median.

(* ---- one step: the least over the controls ---- *)
Section Controls.
Context {U A : Type} (controls : list U) (outcomes : list A) (p X : U -> A -> R).

(* under the control u the entropy after the step is X u a with the chance p u a *)
Definition is_floor (least : R) : Prop :=
  (exists u m, In u controls /\ is_median outcomes (p u) (X u) m /\ least = deviation outcomes (p u) (X u) m) /\
  (forall u m, In u controls -> is_median outcomes (p u) (X u) m -> least <= deviation outcomes (p u) (X u) m).

Hypothesis total : forall u, Sum outcomes (p u) = 1.
Hypothesis nonneg : forall u a, In a outcomes -> 0 <= p u a.

Theorem noise_floor_exists : controls <> [] -> exists least, is_floor least.
Proof.
  intros nonempty.
  assert (Dec : forall ua : U * A, {is_median outcomes (p (fst ua)) (X (fst ua)) (X (fst ua) (snd ua))} +
    {~ is_median outcomes (p (fst ua)) (X (fst ua)) (X (fst ua) (snd ua))}).
  { intros ua. unfold is_median.
    destruct (Rle_dec (1 / 2) (at_most outcomes (p (fst ua)) (X (fst ua)) (X (fst ua) (snd ua))));
      destruct (Rle_dec (1 / 2) (at_least outcomes (p (fst ua)) (X (fst ua)) (X (fst ua) (snd ua)))); tauto. }
  destruct (argmin_ex _ Dec (fun ua => deviation outcomes (p (fst ua)) (X (fst ua)) (X (fst ua) (snd ua)))
    (list_prod controls outcomes)) as [[u a] [I [M Least]]].
  { destruct controls as [|u us]; [congruence|].
    destruct (median_exists outcomes (p u) (X u) (total u) (nonneg u)) as [a [Ia M]].
    exists (u, a). split; [apply in_prod; [left; reflexivity|exact Ia]|exact M]. }
  apply in_prod_iff in I. destruct I as [Iu Ia]. simpl in M, Least.
  exists (deviation outcomes (p u) (X u) (X u a)). split; [exists u, (X u a); auto|].
  intros v m Iv Mv. destruct (median_exists outcomes (p v) (X v) (total v) (nonneg v)) as [b [Ib Mb]].
  apply Rle_trans with (deviation outcomes (p v) (X v) (X v b)).
  - apply (Least (v, b)); [apply in_prod; assumption|exact Mb].
  - apply median_is_nearest; [apply total|apply nonneg|exact Mb].
Qed.

(* a controller chooses each control with a chance of w; none is nearer to any target than the floor *)
Theorem noise_floor least (w : U -> R) target : is_floor least ->
  Sum controls w = 1 -> (forall u, In u controls -> 0 <= w u) ->
  least <= expect controls w (fun u => deviation outcomes (p u) (X u) target).
Proof.
  intros [_ Least] Total Nonneg. rewrite <- (expect_const controls w Total least) at 1.
  apply expect_le; [exact Nonneg|]. intros u Iu.
  destruct (median_exists outcomes (p u) (X u) (total u) (nonneg u)) as [a [_ M]].
  apply Rle_trans with (1 := Least u (X u a) Iu M). apply median_is_nearest; [apply total|apply nonneg|exact M].
Qed.

(* and for some target one control is as near as that *)
Theorem noise_floor_is_attained least : is_floor least ->
  exists u target, In u controls /\ deviation outcomes (p u) (X u) target = least.
Proof. intros [[u [m [Iu [_ E]]]] _]. exists u, m. split; [exact Iu|symmetry; exact E]. Qed.
End Controls.

(* ---- on average over the steps ---- *)

Lemma Sum_list_prod {U A} (us : list U) (l : list A) f :
  Sum (list_prod us l) f = Sum us (fun u => Sum l (fun a => f (u, a))).
Proof. induction us as [|u us IH]; simpl; [reflexivity|]. rewrite Sum_app, Sum_map, IH. reflexivity. Qed.

Section Steps.
Context {U A : Type} (controls : list U) (outcomes : list A).
(* a history holds the controls and the outcomes; what the controller chooses, what comes of it, the target of the next
   step and the floor may all depend on it *)
Notation history := (list (U * A)).
Variables (w : history -> U -> R) (p X : history -> U -> A -> R) (target floor : history -> R).
Hypothesis w_total : forall h, Sum controls (w h) = 1.
Hypothesis w_nonneg : forall h u, In u controls -> 0 <= w h u.
Hypothesis p_total : forall h u, Sum outcomes (p h u) = 1.
Hypothesis p_nonneg : forall h u a, In a outcomes -> 0 <= p h u a.
Hypothesis floors : forall h, is_floor controls outcomes (p h) (X h) (floor h).

Notation moves := (list_prod controls outcomes).
Definition move_chance (h : history) (ua : U * A) : R := w h (fst ua) * p h (fst ua) (snd ua).

(* how far the latest step ended from the target that was set before it *)
Definition miss (h : history) : R :=
  match h with [] => 0 | ua :: g => Rabs (X g (fst ua) (snd ua) - target g) end.

Lemma next_miss h : next_mean moves move_chance miss h
  = expect controls (w h) (fun u => deviation outcomes (p h u) (X h u) (target h)).
Proof.
  unfold next_mean, deviation, expect. rewrite Sum_list_prod. apply Sum_ext. intros u _.
  rewrite <- Sum_scal. apply Sum_ext. intros a _. unfold move_chance. simpl. ring.
Qed.

Lemma move_chance_nonneg h ua : In ua moves -> 0 <= move_chance h ua.
Proof.
  destruct ua as [u a]. intros I. apply in_prod_iff in I. destruct I as [Iu Ia].
  apply Rmult_le_pos; simpl; auto.
Qed.

(* so the moves after each history are a distribution *)
Lemma move_chance_total h : Sum moves (move_chance h) = 1.
Proof.
  rewrite Sum_list_prod, <- (w_total h). apply Sum_ext. intros u _. unfold move_chance. simpl.
  rewrite Sum_scal, p_total. ring.
Qed.

Theorem noise_floor_average n : (0 < n)%nat ->
  / INR n * Sum (seq 0 n) (fun k => mean_after moves move_chance k floor)
  <= / INR n * Sum (seq 0 n) (fun k => mean_after moves move_chance (S k) miss).
Proof.
  intros Hn. apply Rmult_le_compat_l; [left; apply Rinv_0_lt_compat, lt_0_INR, Hn|].
  apply Sum_le. intros k _. rewrite mean_after_next. apply mean_after_le; [exact move_chance_nonneg|].
  intros h _ _. rewrite next_miss. apply noise_floor; auto.
Qed.
End Steps.

(* The target must be fixed before the step: to one that follows the outcome the distance is nothing, and the floor of a
   fair coin is 1. *)
Theorem noise_floor_needs_a_target_fixed_before :
  let coin (b : bool) := if b then 1 else -1 in let half (_ : bool) := 1 / 2 in
  is_floor [tt] [true; false] (fun _ => half) (fun _ => coin) 1 /\
  expect [true; false] half (fun b => Rabs (coin b - coin b)) = 0.
Proof.
  intros coin half.
  assert (Total : Sum [true; false] half = 1) by (unfold half; simpl; lra).
  assert (Pos : forall b, In b [true; false] -> 0 <= half b) by (intros; unfold half; lra).
  assert (M : is_median [true; false] half coin 1).
  { unfold is_median, at_most, at_least, expect, half, coin. simpl.
    destruct (Rle_dec 1 1); destruct (Rle_dec (-1) 1); destruct (Rle_dec 1 (-1)); lra. }
  assert (D : deviation [true; false] half coin 1 = 1).
  { unfold deviation, expect, half, coin. simpl. replace (1 - 1) with 0 by ring. replace (-1 - 1) with (- (2)) by ring.
    rewrite Rabs_R0, Rabs_Ropp, Rabs_right by lra. lra. }
  split; [split|].
  - exists tt, 1. split; [left; reflexivity|split; [exact M|symmetry; exact D]].
  - intros u m _ Mm. rewrite <- D. apply (median_is_nearest [true; false] half coin Total Pos 1 m M).
  - unfold expect, half, coin. simpl. rewrite !Rminus_eq_0, Rabs_R0. lra.
Qed.
