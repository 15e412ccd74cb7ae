(** Float32 arithmetic as src/core/rounding.ts uses it.

    Numbers of the format binary32 with subnormals (FLT, precision 24, least exponent -149), rounding to nearest, ties to even. There is no
    greatest number here: overflow is treated in Sum.v, where every intermediate result is shown to stay small. *)
From Coq Require Import Reals Lra Lia ZArith.
From Flocq Require Import Core Relative Plus_error.
Open Scope R_scope.

Definition emin : Z := (-149)%Z.
Definition prec : Z := 24%Z.
Definition fexp : Z -> Z := FLT_exp emin prec.
Definition float (x : R) : Prop := generic_format radix2 fexp x.
(** Rounding to nearest, ties to even. *)
Definition fl (x : R) : R := round radix2 fexp ZnearestE x.

(** U = 2^-24, ETA = 2^-149, FAINT = 2^-80 (src/core/rounding.ts). *)
Definition U : R := bpow radix2 (-24).
Definition ETA : R := bpow radix2 (-149).
Definition FAINT : R := bpow radix2 (-80).

Global Instance prec_positive : Prec_gt_0 prec.
Proof. reflexivity. Qed.
Global Instance fexp_valid : Valid_exp fexp.
Proof. apply FLT_exp_valid. exact prec_positive. Qed.

Lemma U_positive : 0 < U.
Proof. apply bpow_gt_0. Qed.
Lemma ETA_positive : 0 < ETA.
Proof. apply bpow_gt_0. Qed.
Lemma U_value : U = / 16777216.
Proof. unfold U. simpl. lra. Qed.

Lemma fl_float : forall x, float (fl x).
Proof. intro x. apply generic_format_round; [apply fexp_valid | apply valid_rnd_N]. Qed.

Lemma fl_of_float : forall x, float x -> fl x = x.
Proof. intros x H. apply round_generic; [apply valid_rnd_N | exact H]. Qed.

Lemma float_0 : float 0.
Proof. apply generic_format_0. Qed.

Lemma fl_0 : fl 0 = 0.
Proof. apply fl_of_float, float_0. Qed.

(** One rounding: a relative error of at most U, and half of ETA where the result is subnormal. *)
Lemma fl_error : forall x, exists d e, Rabs d <= U /\ Rabs e <= ETA / 2 /\ fl x = x * (1 + d) + e.
Proof.
  intro x.
  destruct (error_N_FLT radix2 emin prec prec_positive (fun z => negb (Z.even z)) x) as (d & e & Hd & He & _ & H).
  exists d, e. repeat split; [| | exact H].
  - apply Rle_trans with (1 := Hd). unfold U, prec. simpl. lra.
  - apply Rle_trans with (1 := He). unfold ETA, emin. lra.
Qed.

(** Sums of two floats do not underflow: their error is relative. *)
Lemma fl_sum_error : forall x y, float x -> float y -> exists d, Rabs d <= U /\ fl (x + y) = (x + y) * (1 + d).
Proof.
  intros x y Hx Hy.
  destruct (FLT_plus_error_N_ex radix2 emin prec (fun z => negb (Z.even z)) x y Hx Hy) as (d & Hd & H).
  exists d. split; [| exact H].
  apply Rle_trans with (1 := Hd).
  assert (u_ro radix2 prec = U) as -> by (unfold u_ro, U, prec; simpl; lra).
  assert (HU := U_positive).
  apply Rmult_le_reg_r with (1 + U); [lra |].
  unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. nra.
Qed.

(** The neighbor of a rounded result on the safe side: `up` and `down` of src/ops/directed.ts. *)
Definition up (x : R) : R := succ radix2 fexp (fl x).
Definition down (x : R) : R := pred radix2 fexp (fl x).

Theorem up_above : forall x, x <= up x.
Proof. intro x. apply succ_round_ge_id; [apply fexp_valid | apply valid_rnd_N]. Qed.

Theorem down_below : forall x, down x <= x.
Proof. intro x. apply pred_round_le_id; [apply fexp_valid | apply valid_rnd_N]. Qed.

(** `addUp`, `subDown`, `mulUp`, ... of src/ops/outward.ts. *)
Definition addUp a b := up (a + b).
Definition addDown a b := down (a + b).
Definition subUp a b := up (a - b).
Definition subDown a b := down (a - b).
Definition mulUp a b := up (a * b).

Lemma addUp_above : forall a b, a + b <= addUp a b. Proof. intros; apply up_above. Qed.
Lemma addDown_below : forall a b, addDown a b <= a + b. Proof. intros; apply down_below. Qed.
Lemma subUp_above : forall a b, a - b <= subUp a b. Proof. intros; apply up_above. Qed.
Lemma subDown_below : forall a b, subDown a b <= a - b. Proof. intros; apply down_below. Qed.
Lemma mulUp_above : forall a b, a * b <= mulUp a b. Proof. intros; apply up_above. Qed.
