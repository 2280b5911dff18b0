(* Corollary 4.4 to first order. The high-temperature half holds for every T > 1, with an exponential rate; the
   low-temperature half holds near T = 1 (Counterexamples.v shows that it fails farther away). *)
From Coq Require Import Reals List Lra Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance Threshold DeltaH Theorem_4_3 OneThreshold.
Import ListNotations.
Open Scope R_scope.

Section Corollary_4_4.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].
Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.
Notation m := (mean acts z).
Notation tau0 := (tau acts z).
Notation DH := (DeltaH acts z r).
Notation ZT T := (partition acts (fun a => z a / T)).

(* Jensen: Z_T / Z_1 = E_pi exp(-(1 - 1/T) z) >= exp(-(1 - 1/T) m) *)
Lemma partition_hot T : 0 < T -> partition acts z * exp (- (1 - / T) * m) <= ZT T.
Proof.
  intros HT. set (s := 1 - / T). assert (P := partition_pos acts z nonempty).
  assert (EM := exp_pos (- s * m)).
  assert (L : exp (- s * m) <= expect acts (softmax acts z) (fun a => exp (- s * z a))).
  { apply Rle_trans with (expect acts (softmax acts z) (fun a => exp (- s * m) * (1 + - s * (z a - m)))).
    - right. rewrite expect_scal.
      rewrite (expect_ext acts _ _ (fun a => (- s) * (z a - m) + 1)) by (intros; ring).
      rewrite expect_shift, expect_scal by apply softmax_total, nonempty.
      assert (Z := expect_centred acts (softmax acts z) (softmax_total acts z nonempty) z).
      fold (mean acts z) in Z. rewrite Z. ring.
    - apply expect_le; [apply softmax_nonneg, nonempty|]. intros a _.
      replace (- s * z a) with (- s * m + - s * (z a - m)) by ring. rewrite exp_plus.
      apply Rmult_le_compat_l; [lra|apply exp_ineq1_le]. }
  replace (ZT T) with (partition acts z * expect acts (softmax acts z) (fun a => exp (- s * z a))).
  - apply Rmult_le_compat_l; lra.
  - unfold expect, partition at 2. rewrite <- Sum_scal. apply Sum_ext. intros a _.
    replace (z a / T) with (z a + - s * z a) by (unfold s; field; lra). rewrite exp_plus. unfold softmax. field. lra.
Qed.

(* the fall of the entropy shrinks at least at the rate (tau - m) (1 - 1/T) *)
Theorem high_temperature_contraction eta T : 0 < eta -> 1 <= T -> DH eta 1 <= 0 ->
  DH eta 1 * exp (- (1 - / T) * (tau0 - m)) <= DH eta T.
Proof.
  intros He HT H. assert (HT0 : 0 < T) by lra.
  assert (W := weighed_nonincreasing acts z r nonempty reward_nonneg 1 T Rlt_0_1 HT).
  assert (D1 := DeltaH_weighed acts z r nonempty eta 1 Rlt_0_1).
  assert (DT := DeltaH_weighed acts z r nonempty eta T HT0).
  assert (J := partition_hot T HT0). assert (P := partition_pos acts (fun a => z a / T) nonempty).
  replace (partition acts (fun a => z a / 1)) with (partition acts z) in D1
    by (apply Sum_ext; intros; f_equal; field).
  set (s := 1 - / T) in *.
  assert (ET := exp_pos (tau0 / T)). assert (Es := exp_pos (- s * (tau0 - m))).
  (* e^{tau/T} = e^{tau} e^{-s tau} *)
  assert (Et : exp (tau0 / T) = exp (tau0 / 1) * exp (- s * tau0)).
  { rewrite <- exp_plus. f_equal. unfold s. field. lra. }
  assert (Lower : - eta * exp (tau0 / T) * weighed acts z r 1 <= DH eta T * ZT T).
  { rewrite DT. apply Rmult_le_compat_neg_l; [nra|exact W]. }
  assert (Start : - eta * exp (tau0 / T) * weighed acts z r 1 = DH eta 1 * partition acts z * exp (- s * tau0))
    by (rewrite D1, Et; ring).
  assert (Split : exp (- s * tau0) = exp (- s * (tau0 - m)) * exp (- s * m)).
  { rewrite <- exp_plus. f_equal. ring. }
  assert (DH eta 1 * exp (- s * (tau0 - m)) * ZT T <= DH eta T * ZT T); [|nra].
  apply Rle_trans with (2 := Lower). rewrite Start, Split.
  replace (DH eta 1 * partition acts z * (exp (- s * (tau0 - m)) * exp (- s * m)))
    with (DH eta 1 * exp (- s * (tau0 - m)) * (partition acts z * exp (- s * m))) by ring.
  apply Rmult_le_compat_neg_l; [nra|exact J].
Qed.

(* the high-temperature half, for every T > 1 *)
Theorem corollary_4_4_high eta T : 0 < eta -> 1 < T -> DH eta 1 < 0 -> DH eta 1 < DH eta T.
Proof.
  intros He HT H. assert (Q := high_temperature_contraction eta T He (Rlt_le _ _ HT) (Rlt_le _ _ H)).
  assert (U := premise_threshold acts z r nonempty eta 1 H).
  assert (Hs : / T < 1) by (rewrite <- Rinv_1; apply Rinv_lt_contravar; lra).
  assert (G : 0 < (1 - / T) * (tau0 - m)) by (apply Rmult_lt_0_compat; lra).
  assert (E := exp_increasing (- (1 - / T) * (tau0 - m)) 0 ltac:(lra)). rewrite exp_0 in E.
  nra.
Qed.

(* the low-temperature half, near T = 1 *)
Theorem corollary_4_4_low_local eta : 0 < eta -> DH eta 1 < 0 ->
  exists eps, 0 < eps /\ forall T, 1 - eps < T < 1 -> DH eta T < DH eta 1.
Proof.
  intros He H. assert (P := theorem_4_3 acts z r nonempty reward_nonneg eta 1 He (Rle_refl 1) H).
  apply (below_on_the_left (DH eta) 1 (slope acts z r eta 1)).
  - apply is_derive_DeltaH; [exact nonempty|lra].
  - rewrite <- (Derive_DeltaH acts z r nonempty eta 1 Rlt_0_1). exact P.
Qed.
End Corollary_4_4.
