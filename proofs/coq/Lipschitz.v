(* How far one update can move the entropy: |H(z + eta v) - H(z)| <= eta S ln K for the update of Eq. 4, from
   |Cov_pi(z, v)| <= (range of v / 2) ln K. It is the width of the band in BangBang.v. *)
From Coq Require Import Reals List Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance DeltaH FirstOrder Remainder.
Import ListNotations.
Open Scope R_scope.

(* ---- 0.69 <= ln 2 <= 0.7 and ln 3 <= 1.6 ln 2, in rational arithmetic ---- *)

Lemma ln_2_upper : ln 2 <= 7 / 10.
Proof.
  rewrite <- (ln_exp (7 / 10)). apply ln_le; [lra|].
  apply Rle_trans with (2 := exp_ge_taylor (7 / 10) 3 ltac:(lra)). simpl. lra.
Qed.

(* e^{-0.69} = (e^{-0.69/128})^128 >= (1 - 0.69/128)^128 >= 1/2, by seven squarings rounded down *)
Lemma ln_2_lower : 69 / 100 <= ln 2.
Proof.
  assert (Square : forall x y k, y <= exp x -> 0 <= y -> k <= y * y -> k <= exp (x + x)).
  { intros x y k Q Hy Hk. rewrite exp_plus. apply Rle_trans with (1 := Hk), Rmult_le_compat; lra. }
  set (e := - (69 / 12800)).
  assert (S0 : 9946 / 10000 <= exp e) by (assert (Q := exp_ineq1_le e); unfold e in *; lra).
  assert (S1 := Square _ _ (989229 / 1000000) S0 ltac:(lra) ltac:(lra)).
  assert (S2 := Square _ _ (978574 / 1000000) S1 ltac:(lra) ltac:(lra)).
  assert (S3 := Square _ _ (957607 / 1000000) S2 ltac:(lra) ltac:(lra)).
  assert (S4 := Square _ _ (917011 / 1000000) S3 ltac:(lra) ltac:(lra)).
  assert (S5 := Square _ _ (840909 / 1000000) S4 ltac:(lra) ltac:(lra)).
  assert (S6 := Square _ _ (707127 / 1000000) S5 ltac:(lra) ltac:(lra)).
  assert (S7 := Square _ _ (1 / 2) S6 ltac:(lra) ltac:(lra)).
  match type of S7 with _ <= exp ?x => replace x with (- (69 / 100)) in S7 by (unfold e; field) end.
  assert (E : exp (- (69 / 100)) * exp (69 / 100) = 1) by (rewrite <- exp_plus, Rplus_opp_l; apply exp_0).
  rewrite <- (ln_exp (69 / 100)). apply ln_le; [apply exp_pos|]. assert (P := exp_pos (69 / 100)). nra.
Qed.

Lemma ln_3_upper : 5 * ln 3 <= 8 * ln 2.
Proof.
  assert (Q : ln (3 ^ 5) <= ln (2 ^ 8)) by (apply ln_le; lra).
  rewrite !ln_pow in Q by lra. simpl INR in Q. lra.
Qed.

