(* How the sign of Delta H depends on the temperature, with no premise: each state has at most one temperature at
   which Delta H changes sign, from falling entropy below it to rising entropy above it (behind Corollary 4.4). *)
From Coq Require Import Reals List Lra Psatz Ranalysis5 Classical_Prop.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance Threshold DeltaH.
Import ListNotations.
Open Scope R_scope.

Section OneThreshold.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].
Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.
Notation tau0 := (tau acts z).
Notation DH := (DeltaH acts z r).
Notation ZT T := (partition acts (fun a => z a / T)).

(* Delta H without its positive factors: a sum that can only fall as T rises *)
Definition weighed (T : R) : R := Sum acts (fun a => exp ((z a - tau0) / T) * (r a * gap acts z a)).

Lemma DeltaH_weighed eta T : 0 < T -> DH eta T * ZT T = - eta * exp (tau0 / T) * weighed T.
Proof.
  intros HT. unfold DeltaH, weighed.
  replace (- eta * Sum acts (fun a => policy acts z T a * r a * gap acts z a) * ZT T)
    with (- eta * (ZT T * Sum acts (fun a => policy acts z T a * r a * gap acts z a))) by ring.
  rewrite Rmult_assoc, <- !Sum_scal. apply Sum_ext. intros a _.
  replace ((z a - tau0) / T) with (z a / T + - (tau0 / T)) by (field; lra). rewrite exp_plus, exp_Ropp.
  assert (P := partition_pos acts (fun x => z x / T) nonempty). assert (E := exp_pos (tau0 / T)).
  unfold policy, softmax. field. lra.
Qed.

Lemma tilt_term T1 T2 a : 0 < T1 -> T1 <= T2 -> In a acts ->
  exp ((z a - tau0) / T2) * (r a * gap acts z a) <= exp ((z a - tau0) / T1) * (r a * gap acts z a).
Proof.
  intros H1 H2 Ia. assert (S := gap_sign acts z nonempty a). fold (gap acts z a) in S.
  assert (Hr := reward_nonneg a Ia). assert (Q : / T2 <= / T1) by (apply Rinv_le_contravar; lra).
  unfold Rdiv. destruct (Rtotal_order (z a) tau0) as [L|[L|L]].
  - assert (gap acts z a <= 0) by nra. assert (r a * gap acts z a <= 0) by nra.
    assert (exp ((z a - tau0) * / T1) <= exp ((z a - tau0) * / T2)) by (apply exp_le; nra). nra.
  - rewrite L, Rminus_eq_0, !Rmult_0_l. lra.
  - assert (0 <= gap acts z a) by nra. assert (0 <= r a * gap acts z a) by (apply Rmult_le_pos; lra).
    assert (exp ((z a - tau0) * / T2) <= exp ((z a - tau0) * / T1)) by (apply exp_le; nra). nra.
Qed.

Lemma weighed_nonincreasing T1 T2 : 0 < T1 -> T1 <= T2 -> weighed T2 <= weighed T1.
Proof. intros H1 H2. apply Sum_le. intros a Ia. apply tilt_term; assumption. Qed.

Lemma weighed_decreasing T1 T2 a : In a acts -> 0 < r a -> z a <> tau0 -> 0 < T1 -> T1 < T2 ->
  weighed T2 < weighed T1.
Proof.
  intros Ia Hr N H1 H2. apply (Sum_lt acts _ _ a); [|exact Ia|].
  - intros x Ix. apply tilt_term; [exact H1|lra|exact Ix].
  - assert (Q : / T2 < / T1) by (apply Rinv_lt_contravar; [apply Rmult_lt_0_compat; lra|exact H2]).
    unfold Rdiv. destruct (Rtotal_order (z a) tau0) as [L|[L|L]]; [|contradiction|].
    + assert (G := proj1 (below_threshold acts z nonempty a) L).
      assert (r a * gap acts z a < 0) by (unfold gap; nra).
      assert (exp ((z a - tau0) * / T1) < exp ((z a - tau0) * / T2)) by (apply exp_increasing; nra). nra.
    + assert (G := proj1 (above_threshold acts z nonempty a) L).
      assert (0 < r a * gap acts z a) by (unfold gap; nra).
      assert (exp ((z a - tau0) * / T2) < exp ((z a - tau0) * / T1)) by (apply exp_increasing; nra). nra.
Qed.

