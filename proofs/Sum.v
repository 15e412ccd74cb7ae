(** A sum of products and addends in any order, any of its steps fused: the standard model of every float32 execution of a layer that the
    semantics `deployed` covers (src/core/rounding.ts, `gamma`). *)
From Coq Require Import Reals Lra Lia ZArith List Permutation.
From Flocq Require Import Core.
From Mixtrain Require Import Rounding.
Open Scope R_scope.

(** An order of summation. *)
Inductive tree : Type :=
| Product (a b : R)           (* a b, rounded *)
| Addend (c : R)              (* a float that is read as it is: a bias *)
| Plus (s t : tree)           (* s + t, rounded *)
| Fused (a b : R) (t : tree). (* a b + t with one rounding *)

(** What an execution computes. *)
Fixpoint computed (t : tree) : R :=
  match t with
  | Product a b => fl (a * b)
  | Addend c => c
  | Plus s t => fl (computed s + computed t)
  | Fused a b t => fl (a * b + computed t)
  end.

(** The terms that are added, in their order. *)
Fixpoint terms (t : tree) : list R :=
  match t with
  | Product a b => a * b :: nil
  | Addend c => c :: nil
  | Plus s t => terms s ++ terms t
  | Fused a b t => a * b :: terms t
  end.

Fixpoint total (l : list R) : R := match l with nil => 0 | x :: l => x + total l end.
Definition exact (t : tree) : R := total (terms t).
Definition magnitude (t : tree) : R := total (map Rabs (terms t)).

(** Terms that are not 0. *)
Definition nonzero (x : R) : nat := if Req_EM_T x 0 then 0 else 1.
Fixpoint count (l : list R) : nat := match l with nil => 0 | x :: l => nonzero x + count l end.
Definition live (t : tree) : nat := count (terms t).

(** Every addend is a float. *)
Fixpoint wellformed (t : tree) : Prop :=
  match t with
  | Product _ _ => True
  | Addend c => float c
  | Plus s t => wellformed s /\ wellformed t
  | Fused _ _ t => wellformed t
  end.

Lemma total_app : forall l m, total (l ++ m) = total l + total m.
Proof. induction l; intro m; simpl; [lra | rewrite IHl; lra]. Qed.

Lemma count_app : forall l m, count (l ++ m) = (count l + count m)%nat.
Proof. induction l; intro m; simpl; [reflexivity | rewrite IHl; lia]. Qed.

Lemma total_permutation : forall l m, Permutation l m -> total l = total m.
Proof. induction 1; simpl; lra. Qed.

(** The exact value and the magnitude do not depend on the order. *)
Theorem order_is_free : forall s t, Permutation (terms s) (terms t) -> exact s = exact t /\ magnitude s = magnitude t.
Proof. intros s t H. split; apply total_permutation; [exact H | apply Permutation_map; exact H]. Qed.

Lemma magnitude_nonnegative : forall l, 0 <= total (map Rabs l).
Proof. induction l as [| x l IH]; simpl; [lra | assert (H := Rabs_pos x); lra]. Qed.

Lemma total_magnitude : forall l, Rabs (total l) <= total (map Rabs l).
Proof.
  induction l as [| x l IH]; simpl; [rewrite Rabs_R0; lra |].
  apply Rle_trans with (1 := Rabs_triang _ _). lra.
Qed.

Lemma computed_float : forall t, wellformed t -> float (computed t).
Proof. destruct t; simpl; intros H; [apply fl_float | exact H | apply fl_float | apply fl_float]. Qed.

Lemma nonzero_cases : forall x, (nonzero x = 0%nat /\ x = 0) \/ nonzero x = 1%nat.
Proof. intro x. unfold nonzero. destruct (Req_EM_T x 0); auto. Qed.

Lemma nonzero_0 : forall x, nonzero x = 0%nat -> x = 0.
Proof. intros x H. destruct (nonzero_cases x) as [[_ Z] | N]; [exact Z | lia]. Qed.