(* u (1 - u) (l + ln((1 - u)/u)) <= l / 2 for every l >= ln 2: two actions are the tight case *)
Lemma two_point_bound u l : 0 < u < 1 -> ln 2 <= l -> u * (1 - u) * (l - ln u + ln (1 - u)) <= l / 2.
Proof.
  intros Hu Hl. assert (L1 := ln_2_lower). assert (L2 := ln_2_upper). assert (L3 := ln_3_upper).
  assert (T : ln (1 - u) - ln u <= (1 - u) / (3 * u) - 1 + 8 / 5 * ln 2).
  { assert (P : 0 < (1 - u) / (3 * u)) by (apply Rdiv_lt_0_compat; lra).
    assert (Q := ln_le_minus_one _ P). rewrite ln_div, ln_mult in Q by lra. lra. }
  assert (P : 0 < u * (1 - u)) by nra.
  assert (Q : u * (1 - u) * (ln 2 + (ln (1 - u) - ln u)) <= (1 - u) ^ 2 / 3 + u * (1 - u) * (13 / 5 * ln 2 - 1)).
  { replace ((1 - u) ^ 2 / 3 + u * (1 - u) * (13 / 5 * ln 2 - 1))
      with (u * (1 - u) * (ln 2 + ((1 - u) / (3 * u) - 1 + 8 / 5 * ln 2))) by (field; lra).
    apply Rmult_le_compat_l; lra. }
  (* linear in ln 2, so it is enough at 0.69 and at 0.7 *)
  assert (Base : (1 - u) ^ 2 / 3 + u * (1 - u) * (13 / 5 * ln 2 - 1) <= ln 2 / 2).
  { set (s := (ln 2 - 69 / 100) * 100). assert (Hs : 0 <= s <= 1) by (unfold s; lra).
    replace (ln 2) with (69 / 100 + s / 100) by (unfold s; field).
    assert (Q0 : 0 <= 69 / 200 - (1 - u) ^ 2 / 3 - u * (1 - u) * (794 / 1000))
      by (assert (Sq := pow2_ge_0 (u - 138 / 1000)); lra).
    assert (Q1 : 0 <= 70 / 200 - (1 - u) ^ 2 / 3 - u * (1 - u) * (820 / 1000))
      by (assert (Sq := pow2_ge_0 (u - 157 / 1000)); lra).
    assert (R0 := Rmult_le_pos (1 - s) _ ltac:(lra) Q0). assert (R1 := Rmult_le_pos s _ ltac:(lra) Q1). lra. }
  assert (Rest : u * (1 - u) * (l - ln 2) <= (l - ln 2) / 2).
  { assert (u * (1 - u) <= 1 / 2) by nra. nra. }
  replace (u * (1 - u) * (l - ln u + ln (1 - u)))
    with (u * (1 - u) * (ln 2 + (ln (1 - u) - ln u)) + u * (1 - u) * (l - ln 2)) by ring. lra.
Qed.

(* ---- the mean absolute deviation of -ln pi is at most ln K ---- *)
Section Deviation.
Context {A : Type} (acts : list A) (w : A -> R).
Hypothesis nonempty : acts <> [].
Notation p := (softmax acts w).
Notation E := (expect acts p).
Notation H := (entropy acts p).
Notation K := (INR (length acts)).
Notation total := (softmax_total acts w nonempty).

(* rare a: less likely than e^{-H} *)
Definition rare (a : A) : R := if Rlt_dec H (- ln (p a)) then 1 else 0.

Lemma rare_bounds a : 0 <= rare a <= 1.
Proof. unfold rare. destruct (Rlt_dec _ _); lra. Qed.

