(* The softmax policy, the tempered policy pi^T, their derivatives, and the bounds 0 <= H <= ln K.
   The setting of Appendix B of the paper; the derivative of the entropy along a curve of logits is its Eq. 6. *)
From Coq Require Import Reals List Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From AEPO Require Import Sums Calculus Expectation.
Import ListNotations.
Open Scope R_scope.

Definition partition {A} (acts : list A) (z : A -> R) : R := Sum acts (fun a => exp (z a)).
Definition softmax {A} (acts : list A) (z : A -> R) (a : A) : R := exp (z a) / partition acts z.

(* pi^T = softmax(z / T); the policy itself is pi = softmax(z) *)
Definition policy {A} (acts : list A) (z : A -> R) (T : R) : A -> R := softmax acts (fun a => z a / T).

(* m = E_pi z *)
Definition mean {A} (acts : list A) (z : A -> R) : R := expect acts (softmax acts z) z.

Section Softmax.
Context {A : Type} (acts : list A) (z : A -> R).
Hypothesis nonempty : acts <> [].
Notation pi := (softmax acts z).
Notation K := (INR (length acts)).

Lemma partition_pos : 0 < partition acts z.
Proof. apply Sum_pos; [exact nonempty|]. intros; apply exp_pos. Qed.

Lemma softmax_pos a : 0 < pi a.
Proof. apply Rdiv_lt_0_compat; [apply exp_pos|apply partition_pos]. Qed.

Lemma softmax_nonneg a : In a acts -> 0 <= pi a.
Proof. intros _. left. apply softmax_pos. Qed.

Lemma softmax_total : Sum acts pi = 1.
Proof.
  unfold softmax. rewrite (Sum_ext _ _ (fun a => / partition acts z * exp (z a))) by (intros; unfold Rdiv; ring).
  rewrite Sum_scal. apply Rinv_l, Rgt_not_eq, partition_pos.
Qed.

Lemma softmax_le_one a : In a acts -> pi a <= 1.
Proof. apply prob_le_one; [apply softmax_total|apply softmax_nonneg]. Qed.

Lemma ln_softmax a : ln (pi a) = z a - ln (partition acts z).
Proof. unfold softmax. rewrite ln_div by (apply exp_pos || apply partition_pos). rewrite ln_exp. reflexivity. Qed.

(* H = ln Z - m *)
Lemma entropy_softmax : entropy acts pi = ln (partition acts z) - mean acts z.
Proof.
  rewrite entropy_as_expect.
  rewrite (expect_ext acts pi _ (fun a => (-1) * z a + ln (partition acts z))) by (intros; rewrite ln_softmax; ring).
  rewrite (expect_shift acts pi softmax_total), expect_scal. unfold mean. ring.
Qed.

(* pi_a = exp(z_a - m - H) *)
Lemma softmax_of_entropy a : pi a = exp (z a - mean acts z) * exp (- entropy acts pi).
Proof.
  rewrite <- exp_plus, entropy_softmax.
  replace (z a - mean acts z + - (ln (partition acts z) - mean acts z)) with (ln (pi a)) by (rewrite ln_softmax; ring).
  symmetry. apply exp_ln, softmax_pos.
Qed.

Lemma count_pos : 0 < K.
Proof. apply lt_0_INR. destruct acts; [congruence|simpl; lia]. Qed.

Lemma count_ge_one : 1 <= K.
Proof. change 1 with (INR 1). apply le_INR. destruct acts; [congruence|simpl; lia]. Qed.

Lemma ln_count_nonneg : 0 <= ln K.
Proof. rewrite <- ln_1. apply ln_le; [lra|apply count_ge_one]. Qed.

Lemma entropy_nonneg : 0 <= entropy acts pi.
Proof.
  rewrite entropy_as_expect. apply Sum_nonneg. intros a Ia.
  assert (P := softmax_pos a). assert (P1 := softmax_le_one a Ia). assert (L := ln_le_minus_one _ P).
  apply Rmult_le_pos; lra.
Qed.

(* the inequality of Gibbs with a free scale s:  E[q * (-ln pi)] <= s * sum q - (1 + ln s) E q  for q >= 0 *)
Lemma gibbs s (q : A -> R) : 0 < s -> (forall a, In a acts -> 0 <= q a) ->
  expect acts pi (fun a => q a * - ln (pi a)) <= s * Sum acts q - (1 + ln s) * expect acts pi q.