Lemma DeltaH_sign eta T : 0 < eta -> 0 < T ->
  (DH eta T < 0 <-> 0 < weighed T) /\ (DH eta T = 0 <-> weighed T = 0) /\ (0 < DH eta T <-> weighed T < 0).
Proof.
  intros He HT. assert (Q := DeltaH_weighed eta T HT).
  assert (P := partition_pos acts (fun a => z a / T) nonempty). assert (E := exp_pos (tau0 / T)).
  assert (F : 0 < eta * exp (tau0 / T)) by (apply Rmult_lt_0_compat; assumption).
  set (D := DH eta T) in *. set (W := weighed T) in *. set (Z := ZT T) in *. set (e := eta * exp (tau0 / T)) in *.
  assert (R : D * Z = - (e * W)) by (rewrite Q; unfold e; ring).
  destruct (Rtotal_order D 0) as [L|[L|L]]; destruct (Rtotal_order W 0) as [M|[M|M]]; try (exfalso; nra);
    repeat split; intros; lra.
Qed.

(* the sign of Delta H is monotone in T on (0, oo) *)
Theorem sign_monotone eta T1 T2 : 0 < eta -> 0 < T1 -> T1 <= T2 -> 0 <= DH eta T1 -> 0 <= DH eta T2.
Proof.
  intros He H1 H2 HD. apply Rnot_lt_le. intros N.
  destruct (DeltaH_sign eta T2 He ltac:(lra)) as [S2 _]. destruct (DeltaH_sign eta T1 He H1) as [S1 _].
  assert (W := weighed_nonincreasing T1 T2 H1 H2). apply S2 in N. assert (DH eta T1 < 0) by (apply S1; lra). lra.
Qed.

(* strictly so as soon as one rewarded action is off the threshold *)
Theorem sign_strictly_monotone eta T1 T2 a : In a acts -> 0 < r a -> z a <> tau0 ->
  0 < eta -> 0 < T1 -> T1 < T2 -> 0 <= DH eta T1 -> 0 < DH eta T2.
Proof.
  intros Ia Hr N He H1 H2 HD.
  destruct (DeltaH_sign eta T2 He ltac:(lra)) as [_ [_ S2]]. destruct (DeltaH_sign eta T1 He H1) as [S1 _].
  assert (W := weighed_decreasing T1 T2 a Ia Hr N H1 H2). apply S2.
  destruct (Rlt_dec 0 (weighed T1)) as [P|P]; [apply S1 in P; lra|lra].
Qed.

Lemma DeltaH_continuous eta T : 0 < T -> continuity_pt (DH eta) T.
Proof. intros HT. eapply is_derive_continuity_pt, is_derive_DeltaH; assumption. Qed.

(* existence: Delta H vanishes, or keeps one sign, or changes sign once, at some T0 *)
Theorem one_threshold eta : 0 < eta ->
  (forall T, 0 < T -> DH eta T = 0) \/ (forall T, 0 < T -> DH eta T < 0) \/ (forall T, 0 < T -> 0 < DH eta T) \/
  exists T0, 0 < T0 /\ DH eta T0 = 0 /\
    (forall T, 0 < T < T0 -> DH eta T < 0) /\ (forall T, T0 < T -> 0 < DH eta T).