Lemma half_deviation : E (fun a => rare a * (- ln (p a) - H)) <= ln K / 2.
Proof.
  assert (KP := count_pos acts nonempty).
  set (u := E rare). set (common := E (fun a => (1 - rare a) * - ln (p a))).
  set (surprise := E (fun a => rare a * - ln (p a))).
  assert (Hu : 0 <= u <= 1).
  { apply (expect_between acts p total (softmax_nonneg acts w nonempty)). intros; apply rare_bounds. }
  assert (HH : H = surprise + common).
  { unfold surprise, common. rewrite <- expect_plus, entropy_as_expect. apply expect_ext. intros; ring. }
  assert (D : E (fun a => rare a * (- ln (p a) - H)) = (1 - u) * surprise - u * common).
  { rewrite (expect_ext acts p _ (fun a => rare a * - ln (p a) + (- H) * rare a)) by (intros; ring).
    rewrite expect_plus, expect_scal. fold surprise u. rewrite HH. ring. }
  rewrite D.
  assert (Cn : 0 <= common).
  { apply Sum_nonneg. intros a Ia. assert (P := softmax_pos acts w nonempty a).
    assert (P1 := softmax_le_one acts w nonempty a Ia). assert (L := ln_le_minus_one _ P).
    assert (B := rare_bounds a). apply Rmult_le_pos; [lra|]. apply Rmult_le_pos; lra. }
  destruct (Req_dec u 0) as [U0|U0].
  { assert (S0 : surprise = 0).
    { apply Sum_zero. intros a Ia.
      assert (Z : p a * rare a = 0).
      { apply (Sum_zero_term acts (fun x => p x * rare x) a); [|exact U0|exact Ia].
        intros x _. apply Rmult_le_pos; [left; apply softmax_pos, nonempty|apply rare_bounds]. }
      rewrite <- Rmult_assoc, Z. ring. }
    assert (Q := ln_count_nonneg acts nonempty). rewrite S0, U0. lra. }
  destruct (Req_dec u 1) as [U1|U1].
  { assert (Q := ln_count_nonneg acts nonempty). rewrite U1. lra. }
  assert (Hu' : 0 < u < 1) by lra.
  (* the rare part by Gibbs at the scale u / K *)
  assert (Up : surprise <= u * (ln K - ln u)).
  { assert (Hs : 0 < u / K) by (apply Rdiv_lt_0_compat; lra).
    assert (G := gibbs acts w nonempty (u / K) rare Hs (fun a _ => proj1 (rare_bounds a))).
    fold u surprise in G. rewrite ln_div in G by lra.
    assert (Count : Sum acts rare <= K * 1).
    { rewrite <- Sum_const. apply Sum_le. intros; apply rare_bounds. }
    assert (u / K * Sum acts rare <= u).
    { replace u with (u / K * (K * 1)) at 2 by (field; lra). apply Rmult_le_compat_l; lra. }
    nra. }
  (* on the common part each probability is at most 1 - u *)
  assert (Low : (1 - u) * - ln (1 - u) <= common).
  { replace ((1 - u) * - ln (1 - u)) with (E (fun a => - ln (1 - u) * (1 - rare a))).
    - apply Sum_le. intros a Ia. apply Rmult_le_compat_l; [left; apply softmax_pos, nonempty|].
      unfold rare at 1 2. destruct (Rlt_dec H (- ln (p a))) as [L|L] eqn:Case; [lra|].
      assert (ln (p a) <= ln (1 - u)); [|lra]. apply ln_le; [apply softmax_pos, nonempty|].
      assert (T : p a * (1 - rare a) <= E (fun x => 1 - rare x)).
      { apply (Sum_term acts (fun x => p x * (1 - rare x))); [|exact Ia]. intros x _.
        apply Rmult_le_pos; [left; apply softmax_pos, nonempty|]. assert (B := rare_bounds x). lra. }
      rewrite (expect_ext acts p (fun x => 1 - rare x) (fun x => (-1) * rare x + 1)) in T by (intros; ring).
      rewrite (expect_shift acts p total), expect_scal in T. fold u in T.
      replace (rare a) with 0 in T by (unfold rare; rewrite Case; reflexivity). lra.
    - rewrite expect_scal, (expect_ext acts p (fun x => 1 - rare x) (fun x => (-1) * rare x + 1)) by (intros; ring).
      rewrite (expect_shift acts p total), expect_scal. fold u. ring. }
  assert (K2 : 2 <= K).
  { change 2 with (INR 2). apply le_INR. destruct acts as [|a [|b l]] eqn:EA; simpl; [congruence| |lia].
    exfalso. assert (O : expect [a] (softmax [a] w) rare = u) by reflexivity.
    unfold expect, Sum in O. assert (P : softmax [a] w a = 1).
    { unfold softmax, partition. simpl. assert (Q := exp_pos (w a)). field. lra. }
    rewrite P in O. unfold rare in O. destruct (Rlt_dec _ _); lra. }
  assert (L2 : ln 2 <= ln K) by (apply ln_le; lra).
  assert (B := two_point_bound u (ln K) Hu' L2).
  assert (Q1 : (1 - u) * surprise <= (1 - u) * (u * (ln K - ln u))) by (apply Rmult_le_compat_l; lra).
  assert (Q2 : u * ((1 - u) * - ln (1 - u)) <= u * common) by (apply Rmult_le_compat_l; lra).
  nra.
Qed.

Theorem covariance_of_range v c half : (forall a, In a acts -> Rabs (v a - c) <= half) ->
  Rabs (cov acts p w v) <= half * ln K.
Proof.
  intros V.
  assert (Hh : 0 <= half).
  { destruct acts as [|a l]; [congruence|]. apply Rle_trans with (Rabs (v a - c)); [apply Rabs_pos|].
    apply V. left. reflexivity. }
  assert (Mean : E (fun a => w a - E w) = 0) by exact (expect_centred acts p total w).
  assert (Cov : cov acts p w v = E (fun a => (w a - E w) * (v a - c))).
  { rewrite cov_centred_left.
    rewrite (expect_ext acts p (fun a => (w a - E w) * v a)
      (fun a => (w a - E w) * (v a - c) + c * (w a - E w))) by (intros; ring).
    rewrite expect_plus, expect_scal, Mean. ring. }
  (* |w - E w| = 2 (w - E w)^- + (w - E w), whose mean is twice the half deviation *)
  assert (Abs : E (fun a => half * Rabs (w a - E w)) <= half * ln K).
  { rewrite expect_scal. apply Rmult_le_compat_l; [exact Hh|].
    rewrite (expect_ext acts p _ (fun a => 2 * (rare a * (- ln (p a) - H)) + (w a - E w))).
    - rewrite expect_plus, expect_scal, Mean. assert (Q := half_deviation). lra.
    - intros a _. rewrite (centred_logit acts w nonempty). unfold rare. destruct (Rlt_dec _ _) as [L|L].
      + rewrite Rabs_left by lra. ring.
      + rewrite Rabs_pos_eq by lra. ring. }
  rewrite Cov. apply Rabs_le.
  assert (Pt : forall a, In a acts ->
    - (half * Rabs (w a - E w)) <= (w a - E w) * (v a - c) <= half * Rabs (w a - E w)).
  { intros a Ia. apply Rabs_le_between. rewrite Rabs_mult, Rmult_comm.
    apply Rmult_le_compat_r; [apply Rabs_pos|apply V, Ia]. }
  split.
  - apply Rle_trans with ((-1) * E (fun a => half * Rabs (w a - E w))); [lra|]. rewrite <- expect_scal.
    apply expect_le; [apply softmax_nonneg, nonempty|]. intros a Ia. specialize (Pt a Ia). lra.
  - apply Rle_trans with (2 := Abs).
    apply expect_le; [apply softmax_nonneg, nonempty|]. intros a Ia. apply (Pt a Ia).
Qed.
End Deviation.

Theorem entropy_lipschitz {A} (acts : list A) (z v : A -> R) c half eta : acts <> [] ->
  (forall a, In a acts -> Rabs (v a - c) <= half) -> 0 <= eta ->
  Rabs (entropy_along acts z v eta - entropy_along acts z v 0) <= eta * half * ln (INR (length acts)).
Proof.
  intros nonempty V He. rewrite Rmult_assoc, Rmult_comm.
  apply (lipschitz_of_derivative (entropy_along acts z v)
    (fun t => - cov acts (softmax acts (moved z v t)) (moved z v t) v)); [exact He| |].
  - intros t. apply entropy_first_derivative, nonempty.
  - intros t. rewrite Rabs_Ropp. apply (covariance_of_range acts (moved z v t) nonempty v c half V).
Qed.

Theorem step_lipschitz {A} (acts : list A) (z r : A -> R) eta T : acts <> [] ->
  (forall a, In a acts -> 0 <= r a) -> 0 <= eta ->
  Rabs (entropy_along acts z (step acts z r T) eta - entropy_along acts z (step acts z r T) 0)
    <= eta * success acts z r T * ln (INR (length acts)).
Proof.
  intros nonempty Hr He. apply (entropy_lipschitz acts z (step acts z r T) 0); [exact nonempty| |exact He].
  intros a Ia. rewrite Rminus_0_r. apply Rabs_le. apply step_range; assumption.
Qed.