Proof.
  intros Hs Hq.
  replace (s * Sum acts q - (1 + ln s) * expect acts pi q)
    with (Sum acts (fun a => s * q a + (- (1 + ln s)) * (pi a * q a)))
    by (rewrite Sum_plus, !Sum_scal; unfold expect; ring).
  apply Sum_le. intros a Ia. specialize (Hq a Ia). assert (P := softmax_pos a).
  assert (L := ln_le_minus_one (s / pi a) (Rdiv_lt_0_compat _ _ Hs P)). rewrite ln_div in L by assumption.
  assert (L2 : pi a * (ln s - ln (pi a)) <= s - pi a).
  { replace (s - pi a) with (pi a * (s / pi a - 1)) by (field; lra). apply Rmult_le_compat_l; lra. }
  nra.
Qed.

Lemma entropy_le_ln_count : entropy acts pi <= ln K.
Proof.
  assert (KP := count_pos). rewrite entropy_as_expect.
  assert (Q := gibbs (/ K) (fun _ => 1) (Rinv_0_lt_compat _ KP) (fun _ _ => Rle_0_1)).
  rewrite Sum_const, (expect_const acts pi softmax_total), ln_Rinv in Q by exact KP.
  replace (/ K * (K * 1)) with 1 in Q by (field; lra).
  rewrite (expect_ext acts pi _ (fun a => 1 * - ln (pi a))) by (intros; ring). lra.
Qed.

(* at T = 1 the tempered policy is the policy *)
Lemma policy_one a : policy acts z 1 a = pi a.
Proof.
  unfold policy, softmax, partition. replace (z a / 1) with (z a) by field. f_equal.
  apply Sum_ext. intros x _. f_equal. field.
Qed.

Lemma softmax_increasing a b : z a < z b -> pi a < pi b.
Proof.
  intros H. apply Rmult_lt_compat_r; [apply Rinv_0_lt_compat, partition_pos|apply exp_increasing, H].
Qed.
End Softmax.

Lemma softmax_ext {A} (acts : list A) (z w : A -> R) a :
  (forall x, z x = w x) -> softmax acts z a = softmax acts w a.
Proof. intros E. unfold softmax, partition. rewrite E. f_equal. apply Sum_ext. intros; rewrite E; reflexivity. Qed.

Lemma entropy_ext {A} (acts : list A) (p q : A -> R) :
  (forall a, In a acts -> p a = q a) -> entropy acts p = entropy acts q.
Proof. intros E. unfold entropy. f_equal. apply Sum_ext. intros a Ia. rewrite E by exact Ia. reflexivity. Qed.