Lemma dead_total : forall l, count l = 0%nat -> total l = 0 /\ total (map Rabs l) = 0.
Proof.
  induction l as [| x l IH]; simpl; [lra |].
  intro H. rewrite (nonzero_0 x) by lia. destruct IH as [-> ->]; [lia |]. rewrite Rabs_R0. lra.
Qed.

(** Where every term is 0, every execution gives 0: products are exact, and so is adding 0. *)
Lemma dead_computed : forall t, wellformed t -> live t = 0%nat -> computed t = 0.
Proof.
  induction t as [a b | c | s IHs t IHt | a b t IHt]; unfold live in *; simpl; intros W H.
  - rewrite (nonzero_0 (a * b)) by lia. apply fl_0.
  - apply nonzero_0; lia.
  - rewrite count_app in H. destruct W. rewrite IHs, IHt by (assumption || lia).
    replace (0 + 0) with 0 by lra. apply fl_0.
  - rewrite IHt by (assumption || lia). rewrite (nonzero_0 (a * b)) by lia.
    replace (0 + 0) with 0 by lra. apply fl_0.
Qed.

(** (1 + U)^n - 1 on magnitudes, and n half-ETAs that grow with them. *)
Definition growing (n : nat) : R := (1 + U) ^ n.
Definition error (n : nat) (m : R) : R := (growing n - 1) * m + INR n * (ETA / 2) * growing n.

Lemma growing_S : forall n, growing (S n) = (1 + U) * growing n.
Proof. reflexivity. Qed.
Lemma growing_1 : forall n, 1 <= growing n.
Proof. intro n. apply pow_R1_Rle. assert (H := U_positive). lra. Qed.
Lemma growing_le : forall m n, (m <= n)%nat -> growing m <= growing n.
Proof. intros m n H. apply Rle_pow; [assert (HU := U_positive); lra | exact H]. Qed.

(** What one more rounding, of relative error d and absolute error e, makes of an error. *)
Lemma one_more : forall v x E M d e,
  Rabs (v - x) <= E -> Rabs x <= M -> Rabs d <= U -> Rabs e <= ETA / 2 ->
  Rabs (v * (1 + d) + e - x) <= (1 + U) * E + U * M + ETA / 2.