Proof.
  intros He.
  destruct (classic (exists a, In a acts /\ 0 < r a /\ z a <> tau0)) as [[a [Ia [Hr N]]]|N].
  2:{ left. intros T HT. apply (DeltaH_sign eta T He HT). apply Sum_zero. intros a Ia.
      destruct (Req_dec (r a) 0) as [E|E]; [rewrite E; ring|].
      assert (Z : z a = tau0).
      { apply NNPP. intros H. apply N. exists a. assert (Q := reward_nonneg a Ia).
        repeat split; [exact Ia|lra|exact H]. }
      apply (at_threshold acts z nonempty) in Z. unfold gap. rewrite Z. ring. }
  right.
  assert (Up : forall T1 T2, 0 < T1 -> T1 < T2 -> 0 <= DH eta T1 -> 0 < DH eta T2)
    by (intros; apply (sign_strictly_monotone eta T1 T2 a); assumption).
  assert (At_zero : forall T0, 0 < T0 -> DH eta T0 = 0 ->
    (forall T, 0 < T < T0 -> DH eta T < 0) /\ (forall T, T0 < T -> 0 < DH eta T)).
  { intros T0 H0 Z. split; intros T HT; [|apply (Up T0); lra].
    apply Rnot_le_lt. intros P. assert (Q := Up T T0 (proj1 HT) (proj2 HT) P). lra. }
  destruct (classic (exists T0, 0 < T0 /\ DH eta T0 = 0)) as [[T0 [H0 Z]]|NZ].
  { right; right. exists T0. destruct (At_zero T0 H0 Z). auto. }
  assert (Off : forall T, 0 < T -> DH eta T <> 0) by (intros T HT E; apply NZ; exists T; auto).
  destruct (classic (exists T1, 0 < T1 /\ DH eta T1 < 0)) as [[T1 [H1 S1]]|NN].
  - left. intros T HT. apply Rnot_le_lt. intros P. apply NZ.
    assert (P' : 0 < DH eta T) by (assert (Q := Off T HT); lra).
    assert (L : T1 < T).
    { apply Rnot_le_lt. intros [L|L]; [assert (Q := Up T T1 HT L P); lra|subst; lra]. }
    destruct (IVT_interv (DH eta) T1 T) as [T0 [H0 Z]]; try assumption.
    { intros x Hx. apply DeltaH_continuous. lra. }
    exists T0. split; [lra|exact Z].
  - right; left. intros T HT. destruct (Rtotal_order (DH eta T) 0) as [L|[L|L]]; [|apply Off in L; tauto|exact L].
    exfalso. apply NN. exists T. auto.
Qed.

(* some temperature raises the entropy exactly when the untilted sum over A* does, which is the limit T -> oo *)
Theorem some_temperature_raises eta : 0 < eta ->
  ((exists T, 0 < T /\ 0 < DH eta T) <-> Sum acts (fun a => r a * gap acts z a) < 0).
Proof.
  intros He. set (cooled := fun b => Sum acts (fun a => exp ((z a - tau0) * b) * (r a * gap acts z a))).
  assert (Limit : cooled 0 = Sum acts (fun a => r a * gap acts z a)).
  { apply Sum_ext. intros. rewrite Rmult_0_r, exp_0. ring. }
  split.
  - intros [T [HT P]]. apply (DeltaH_sign eta T He HT) in P. apply Rle_lt_trans with (2 := P).
    rewrite <- Limit. apply Sum_le. intros a Ia. rewrite Rmult_0_r, exp_0, Rmult_1_l.
    assert (S := gap_sign acts z nonempty a). fold (gap acts z a) in S. assert (Hr := reward_nonneg a Ia).
    assert (HI : 0 < / T) by (apply Rinv_0_lt_compat, HT). assert (E1 := exp_ineq1_le ((z a - tau0) / T)).
    unfold Rdiv in *. destruct (Rtotal_order (z a) tau0) as [L|[L|L]].
    + assert (exp ((z a - tau0) * / T) <= exp 0) by (apply exp_le; nra). rewrite exp_0 in *.
      assert (gap acts z a <= 0) by nra. assert (r a * gap acts z a <= 0) by nra. nra.
    + rewrite L, Rminus_eq_0, Rmult_0_l, exp_0. lra.
    + assert (1 <= exp ((z a - tau0) * / T)) by nra.
      assert (0 <= gap acts z a) by nra. assert (0 <= r a * gap acts z a) by (apply Rmult_le_pos; lra). nra.
  - intros N. rewrite <- Limit in N.
    assert (D : is_derive cooled 0 (Sum acts (fun a => (z a - tau0) * (r a * gap acts z a)))).
    { apply (is_derive_Sum acts (fun b a => exp ((z a - tau0) * b) * (r a * gap acts z a))). intros a _.
      auto_derive; [trivial|]. rewrite Rmult_0_r, exp_0. ring. }
    apply is_derive_continuity_pt in D. destruct (D (- cooled 0) ltac:(lra)) as [del [Hd Near]].
    simpl in Near. unfold R_dist in Near. exists (2 / del). assert (P : 0 < 2 / del) by (apply Rdiv_lt_0_compat; lra).
    split; [exact P|]. apply (DeltaH_sign eta (2 / del) He P).
    assert (Q : Rabs (cooled (del / 2) - cooled 0) < - cooled 0).
    { apply Near. split; [split; [exact I|lra]|]. rewrite Rminus_0_r, Rabs_pos_eq; lra. }
    apply Rabs_lt_between in Q. replace (weighed (2 / del)) with (cooled (del / 2)); [lra|].
    apply Sum_ext. intros a _. f_equal. f_equal. field. lra.
Qed.
End OneThreshold.