(* ---- derivatives along any differentiable curve of logits w(t) ---- *)
Section Curve.
Context {A : Type} (acts : list A) (w : R -> A -> R) (w' : A -> R) (t : R).
Hypothesis nonempty : acts <> [].
Hypothesis curve : forall a, is_derive (fun s => w s a) t (w' a).
Notation p := (softmax acts (w t)).
Notation E := (expect acts p).

Lemma is_derive_partition :
  is_derive (fun s => partition acts (w s)) t (partition acts (w t) * E w').
Proof.
  evar_last.
  - apply (is_derive_Sum acts (fun s a => exp (w s a)) (fun a => w' a * exp (w t a))).
    intros a _. apply (is_derive_comp exp (fun s => w s a)); [|apply curve].
    apply is_derive_Reals, derivable_pt_lim_exp.
  - unfold expect. rewrite <- Sum_scal. apply Sum_ext. intros a _. unfold softmax. field.
    apply Rgt_not_eq, partition_pos, nonempty.
Qed.

(* d pi_a = pi_a (dz_a - E_pi dz) *)
Lemma is_derive_softmax a : is_derive (fun s => softmax acts (w s) a) t (p a * (w' a - E w')).
Proof.
  assert (P := partition_pos acts (w t) nonempty).
  unfold softmax at 1. evar_last.
  - apply (is_derive_div (fun s => exp (w s a)) (fun s => partition acts (w s))); [|apply is_derive_partition|lra].
    apply (is_derive_comp exp (fun s => w s a)); [|apply curve]. apply is_derive_Reals, derivable_pt_lim_exp.
  - unfold scal; simpl; unfold mult; simpl. unfold softmax. field. lra.
Qed.

Lemma is_derive_expect (f : R -> A -> R) (f' : A -> R) :
  (forall a, In a acts -> is_derive (fun s => f s a) t (f' a)) ->
  is_derive (fun s => expect acts (softmax acts (w s)) (f s)) t (E (fun a => f t a * (w' a - E w') + f' a)).
Proof.
  intros D. apply (is_derive_Sum acts (fun s a => softmax acts (w s) a * f s a)). intros a Ia. evar_last.
  - apply (is_derive_mult (fun s => softmax acts (w s) a) (fun s => f s a)); [apply is_derive_softmax|apply D, Ia|].
    intros; apply Rmult_comm.
  - unfold plus, mult; simpl; unfold mult; simpl. ring.
Qed.

(* Eq. 6 of the paper, exactly:  dH = - Cov_pi(z, dz) *)
Lemma is_derive_entropy : is_derive (fun s => entropy acts (softmax acts (w s))) t (- cov acts p (w t) w').
Proof.
  assert (P := partition_pos acts (w t) nonempty).
  apply (is_derive_ext (fun s => ln (partition acts (w s)) - expect acts (softmax acts (w s)) (w s))).
  { intros s. rewrite (entropy_softmax acts (w s) nonempty). reflexivity. }
  evar_last.
  - apply (is_derive_minus (fun s => ln (partition acts (w s)))
      (fun s => expect acts (softmax acts (w s)) (w s))).
    + apply (is_derive_comp ln (fun s => partition acts (w s))); [|apply is_derive_partition].
      apply is_derive_Reals, derivable_pt_lim_ln, P.
    + apply (is_derive_expect w w'). intros; apply curve.
  - unfold minus, plus, opp, scal; simpl; unfold mult; simpl.
    rewrite (expect_ext acts p (fun a => w t a * (w' a - E w') + w' a)
      (fun a => w t a * w' a + ((- E w') * w t a + w' a))) by (intros; ring).
    rewrite !expect_plus, expect_scal. unfold cov. field. lra.
Qed.
End Curve.

(* ---- derivatives in the temperature ---- *)
Section Temperature.
Context {A : Type} (acts : list A) (z : A -> R) (T : R).
Hypothesis nonempty : acts <> [].
Hypothesis warm : 0 < T.
Notation p := (policy acts z T).
Notation E := (expect acts p).

Lemma is_derive_cooling c : is_derive (fun t => c / t) T (- (c / T ^ 2)).
Proof. auto_derive; [lra|field; lra]. Qed.

(* d pi^T_a / dT = - pi^T_a (z_a - E_{pi^T} z) / T^2 *)
Lemma is_derive_policy a : is_derive (fun t => policy acts z t a) T (- (p a * (z a - E z) / T ^ 2)).
Proof.
  evar_last.
  - apply (is_derive_softmax acts (fun t x => z x / t) (fun x => - (z x / T ^ 2)) T nonempty).
    intros; apply is_derive_cooling.
  - fold (policy acts z T).
    rewrite (expect_ext acts p (fun x => - (z x / T ^ 2)) (fun x => (- / T ^ 2) * z x)) by (intros; field; lra).
    rewrite expect_scal. field. lra.
Qed.

Lemma is_derive_policy_mean :
  is_derive (fun t => expect acts (policy acts z t) z) T (- (var acts p z / T ^ 2)).
Proof.
  evar_last.
  - apply (is_derive_Sum acts (fun t a => policy acts z t a * z a)
      (fun a => (- / T ^ 2) * (p a * ((z a - E z) * z a)))).
    intros a _. apply (is_derive_ext (fun t => z a * policy acts z t a)); [intros; simpl; ring|]. evar_last.
    + apply is_derive_scal, is_derive_policy.
    + simpl. field. lra.
  - rewrite Sum_scal. fold (expect acts p (fun a => (z a - E z) * z a)).
    rewrite <- cov_centred_left, <- (var_as_cov acts p) by apply softmax_total, nonempty. field. lra.
Qed.
End Temperature.

(* hotter sampling has a lower mean logit *)
Lemma policy_mean_decreasing {A} (acts : list A) (z : A -> R) T1 T2 : acts <> [] -> 0 < T1 -> T1 <= T2 ->
  expect acts (policy acts z T2) z <= expect acts (policy acts z T1) z.
Proof.
  intros nonempty H1 H2.
  assert (Q : - expect acts (policy acts z T1) z <= - expect acts (policy acts z T2) z); [|lra].
  apply (nondecreasing_of_derivative (fun t => - expect acts (policy acts z t) z)
    (fun t => - - (var acts (policy acts z t) z / t ^ 2)) T1 T2 H2).
  - intros t Ht. apply (is_derive_opp (fun t => expect acts (policy acts z t) z)).
    apply is_derive_policy_mean; [exact nonempty|lra].
  - intros t Ht. rewrite Ropp_involutive. apply Rmult_le_pos.
    + apply var_nonneg, softmax_nonneg, nonempty.
    + left. apply Rinv_0_lt_compat, pow_lt. lra.
Qed.
