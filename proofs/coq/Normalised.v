(* Corollary 4.4 when the update averages over the correct samples (pi^T restricted to A* and renormalised): both halves
   hold for every pair of temperatures. With the paper's own averaging the low half fails (Counterexamples.v). *)
From Coq Require Import Reals List Lra Psatz.
From AEPO Require Import Sums Calculus Expectation Softmax Covariance Threshold DeltaH.
Import ListNotations.
Open Scope R_scope.

(* E[d_a] over correct samples at temperature T, and the first-order entropy change of that update *)
Definition correct_mean {A} (acts : list A) (z r f : A -> R) (T : R) : R :=
  expect acts (policy acts z T) (fun a => r a * f a) / expect acts (policy acts z T) r.

Definition DeltaH_normalised {A} (acts : list A) (z r : A -> R) (eta T : R) : R :=
  - eta * (correct_mean acts z r (dcov acts z) T - Ccov acts z).

Section Tilt.
Context {A : Type} (acts : list A) (z r f : A -> R).
Hypothesis nonempty : acts <> [].
Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.
Hypothesis reward_somewhere : exists a, In a acts /\ 0 < r a.

Lemma success_pos T : 0 < expect acts (policy acts z T) r.
Proof.
  destruct reward_somewhere as [a [Ia Ha]]. apply (Sum_pos_at acts _ a); [|exact Ia|].
  - intros x Ix. apply Rmult_le_pos; [left; apply softmax_pos, nonempty|auto].
  - apply Rmult_lt_0_compat; [apply softmax_pos, nonempty|exact Ha].
Qed.

(* if f - c has the sign of z - u, with c the hotter mean, then cooling can only raise the mean of f *)
Lemma correct_mean_cooling T1 T2 u : 0 < T1 -> T1 <= T2 ->
  (forall a, In a acts -> 0 <= (f a - correct_mean acts z r f T2) * (z a - u)) ->
  correct_mean acts z r f T2 <= correct_mean acts z r f T1.
Proof.
  intros H1 H2. set (c := correct_mean acts z r f T2). intros Sg.
  assert (Hb : / T2 <= / T1) by (apply Rinv_le_contravar; lra).
  assert (F : forall T, 0 < T -> Sum acts (fun a => exp ((z a - u) / T) * (r a * (f a - c)))
     = partition acts (fun a => z a / T) * exp (- (u / T)) * expect acts (policy acts z T) r
       * (correct_mean acts z r f T - c)).
  { intros T HT. assert (N := success_pos T). assert (P := partition_pos acts (fun a => z a / T) nonempty).
    replace (partition acts (fun a => z a / T) * exp (- (u / T)) * expect acts (policy acts z T) r
       * (correct_mean acts z r f T - c)) with (partition acts (fun a => z a / T) * exp (- (u / T))
       * (expect acts (policy acts z T) (fun a => r a * f a) + (- c) * expect acts (policy acts z T) r))
      by (unfold correct_mean; field; lra).
    rewrite <- expect_scal, <- expect_plus. unfold expect. rewrite <- Sum_scal. apply Sum_ext. intros a _.
    replace ((z a - u) / T) with (z a / T + - (u / T)) by (field; lra). rewrite exp_plus.
    unfold policy, softmax. field. lra. }
  assert (F2 := F T2 ltac:(lra)). assert (F1 := F T1 H1).
  assert (Z : Sum acts (fun a => exp ((z a - u) / T2) * (r a * (f a - c))) = 0) by (rewrite F2; unfold c; ring).
  assert (Le : Sum acts (fun a => exp ((z a - u) / T2) * (r a * (f a - c)))
    <= Sum acts (fun a => exp ((z a - u) / T1) * (r a * (f a - c)))).
  { apply Sum_le. intros a Ia. specialize (Sg a Ia). assert (Hr := reward_nonneg a Ia). unfold Rdiv.
    destruct (Rtotal_order (z a) u) as [L|[L|L]].
    - assert (f a - c <= 0) by nra. assert (r a * (f a - c) <= 0) by nra.
      assert (exp ((z a - u) * / T1) <= exp ((z a - u) * / T2)) by (apply exp_le; nra). nra.
    - rewrite L, Rminus_eq_0, !Rmult_0_l. lra.
    - assert (0 <= f a - c) by nra. assert (0 <= r a * (f a - c)) by (apply Rmult_le_pos; lra).
      assert (exp ((z a - u) * / T2) <= exp ((z a - u) * / T1)) by (apply exp_le; nra). nra. }
  rewrite Z, F1 in Le.
  assert (0 < partition acts (fun a => z a / T1) * exp (- (u / T1)) * expect acts (policy acts z T1) r).
  { apply Rmult_lt_0_compat; [|apply success_pos].
    apply Rmult_lt_0_compat; [apply partition_pos, nonempty|apply exp_pos]. }
  nra.
Qed.
End Tilt.

Section Normalised.
Context {A : Type} (acts : list A) (z r : A -> R).
Hypothesis nonempty : acts <> [].
Hypothesis reward_nonneg : forall a, In a acts -> 0 <= r a.
Hypothesis reward_somewhere : exists a, In a acts /\ 0 < r a.
Notation DHn := (DeltaH_normalised acts z r).

(* the sum of Delta H over A*, divided by the sampled success rate *)
Lemma DeltaH_normalised_is_DeltaH_over_success eta T :
  DHn eta T * expect acts (policy acts z T) r = DeltaH acts z r eta T.
Proof.
  assert (N := success_pos acts z r nonempty reward_nonneg reward_somewhere T).
  unfold DeltaH_normalised, correct_mean, DeltaH, gap.
  rewrite (Sum_ext acts (fun a => policy acts z T a * r a * (dcov acts z a - Ccov acts z))
    (fun a => policy acts z T a * (r a * dcov acts z a) + (- Ccov acts z) * (policy acts z T a * r a)))
    by (intros; ring).
  rewrite Sum_plus, Sum_scal. fold (expect acts (policy acts z T) (fun a => r a * dcov acts z a)).
  fold (expect acts (policy acts z T) r). field. lra.
Qed.

(* every pair of temperatures; the premise at the hotter one says that correct samples have E[d] >= 0 there *)
Theorem normalised_monotone eta T1 T2 : 0 < eta -> 0 < T1 -> T1 <= T2 ->
  DHn eta T2 <= eta * Ccov acts z -> DHn eta T1 <= DHn eta T2.
Proof.
  intros He H1 H2 HD. unfold DeltaH_normalised in *. set (c := correct_mean acts z r (dcov acts z) T2) in *.
  assert (Hc : 0 <= c) by nra.
  assert (Q := correct_mean_cooling acts z r (dcov acts z) nonempty reward_nonneg reward_somewhere T1 T2
    (level acts z c) H1 H2 (fun a _ => gap_sign_at acts z nonempty c a Hc)). fold c in Q. nra.
Qed.

(* Corollary 4.4, both halves, under a premise weaker than Theorem 4.3's (Delta H(1) < 0 <= eta C) *)
Theorem corollary_4_4_normalised eta T : 0 < eta -> 0 < T -> DHn eta 1 <= eta * Ccov acts z ->
  (T <= 1 -> DHn eta T <= DHn eta 1) /\ (1 <= T -> DHn eta 1 <= DHn eta T).
Proof.
  intros He HT HD. split; intros H; [apply normalised_monotone; assumption|].
  destruct (Rle_dec (DHn eta T) (eta * Ccov acts z)) as [L|L]; [|lra].
  apply normalised_monotone; try assumption; lra.
Qed.
End Normalised.
