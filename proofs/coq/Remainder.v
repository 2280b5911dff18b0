(* The size of the terms that Theorem 4.3's first half leaves out:
   |H(z + eta v) - H(z) - Delta H| <= eta^2 S^2 (1 + ln K) / 2 for the update of Eq. 4,
   from a bound for any direction v of known range. *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance DeltaH FirstOrder.
Import ListNotations.
Open Scope R_scope.

Lemma ln_4_below_2 : ln 4 < 2.
Proof.
  rewrite <- (ln_exp 2). apply ln_increasing; [lra|].
  replace 2 with (1 + 1) by ring. rewrite exp_plus.
  assert (Q : 1 + 1 < exp 1) by (apply exp_ineq1; lra). nra.
Qed.

(* ---- the second derivative, at one vector w of logits and one direction v with lo <= v <= lo + range ---- *)
Section SecondOrder.
Context {A : Type} (acts : list A) (w v : A -> R) (lo range : R).
Hypothesis nonempty : acts <> [].
Hypothesis v_range : forall a, In a acts -> lo <= v a <= lo + range.
Notation p := (softmax acts w).
Notation E := (expect acts p).
Notation H := (entropy acts p).
Notation K := (INR (length acts)).
Notation dv := (fun a => v a - E v).
Notation total := (softmax_total acts w nonempty).

(* w - E w = ln p + H *)
Lemma centred_logit a : w a - E w = ln (p a) + H.
Proof. rewrite (ln_softmax acts w nonempty), (entropy_softmax acts w nonempty). unfold mean. ring. Qed.

(* Popoviciu's inequality *)
Lemma variance_of_range : 0 <= E (fun a => dv a ^ 2) <= range ^ 2 / 4.
Proof.
  split; [apply (var_nonneg acts p (softmax_nonneg acts w nonempty) v)|].
  set (c := lo + range / 2).
  assert (Q : E (fun a => (v a - c) ^ 2) <= range ^ 2 / 4).
  { apply (expect_between acts p total (softmax_nonneg acts w nonempty) _ 0). intros a Ia.
    assert (V := v_range a Ia). split; [apply pow2_ge_0|]. unfold c. nra. }
  rewrite (expect_ext acts p (fun a => (v a - c) ^ 2)
    (fun a => (2 * (E v - c)) * dv a + (dv a ^ 2 + (E v - c) ^ 2))) in Q by (intros; ring).
  rewrite expect_plus, expect_scal, (expect_centred acts p total), (expect_shift acts p total) in Q.
  assert (0 <= (E v - c) ^ 2) by apply pow2_ge_0. lra.
Qed.

Lemma deviation_of_range a : In a acts -> dv a ^ 2 <= range ^ 2.
Proof.
  intros Ia. assert (V := v_range a Ia).
  assert (M := expect_between acts p total (softmax_nonneg acts w nonempty) v lo (lo + range) v_range). nra.
Qed.

Lemma second_derivative_bound :
  Rabs (- E (fun a => (1 + (w a - E w)) * dv a ^ 2)) <= range ^ 2 / 4 * (1 + ln K).
Proof.
  assert (KP := count_pos acts nonempty). assert (Hn := entropy_nonneg acts w nonempty).
  assert (Hl := entropy_le_ln_count acts w nonempty). destruct variance_of_range as [S0 S1].
  set (sigma := E (fun a => dv a ^ 2)) in *.
  apply Rabs_le. split.
  - (* 1 + w - E w <= 1 + H *)
    assert (U : E (fun a => (1 + (w a - E w)) * dv a ^ 2) <= (1 + H) * sigma).
    { unfold sigma. rewrite <- expect_scal. apply expect_le; [apply softmax_nonneg, nonempty|]. intros a Ia.
      rewrite centred_logit. assert (P := softmax_pos acts w nonempty a).
      assert (L := ln_le_minus_one _ P). assert (P1 := softmax_le_one acts w nonempty a Ia).
      apply Rmult_le_compat_r; [apply pow2_ge_0|lra]. }
    nra.
  - (* -(1 + w - E w) = -ln p - (1 + H), and Gibbs at the scale 1 / (4 K) *)
    assert (Hs : 0 < / (4 * K)) by (apply Rinv_0_lt_compat; lra).
    assert (Q := gibbs acts w nonempty (/ (4 * K)) (fun a => dv a ^ 2) Hs (fun a _ => pow2_ge_0 _)).
    fold sigma in Q. rewrite ln_Rinv, ln_mult in Q by lra.
    assert (QS : / (4 * K) * Sum acts (fun a => dv a ^ 2) <= range ^ 2 / 4).
    { replace (range ^ 2 / 4) with (/ (4 * K) * (K * range ^ 2)) by (field; lra).
      apply Rmult_le_compat_l; [lra|]. rewrite <- Sum_const. apply Sum_le. apply deviation_of_range. }
    assert (EQ : - E (fun a => (1 + (w a - E w)) * dv a ^ 2)
      = E (fun a => dv a ^ 2 * - ln (p a)) + (- (1 + H)) * sigma).
    { unfold sigma. rewrite <- expect_scal, <- expect_plus.
      rewrite <- (Rmult_1_l (E (fun a => (1 + (w a - E w)) * dv a ^ 2))), Ropp_mult_distr_l, <- expect_scal.
      apply expect_ext. intros; rewrite centred_logit; ring. }
    rewrite EQ. assert (L4 := ln_4_below_2). nra.
Qed.
End SecondOrder.

Theorem entropy_remainder {A} (acts : list A) (z v : A -> R) lo range eta : acts <> [] ->
  (forall a, In a acts -> lo <= v a <= lo + range) -> 0 <= eta ->
  Rabs (entropy_along acts z v eta - entropy_along acts z v 0 - eta * - cov acts (softmax acts z) z v)
    <= eta ^ 2 / 2 * (range ^ 2 / 4 * (1 + ln (INR (length acts)))).
Proof.
  intros nonempty V He.
  assert (E0 : - cov acts (softmax acts z) z v = - cov acts (softmax acts (moved z v 0)) (moved z v 0) v).
  { f_equal. assert (M : forall a, moved z v 0 a = z a) by (intros; unfold moved; ring).
    assert (P : forall a, softmax acts (moved z v 0) a = softmax acts z a) by (intros; apply softmax_ext, M).
    unfold cov, expect. f_equal; [|f_equal]; apply Sum_ext; intros; rewrite P, ?M; ring. }
  rewrite E0.
  apply (taylor_second_order (entropy_along acts z v) (fun t => - cov acts (softmax acts (moved z v t)) (moved z v t) v)
    (fun t => - expect acts (softmax acts (moved z v t)) (fun a =>
      (1 + (moved z v t a - expect acts (softmax acts (moved z v t)) (moved z v t)))
      * (v a - expect acts (softmax acts (moved z v t)) v) ^ 2))); [exact He| | |].
  - intros t. apply entropy_first_derivative, nonempty.
  - intros t. apply entropy_second_derivative, nonempty.
  - intros t. apply (second_derivative_bound acts (moved z v t) v lo range nonempty V).
Qed.

(* ---- the update of Eq. 4 ---- *)
Section PaperStep.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].
Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.

(* each logit moves by at most eta S_T *)
Lemma step_range T a : In a acts -> - success acts z r T <= step acts z r T a <= success acts z r T.
Proof.
  intros Ia. assert (W : forall x, In x acts -> 0 <= policy acts z T x * r x).
  { intros x Ix. apply Rmult_le_pos; [left; apply softmax_pos, nonempty|apply reward_nonneg, Ix]. }
  assert (WS := Sum_term acts (fun x => policy acts z T x * r x) a W Ia). fold (expect acts (policy acts z T) r) in WS.
  fold (success acts z r T) in WS. specialize (W a Ia). cbv beta in WS.
  assert (P := softmax_pos acts z nonempty a). assert (P1 := softmax_le_one acts z nonempty a Ia).
  unfold step. nra.
Qed.

Theorem theorem_4_3_first_order eta T : 0 <= eta ->
  Rabs (entropy_along acts z (step acts z r T) eta - entropy_along acts z (step acts z r T) 0 - DeltaH acts z r eta T)
    <= eta ^ 2 * success acts z r T ^ 2 * (1 + ln (INR (length acts))) / 2.
Proof.
  intros He. set (S := success acts z r T).
  assert (Q := entropy_remainder acts z (step acts z r T) (- S) (2 * S) eta nonempty).
  rewrite (first_order_identity acts z r eta T nonempty) in Q.
  replace (eta ^ 2 * S ^ 2 * (1 + ln (INR (length acts))) / 2)
    with (eta ^ 2 / 2 * ((2 * S) ^ 2 / 4 * (1 + ln (INR (length acts))))) by field.
  apply Q; [|exact He]. intros a Ia. assert (B := step_range T a Ia). fold S in B. lra.
Qed.
End PaperStep.