Proof.
  intros v x E M d e Hv Hx Hd He.
  replace (v * (1 + d) + e - x) with ((v - x) * (1 + d) + d * x + e) by ring.
  assert (Rabs ((v - x) * (1 + d)) <= E * (1 + U)).
  { rewrite Rabs_mult. apply Rmult_le_compat; try apply Rabs_pos; [exact Hv |].
    apply Rle_trans with (1 := Rabs_triang _ _). rewrite Rabs_R1. lra. }
  assert (Rabs (d * x) <= U * M) by (rewrite Rabs_mult; apply Rmult_le_compat; try apply Rabs_pos; assumption).
  assert (T := Rabs_triang ((v - x) * (1 + d) + d * x) e).
  assert (T' := Rabs_triang ((v - x) * (1 + d)) (d * x)). lra.
Qed.

Lemma eta_part : forall n, 0 <= INR n * (ETA / 2).
Proof. intro n. assert (He := ETA_positive). apply Rmult_le_pos; [apply pos_INR | lra]. Qed.

Lemma error_nonnegative : forall n m, 0 <= m -> 0 <= error n m.
Proof.
  intros n m Hm. unfold error. assert (H := growing_1 n). assert (P := eta_part n).
  assert (0 <= (growing n - 1) * m) by (apply Rmult_le_pos; lra).
  assert (0 <= INR n * (ETA / 2) * growing n) by (apply Rmult_le_pos; lra). lra.
Qed.

Lemma error_le : forall m n x, (m <= n)%nat -> 0 <= x -> error m x <= error n x.
Proof.
  intros m n x H Hx. unfold error.
  assert (Hg := growing_le m n H). assert (H1 := growing_1 m). assert (Hn := le_INR m n H). assert (He := ETA_positive).
  assert (P := eta_part m).
  assert (INR m * (ETA / 2) <= INR n * (ETA / 2)) by (apply Rmult_le_compat_r; lra).
  assert ((growing m - 1) * x <= (growing n - 1) * x) by (apply Rmult_le_compat_r; lra).
  assert (INR m * (ETA / 2) * growing m <= INR n * (ETA / 2) * growing n) by (apply Rmult_le_compat; lra).
  lra.
Qed.

(** Errors of two parts that are not empty, through one rounding that does not underflow. *)
Lemma error_plus : forall m n x y, (0 < m)%nat -> (0 < n)%nat -> 0 <= x -> 0 <= y ->
  (1 + U) * (error m x + error n y) + U * (x + y) <= error (m + n) (x + y).
Proof.
  intros m n x y Hm Hn Hx Hy.
  assert (forall k z, (S k <= m + n)%nat -> 0 <= z ->
    (1 + U) * error k z + U * z <= (growing (m + n) - 1) * z + INR k * (ETA / 2) * growing (m + n)) as part.
  { intros k z Hl Hz. unfold error.
    assert (Hg := growing_le (S k) (m + n) Hl). rewrite growing_S in Hg.
    assert (P := eta_part k).
    assert ((1 + U) * growing k * z <= growing (m + n) * z) by (apply Rmult_le_compat_r; lra).
    assert (INR k * (ETA / 2) * ((1 + U) * growing k) <= INR k * (ETA / 2) * growing (m + n)) by (apply Rmult_le_compat_l; lra).
    lra. }
  assert (A := part m x ltac:(lia) Hx). assert (B := part n y ltac:(lia) Hy).
  unfold error in *. rewrite plus_INR. lra.
Qed.

Lemma scaled_abs : forall v d E, Rabs v <= E -> Rabs d <= U -> Rabs (v * (1 + d)) <= (1 + U) * E.
Proof.
  intros v d E Hv Hd. rewrite Rabs_mult, Rmult_comm. apply Rmult_le_compat; try apply Rabs_pos; [| exact Hv].
  apply Rle_trans with (1 := Rabs_triang _ _). rewrite Rabs_R1. lra.
Qed.

(** **The dot product in any order** (docstring of `gamma`): with n terms that are not 0, an execution differs from the exact sum by at most
    ((1 + U)^n - 1) (sum of magnitudes) + n ETA/2 (1 + U)^n. *)
Theorem sum_error : forall t, wellformed t -> Rabs (computed t - exact t) <= error (live t) (magnitude t).
Proof.
  induction t as [a b | c | s IHs t IHt | a b t IHt]; intro W.
  - unfold exact, magnitude, live; simpl. rewrite !Rplus_0_r, Nat.add_0_r.
    destruct (nonzero_cases (a * b)) as [[-> H] | ->].
    + rewrite H, fl_0, Rminus_diag_eq, Rabs_R0 by reflexivity. unfold error; simpl. lra.
    + destruct (fl_error (a * b)) as (d & e & Hd & He & ->).
      assert (M : Rabs (a * b) <= Rabs (a * b)) by lra.
      assert (Z : Rabs (a * b - a * b) <= 0) by (rewrite Rminus_diag_eq, Rabs_R0 by reflexivity; lra).
      assert (T := one_more _ _ _ _ d e Z M Hd He).
      unfold error, growing; simpl. assert (HU := U_positive). assert (HE := ETA_positive).
      assert (0 <= ETA / 2 * U) by (apply Rmult_le_pos; lra). lra.
  - unfold exact, live, magnitude; simpl. rewrite !Rplus_0_r, Rminus_diag_eq, Rabs_R0 by reflexivity.
    apply error_nonnegative. apply Rabs_pos.
  - destruct W as [Ws Wt]. specialize (IHs Ws). specialize (IHt Wt).
    assert (Ps := magnitude_nonnegative (terms s)). assert (Pt := magnitude_nonnegative (terms t)).
    assert (exact (Plus s t) = exact s + exact t) as He by (unfold exact; simpl; apply total_app).
    assert (magnitude (Plus s t) = magnitude s + magnitude t) as Hm
      by (unfold magnitude; simpl; rewrite map_app; apply total_app).
    assert (live (Plus s t) = (live s + live t)%nat) as Hl by (unfold live; simpl; apply count_app).
    rewrite He, Hm, Hl. simpl computed. fold (magnitude s) in Ps. fold (magnitude t) in Pt.
    destruct (Nat.eq_dec (live s) 0) as [Zs | Ns].
    { assert (D := dead_total (terms s) Zs). fold (exact s) in D. fold (magnitude s) in D. destruct D as [-> ->].
      rewrite (dead_computed s Ws Zs), Zs. rewrite !Rplus_0_l, Nat.add_0_l.
      rewrite fl_of_float by (apply computed_float; exact Wt). exact IHt. }
    destruct (Nat.eq_dec (live t) 0) as [Zt | Nt].
    { assert (D := dead_total (terms t) Zt). fold (exact t) in D. fold (magnitude t) in D. destruct D as [-> ->].
      rewrite (dead_computed t Wt Zt), Zt. rewrite !Rplus_0_r, Nat.add_0_r.
      rewrite fl_of_float by (apply computed_float; exact Ws). exact IHs. }
    destruct (fl_sum_error (computed s) (computed t)) as (d & Hd & ->); try (apply computed_float; assumption).
    assert (Z : Rabs (computed s + computed t - (exact s + exact t)) <= error (live s) (magnitude s) + error (live t) (magnitude t)).
    { replace (computed s + computed t - (exact s + exact t)) with ((computed s - exact s) + (computed t - exact t)) by ring.
      apply Rle_trans with (1 := Rabs_triang _ _). lra. }
    assert (M : Rabs (exact s + exact t) <= magnitude s + magnitude t).
    { apply Rle_trans with (1 := Rabs_triang _ _).
      assert (A := total_magnitude (terms s)). assert (B := total_magnitude (terms t)). unfold exact, magnitude. lra. }
    assert (S := error_plus (live s) (live t) (magnitude s) (magnitude t) ltac:(lia) ltac:(lia) Ps Pt).
    assert (D := Rabs_triang ((computed s + computed t - (exact s + exact t)) * (1 + d)) (d * (exact s + exact t))).
    replace ((computed s + computed t) * (1 + d) - (exact s + exact t))
      with ((computed s + computed t - (exact s + exact t)) * (1 + d) + d * (exact s + exact t)) by ring.
    assert (X := scaled_abs _ d _ Z Hd).
    assert (Rabs (d * (exact s + exact t)) <= U * (magnitude s + magnitude t))
      by (rewrite Rabs_mult; apply Rmult_le_compat; try apply Rabs_pos; assumption).
    lra.
  - specialize (IHt W).
    assert (Pt := magnitude_nonnegative (terms t)). fold (magnitude t) in Pt.
    assert (exact (Fused a b t) = a * b + exact t) as -> by reflexivity.
    assert (magnitude (Fused a b t) = Rabs (a * b) + magnitude t) as -> by reflexivity.
    assert (live (Fused a b t) = (nonzero (a * b) + live t)%nat) as -> by reflexivity.
    simpl computed.
    destruct (nonzero_cases (a * b)) as [[-> Hz] | ->].
    { rewrite Hz, Rabs_R0, !Rplus_0_l, Nat.add_0_l, fl_of_float by (apply computed_float; exact W). exact IHt. }
    destruct (fl_error (a * b + computed t)) as (d & e & Hd & He & ->).
    assert (Z : Rabs (a * b + computed t - (a * b + exact t)) <= error (live t) (magnitude t)).
    { replace (a * b + computed t - (a * b + exact t)) with (computed t - exact t) by ring. exact IHt. }
    assert (M : Rabs (a * b + exact t) <= Rabs (a * b) + magnitude t).
    { apply Rle_trans with (1 := Rabs_triang _ _). assert (B := total_magnitude (terms t)). unfold exact, magnitude. lra. }
    assert (T := one_more _ _ _ _ d e Z M Hd He).
    apply Rle_trans with (1 := T). clear T Z M.
    change (1 + live t)%nat with (S (live t)). unfold error. rewrite growing_S, S_INR.
    assert (HU := U_positive). assert (HE := ETA_positive). assert (Hg := growing_1 (live t)). assert (A := Rabs_pos (a * b)).
    assert (1 <= (1 + U) * growing (live t)) by nra.
    assert ((1 + U) * Rabs (a * b) <= (1 + U) * growing (live t) * Rabs (a * b)) by (apply Rmult_le_compat_r; nra).
    assert (ETA / 2 * 1 <= ETA / 2 * ((1 + U) * growing (live t))) by (apply Rmult_le_compat_l; lra).
    lra.
Qed.

(** gamma_n = n U / (1 - n U). *)
Definition gamma (n : nat) : R := INR n * U / (1 - INR n * U).

Lemma growing_bound : forall n, INR n * U < 1 -> growing n * (1 - INR n * U) <= 1.
Proof.
  assert (HU := U_positive).
  induction n as [| n IH]; intro H.
  - unfold growing. simpl. lra.
  - rewrite S_INR in *. rewrite growing_S. assert (P := pos_INR n).
    assert (IH' : growing n * (1 - INR n * U) <= 1) by (apply IH; nra).
    assert (G := growing_1 n).
    assert ((1 + U) * (1 - (INR n + 1) * U) <= 1 - INR n * U) by nra.
    assert (growing n * ((1 + U) * (1 - (INR n + 1) * U)) <= growing n * (1 - INR n * U)) by (apply Rmult_le_compat_l; lra).
    lra.
Qed.

Lemma growing_gamma : forall n, INR n * U < 1 -> growing n - 1 <= gamma n.
Proof.
  intros n H. unfold gamma. apply Rmult_le_reg_r with (1 - INR n * U); [lra |].
  unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. assert (B := growing_bound n H). lra.
Qed.

(** At most 80,000 terms, as the code demands (`TERMS`). *)
Definition short (n : nat) : Prop := INR n <= 80000.

Lemma short_small : forall n, short n -> INR n * U <= 48 / 10000.
Proof. intros n H. unfold short in H. rewrite U_value. lra. Qed.

Lemma gamma_nonnegative : forall n, short n -> 0 <= gamma n.
Proof.
  intros n H. apply short_small in H. assert (HU := U_positive). assert (P := pos_INR n).
  unfold gamma. apply Rmult_le_pos; [apply Rmult_le_pos; lra |]. left. apply Rinv_0_lt_compat. lra.
Qed.

Lemma gamma_le : forall m n, (m <= n)%nat -> short n -> gamma m <= gamma n.
Proof.
  intros m n H S. apply le_INR in H. apply short_small in S. assert (HU := U_positive). assert (P := pos_INR m).
  assert (INR m * U <= INR n * U) by (apply Rmult_le_compat_r; lra).
  assert (0 <= INR m * U) by (apply Rmult_le_pos; lra).
  unfold gamma, Rdiv. apply Rmult_le_compat; try lra.
  - left. apply Rinv_0_lt_compat. lra.
  - apply Rinv_le; lra.
Qed.

(** **The same with gamma**: an execution of n terms is off by at most gamma_n (sum of magnitudes) + n ETA. *)
Theorem sum_gamma : forall t n, wellformed t -> (live t <= n)%nat -> short n ->
  Rabs (computed t - exact t) <= gamma n * magnitude t + INR n * ETA.
Proof.
  intros t n W L S. assert (E := sum_error t W).
  assert (M := magnitude_nonnegative (terms t)). fold (magnitude t) in M.
  assert (E' := error_le _ _ _ L M). assert (H := short_small n S).
  assert (G := growing_gamma n ltac:(lra)). assert (B := growing_bound n ltac:(lra)).
  assert (G1 := growing_1 n). assert (growing n <= 2) by nra.
  assert (P := eta_part n).
  assert (E2 := Rle_trans _ _ _ E E'). unfold error in E2.
  assert ((growing n - 1) * magnitude t <= gamma n * magnitude t) by (apply Rmult_le_compat_r; lra).
  assert (INR n * (ETA / 2) * growing n <= INR n * (ETA / 2) * 2) by (apply Rmult_le_compat_l; lra).
  lra.
Qed.

(** The parts of an execution, all of whose results appear on the way. *)
Fixpoint part (s t : tree) : Prop :=
  s = t \/ match t with Plus a b => part s a \/ part s b | Fused _ _ b => part s b | _ => False end.

Lemma part_magnitude : forall t s, part s t -> magnitude s <= magnitude t /\ (live s <= live t)%nat /\ (wellformed t -> wellformed s).
Proof.
  induction t as [a b | c | u IHu v IHv | a b t IHt]; intros s H; simpl in H.
  - destruct H as [-> | []]. split; [lra |]. split; [lia | auto].
  - destruct H as [-> | []]. split; [lra |]. split; [lia | auto].
  - destruct H as [-> | H]; [split; [lra |]; split; [lia | auto] |].
    assert (Pu := magnitude_nonnegative (terms u)). assert (Pv := magnitude_nonnegative (terms v)).
    assert (magnitude (Plus u v) = magnitude u + magnitude v) as -> by (unfold magnitude; simpl; rewrite map_app; apply total_app).
    assert (live (Plus u v) = (live u + live v)%nat) as -> by (unfold live; simpl; apply count_app).
    fold (magnitude u) in Pu. fold (magnitude v) in Pv.
    destruct H as [H | H].
    + destruct (IHu s H) as (A & B & C). split; [lra |]. split; [lia | intros []; auto].
    + destruct (IHv s H) as (A & B & C). split; [lra |]. split; [lia | intros []; auto].
  - destruct H as [-> | H]; [split; [lra |]; split; [lia | auto] |].
    assert (Pt := magnitude_nonnegative (terms t)). fold (magnitude t) in Pt. assert (A := Rabs_pos (a * b)).
    assert (magnitude (Fused a b t) = Rabs (a * b) + magnitude t) as -> by reflexivity.
    assert (live (Fused a b t) = (nonzero (a * b) + live t)%nat) as -> by reflexivity.
    destruct (IHt s H) as (B & C & D). split; [lra |]. split; [lia | exact D].
Qed.

(** **Nothing overflows** where the magnitudes add up to at most 2^124 (`LARGE`): every intermediate result is below 2^126. *)
Theorem no_overflow : forall t s n, wellformed t -> (live t <= n)%nat -> short n ->
  magnitude t <= bpow radix2 124 -> part s t -> Rabs (computed s) < bpow radix2 126.
Proof.
  intros t s n W L S M P. destruct (part_magnitude t s P) as (A & B & C).
  assert (E := sum_gamma s n (C W) ltac:(lia) S).
  assert (X := total_magnitude (terms s)). fold (exact s) in X. fold (magnitude s) in X.
  assert (H := short_small n S). assert (HU := U_positive). assert (Pn := pos_INR n).
  assert (0 <= INR n * U) by (apply Rmult_le_pos; lra).
  assert (G : gamma n <= 1).
  { unfold gamma. apply Rmult_le_reg_r with (1 - INR n * U); [lra |]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra. }
  assert (Ms := magnitude_nonnegative (terms s)). fold (magnitude s) in Ms.
  assert (gamma n * magnitude s <= 1 * magnitude s) by (apply Rmult_le_compat_r; lra).
  assert (INR n * ETA <= 1).
  { unfold short in S. assert (INR n * ETA <= 80000 * ETA) by (apply Rmult_le_compat_r; [left; apply ETA_positive | exact S]).
    assert (ETA <= / 16777216) by (rewrite <- U_value; apply bpow_le; lia). lra. }
  assert (T := Rabs_triang (computed s - exact s) (exact s)).
  replace (computed s - exact s + exact s) with (computed s) in T by ring.
  assert (bpow radix2 126 = 4 * bpow radix2 124) as -> by (change 126%Z with (2 + 124)%Z; rewrite bpow_plus; simpl (bpow radix2 2); lra).
  assert (1 < bpow radix2 124) by (change 1 with (bpow radix2 0); apply bpow_lt; lia).
  lra.
Qed.
