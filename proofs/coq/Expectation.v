(* Expectation, covariance, variance and entropy of a probability vector p over a list of actions, with the linear
   algebra they obey. Definition B.3 of the paper is `entropy`; nothing else of the paper is here. *)
From Coq Require Import Reals List Lra Psatz.
From AEPO Require Import Sums.
Open Scope R_scope.

Definition expect {A} (acts : list A) (p f : A -> R) : R := Sum acts (fun a => p a * f a).

Definition cov {A} (acts : list A) (p f g : A -> R) : R :=
  expect acts p (fun a => f a * g a) - expect acts p f * expect acts p g.

Definition var {A} (acts : list A) (p f : A -> R) : R :=
  expect acts p (fun a => (f a - expect acts p f) ^ 2).

(* 0 ln 0 = 0: the standard library's ln is 0 on (-oo, 0], and the factor p a is 0 anyway *)
Definition entropy {A} (acts : list A) (p : A -> R) : R := - Sum acts (fun a => p a * ln (p a)).

(* the same value on every action *)
Definition constant_on {A} (acts : list A) (f : A -> R) : Prop :=
  forall a b, In a acts -> In b acts -> f a = f b.

Section Expectation.
Context {A : Type} (acts : list A) (p : A -> R).
Notation E := (expect acts p).
Notation Cov := (cov acts p).
Implicit Types f g h : A -> R.

Lemma expect_ext f g : (forall a, In a acts -> f a = g a) -> E f = E g.
Proof. intros H. apply Sum_ext. intros a Ia. rewrite H by exact Ia. reflexivity. Qed.

Lemma expect_plus f g : E (fun a => f a + g a) = E f + E g.
Proof. unfold expect. rewrite <- Sum_plus. apply Sum_ext. intros; ring. Qed.

Lemma expect_scal c f : E (fun a => c * f a) = c * E f.
Proof. unfold expect. rewrite <- Sum_scal. apply Sum_ext. intros; ring. Qed.

Lemma entropy_as_expect : entropy acts p = E (fun a => - ln (p a)).
Proof.
  unfold entropy, expect. rewrite (Sum_ext acts (fun a => p a * - ln (p a)) (fun a => (-1) * (p a * ln (p a))))
    by (intros; ring). rewrite Sum_scal. ring.
Qed.

Hypothesis total : Sum acts p = 1.

Lemma expect_const c : E (fun _ => c) = c.
Proof.
  unfold expect. rewrite (Sum_ext _ _ (fun a => c * p a)) by (intros; ring). rewrite Sum_scal, total. ring.
Qed.

Lemma expect_shift f c : E (fun a => f a + c) = E f + c.
Proof. rewrite expect_plus, expect_const. reflexivity. Qed.

Lemma expect_centred f : E (fun a => f a - E f) = 0.
Proof. unfold Rminus. rewrite expect_shift. ring. Qed.

Lemma cov_ext f f' g g' : (forall a, In a acts -> f a = f' a) -> (forall a, In a acts -> g a = g' a) ->
  Cov f g = Cov f' g'.
Proof.
  intros Hf Hg. unfold cov. rewrite (expect_ext f f' Hf), (expect_ext g g' Hg).
  rewrite (expect_ext (fun a => f a * g a) (fun a => f' a * g' a)); [reflexivity|].
  intros a Ia. rewrite Hf, Hg by exact Ia. reflexivity.
Qed.

Lemma cov_comm f g : Cov f g = Cov g f.
Proof. unfold cov. rewrite (expect_ext (fun a => f a * g a) (fun a => g a * f a)) by (intros; ring). ring. Qed.

Lemma cov_lin f c g h : Cov f (fun a => c * g a + h a) = c * Cov f g + Cov f h.
Proof.
  unfold cov. rewrite (expect_ext (fun a => f a * (c * g a + h a)) (fun a => c * (f a * g a) + f a * h a))
    by (intros; ring). rewrite !expect_plus, !expect_scal. ring.
Qed.

Lemma cov_shift f g c : Cov f (fun a => g a + c) = Cov f g.
Proof.
  unfold cov. rewrite (expect_ext (fun a => f a * (g a + c)) (fun a => f a * g a + c * f a)) by (intros; ring).
  rewrite expect_plus, expect_scal, expect_shift. ring.
Qed.

Lemma cov_scal f c g : Cov f (fun a => c * g a) = c * Cov f g.
Proof.
  transitivity (Cov f (fun a => c * g a + 0)).
  - rewrite cov_shift. reflexivity.
  - rewrite (cov_lin f c g (fun _ => 0)). unfold cov at 2. rewrite expect_const.
    rewrite (expect_ext (fun a => f a * 0) (fun _ => 0)), expect_const by (intros; ring). ring.
Qed.

Lemma cov_centred_left f g : Cov f g = E (fun a => (f a - E f) * g a).
Proof.
  rewrite (expect_ext (fun a => (f a - E f) * g a) (fun a => f a * g a + (- E f) * g a)) by (intros; ring).
  rewrite expect_plus, expect_scal. unfold cov. ring.
Qed.

Lemma cov_centred f g : Cov f g = E (fun a => (f a - E f) * (g a - E g)).
Proof.
  rewrite (expect_ext (fun a => (f a - E f) * (g a - E g)) (fun a => (f a - E f) * g a + (- E g) * (f a - E f)))
    by (intros; ring). rewrite expect_plus, expect_scal, expect_centred, <- cov_centred_left. ring.
Qed.

Lemma var_as_cov f : var acts p f = Cov f f.
Proof. rewrite cov_centred. apply expect_ext. intros; simpl; ring. Qed.

Hypothesis nonneg : forall a, In a acts -> 0 <= p a.

Lemma expect_le f g : (forall a, In a acts -> f a <= g a) -> E f <= E g.
Proof. intros H. apply Sum_le. intros a Ia. apply Rmult_le_compat_l; auto. Qed.

Lemma expect_between f lo hi : (forall a, In a acts -> lo <= f a <= hi) -> lo <= E f <= hi.
Proof.
  intros H. rewrite <- (expect_const lo) at 1. rewrite <- (expect_const hi).
  split; apply expect_le; intros a Ia; apply (H a Ia).
Qed.

Lemma var_nonneg f : 0 <= var acts p f.
Proof. apply Sum_nonneg. intros a Ia. apply Rmult_le_pos; [auto|apply pow2_ge_0]. Qed.

Lemma prob_le_one a : In a acts -> p a <= 1.
Proof. intros Ia. rewrite <- total. apply Sum_term; assumption. Qed.
End Expectation.

(* constancy is decidable, and a vector that is not constant leaves every level somewhere *)
Lemma off_level {A} (acts : list A) (f : A -> R) c :
  (exists a, In a acts /\ f a <> c) \/ (forall a, In a acts -> f a = c).
Proof.
  destruct (Exists_dec (fun a => f a <> c) acts) as [H|H].
  - intros a. destruct (Req_EM_T (f a) c); [right|left]; tauto.
  - left. rewrite Exists_exists in H. exact H.
  - right. intros a Ia. destruct (Req_EM_T (f a) c) as [E|E]; [exact E|].
    exfalso. apply H. rewrite Exists_exists. eauto.
Qed.

Lemma not_constant_off_level {A} (acts : list A) (f : A -> R) c :
  ~ constant_on acts f -> exists a, In a acts /\ f a <> c.
Proof.
  intros N. destruct (off_level acts f c) as [H|H]; [exact H|].
  exfalso. apply N. intros a b Ia Ib. rewrite !H by assumption. reflexivity.
Qed.
