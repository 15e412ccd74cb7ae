(** Backward walks that hold in spite of rounding (the comment at the head of the slack in the room of the bounds), and networks of layers.

    Vectors are functions of an index below a length. A node x of length m is open with coefficients A, functions as they were computed; what a
    step loses is counted in the slack of the node. h stands for ETA, g for gamma of the length of the sum that is spoken of. *)
From Coq Require Import Reals Lra Lia ZArith List.
From Flocq Require Import Core.
From Mixtrain Require Import Rounding Sum Bounds.
Import ListNotations.
Open Scope R_scope.

Definition dot (n : nat) (a x : nat -> R) : R := sum n (fun i => a i * x i).

Lemma sum_exchange : forall p q f, sum p (fun j => sum q (fun i => f j i)) = sum q (fun i => sum p (fun j => f j i)).
Proof.
  induction p; intros q f; simpl.
  - induction q; simpl; [reflexivity | rewrite <- IHq; lra].
  - rewrite IHp, <- sum_plus. reflexivity.
Qed.

(** A product is not below minus its magnitude. *)
Lemma product_low : forall a d D, Rabs d <= D -> - (Rabs a * D) <= a * d.
Proof.
  intros a d D H. assert (P := Rabs_pos a).
  assert (Rabs (a * d) <= Rabs a * D) by (rewrite Rabs_mult; apply Rmult_le_compat_l; assumption).
  assert (T := Rle_abs (- (a * d))). rewrite Rabs_Ropp in T. lra.
Qed.

(** 1. A product x = W z + d, d what an execution is off by, |d| <= D (0 in `real`): the coefficients A' of z are computed from A W. *)
Theorem product_step : forall p q A A' (W : nat -> nat -> R) x z d D Z g h,
  (forall j, (j < p)%nat -> x j = sum q (fun i => W j i * z i) + d j) ->
  (forall j, (j < p)%nat -> Rabs (d j) <= D j) ->
  (forall i, (i < q)%nat -> Rabs (z i) <= Z i) ->
  (forall i, (i < q)%nat -> Rabs (A' i - sum p (fun j => A j * W j i)) <= g * sum p (fun j => Rabs (A j) * Rabs (W j i)) + h) ->
  dot q A' z - sum p (fun j => Rabs (A j) * (g * sum q (fun i => Rabs (W j i) * Z i) + D j)) - h * sum q Z <= dot p A x.
Proof.
  intros p q A A' W x z d D Z g h Hx Hd Hz HA.
  assert (E : dot p A x = sum q (fun i => sum p (fun j => A j * W j i) * z i) + dot p A d).
  { unfold dot. rewrite (sum_eq p (fun i => A i * x i) (fun j => sum q (fun i => A j * W j i * z i) + A j * d j)).
    - rewrite sum_plus, sum_exchange. f_equal. apply sum_eq. intros i _. rewrite <- (Rmult_comm (z i)), <- sum_scale.
      apply sum_eq. intros. ring.
    - intros j L. rewrite Hx by exact L. rewrite Rmult_plus_distr_l. f_equal. rewrite <- sum_scale. apply sum_eq. intros. ring. }
  assert (X : dot q A' z - sum q (fun i => (g * sum p (fun j => Rabs (A j) * Rabs (W j i)) + h) * Z i)
    <= sum q (fun i => sum p (fun j => A j * W j i) * z i)).
  { unfold dot. rewrite <- sum_minus. apply sum_le. intros i L. specialize (HA i L). specialize (Hz i L).
    assert (Q := product_low (z i) (sum p (fun j => A j * W j i) - A' i) (g * sum p (fun j => Rabs (A j) * Rabs (W j i)) + h)).
    rewrite Rabs_minus_sym in Q. specialize (Q HA).
    assert (0 <= g * sum p (fun j => Rabs (A j) * Rabs (W j i)) + h) by (apply Rle_trans with (2 := HA); apply Rabs_pos).
    assert (Rabs (z i) * (g * sum p (fun j => Rabs (A j) * Rabs (W j i)) + h)
      <= Z i * (g * sum p (fun j => Rabs (A j) * Rabs (W j i)) + h)) by (apply Rmult_le_compat_r; assumption).
    lra. }
  assert (Y : - sum p (fun j => Rabs (A j) * D j) <= dot p A d).
  { unfold dot. replace (- sum p (fun j => Rabs (A j) * D j)) with ((-1) * sum p (fun j => Rabs (A j) * D j)) by ring.
    rewrite <- sum_scale. apply sum_le. intros j L. assert (Q := product_low (A j) (d j) (D j) (Hd j L)). lra. }
  assert (S : sum q (fun i => (g * sum p (fun j => Rabs (A j) * Rabs (W j i)) + h) * Z i)
    = sum p (fun j => Rabs (A j) * (g * sum q (fun i => Rabs (W j i) * Z i))) + h * sum q Z).
  { rewrite (sum_eq q _ (fun i => sum p (fun j => Rabs (A j) * (g * (Rabs (W j i) * Z i))) + h * Z i)).
    - rewrite sum_plus, sum_scale, sum_exchange. f_equal. apply sum_eq. intros j _.
      rewrite <- sum_scale, <- sum_scale. apply sum_eq. intros. ring.
    - intros i _. rewrite Rmult_plus_distr_r. f_equal.
      replace (g * sum p (fun j => Rabs (A j) * Rabs (W j i)) * Z i) with (g * Z i * sum p (fun j => Rabs (A j) * Rabs (W j i))) by ring.
      rewrite <- sum_scale. apply sum_eq. intros. ring. }
  assert (T : sum p (fun j => Rabs (A j) * (g * sum q (fun i => Rabs (W j i) * Z i) + D j))
    = sum p (fun j => Rabs (A j) * (g * sum q (fun i => Rabs (W j i) * Z i))) + sum p (fun j => Rabs (A j) * D j)).
  { rewrite <- sum_plus. apply sum_eq. intros. ring. }
  lra.
Qed.

(** 2. A point b added, x = z + b + d: the offset gains o, computed from A . b with its terms through few enough roundings. *)
Theorem point_step : forall m A x z b d D g e o,
  (forall i, (i < m)%nat -> x i = z i + b i + d i) ->
  (forall i, (i < m)%nat -> Rabs (d i) <= D i) ->
  Rabs (o - dot m A b) <= g * sum m (fun i => Rabs (A i) * Rabs (b i)) + e ->
  dot m A z + o - sum m (fun i => Rabs (A i) * (g * Rabs (b i) + D i)) - e <= dot m A x.
Proof.
  intros m A x z b d D g e o Hx Hd Ho.
  assert (E : dot m A x = dot m A z + dot m A b + dot m A d).
  { unfold dot. rewrite <- !sum_plus. apply sum_eq. intros i L. rewrite Hx by exact L. ring. }
  assert (Y : - sum m (fun i => Rabs (A i) * D i) <= dot m A d).
  { unfold dot. replace (- sum m (fun i => Rabs (A i) * D i)) with ((-1) * sum m (fun i => Rabs (A i) * D i)) by ring.
    rewrite <- sum_scale. apply sum_le. intros i L. assert (Q := product_low (A i) (d i) (D i) (Hd i L)). lra. }
  assert (T : sum m (fun i => Rabs (A i) * (g * Rabs (b i) + D i))
    = g * sum m (fun i => Rabs (A i) * Rabs (b i)) + sum m (fun i => Rabs (A i) * D i)).
  { rewrite <- sum_scale, <- sum_plus. apply sum_eq. intros. ring. }
  apply Rabs_le_inv in Ho. lra.
Qed.

(** 4., and 3. as the case of one exact line: x lies above p z + t and, where a coefficient is negative, below p z + t; the coefficient of z is
    A p, computed with an error of at most u |A p| + h; the lines are true of the exact values, an execution is off by d. *)
Theorem line_step : forall m A A' p t x y z d D Z u h e o g,
  (forall i, (i < m)%nat -> x i = y i + d i) ->
  (forall i, (i < m)%nat -> Rabs (d i) <= D i) ->
  (forall i, (i < m)%nat -> 0 <= A i -> p i * z i + t i <= y i) ->
  (forall i, (i < m)%nat -> A i < 0 -> y i <= p i * z i + t i) ->
  (forall i, (i < m)%nat -> Rabs (z i) <= Z i) ->
  (forall i, (i < m)%nat -> Rabs (A' i - A i * p i) <= u * Rabs (A i * p i) + h) ->
  Rabs (o - dot m A t) <= g * sum m (fun i => Rabs (A i) * Rabs (t i)) + e ->
  dot m A' z + o - sum m (fun i => Rabs (A i) * (u * Rabs (p i) * Z i + g * Rabs (t i) + D i)) - h * sum m Z - e <= dot m A x.
Proof.
  intros m A A' p t x y z d D Z u h e o g Hx Hd Hl Hu Hz HA Ho.
  assert (X : dot m A' z + dot m A t - sum m (fun i => Rabs (A i) * (u * Rabs (p i) * Z i + D i) + h * Z i) <= dot m A x).
  { unfold dot. rewrite <- sum_plus, <- sum_minus. apply sum_le. intros i L.
    rewrite (Hx i L). specialize (Hd i L). specialize (Hz i L). specialize (HA i L).
    assert (Y : A i * (p i * z i + t i) <= A i * y i).
    { destruct (Rle_dec 0 (A i)) as [P | N].
      - apply Rmult_le_compat_l; [exact P | apply Hl; assumption].
      - assert (A i < 0) by lra. assert (Q := Hu i L H). nra. }
    assert (Q := product_low (A i) (d i) (D i) Hd).
    assert (R := product_low (z i) (A i * p i - A' i) (u * Rabs (A i * p i) + h)). rewrite Rabs_minus_sym in R. specialize (R HA).
    assert (0 <= u * Rabs (A i * p i) + h) by (apply Rle_trans with (2 := HA); apply Rabs_pos).
    assert (Rabs (z i) * (u * Rabs (A i * p i) + h) <= Z i * (u * Rabs (A i * p i) + h)) by (apply Rmult_le_compat_r; assumption).
    rewrite Rabs_mult in *. lra. }
  assert (T : sum m (fun i => Rabs (A i) * (u * Rabs (p i) * Z i + g * Rabs (t i) + D i)) + h * sum m Z
    = sum m (fun i => Rabs (A i) * (u * Rabs (p i) * Z i + D i) + h * Z i) + g * sum m (fun i => Rabs (A i) * Rabs (t i))).
  { rewrite <- !sum_scale, <- !sum_plus. apply sum_eq. intros. ring. }
  apply Rabs_le_inv in Ho. lra.
Qed.

(** 5. Two rows meet at z: their sum is rounded once, and additions do not underflow. *)
Theorem merge_step : forall m A B z Z,
  (forall i, float (A i)) -> (forall i, float (B i)) ->
  (forall i, (i < m)%nat -> Rabs (z i) <= Z i) ->
  dot m (fun i => fl (A i + B i)) z - sum m (fun i => Rabs (fl (A i + B i)) * (102 / 100 * U * Z i)) <= dot m A z + dot m B z.
Proof.
  intros m A B z Z FA FB Hz. unfold dot. rewrite <- sum_minus, <- sum_plus. apply sum_le. intros i L.
  specialize (Hz i L). destruct (fl_sum_error (A i) (B i) (FA i) (FB i)) as (d & Hd & E).
  set (s := A i + B i) in *. set (v := fl s) in *.
  assert (HU := U_positive). rewrite U_value in *.
  assert (Rabs s * (1 - / 16777216) <= Rabs v).
  { rewrite E, Rabs_mult. apply Rmult_le_compat_l; [apply Rabs_pos |].
    assert (T := Rabs_triang_inv 1 (- d)). rewrite Rabs_R1, Rabs_Ropp in T. replace (1 - - d) with (1 + d) in T by ring. lra. }
  assert (Rabs (s - v) <= Rabs v * (102 / 100 * / 16777216)).
  { replace (s - v) with (- (s * d)) by (rewrite E; ring). rewrite Rabs_Ropp, Rabs_mult.
    assert (Rabs s * Rabs d <= Rabs s * / 16777216) by (apply Rmult_le_compat_l; [apply Rabs_pos | exact Hd]).
    assert (P := Rabs_pos s). lra. }
  assert (Q := product_low (z i) (s - v) (Rabs v * (102 / 100 * / 16777216)) H0).
  assert (Rabs (z i) * (Rabs v * (102 / 100 * / 16777216)) <= Z i * (Rabs v * (102 / 100 * / 16777216))).
  { apply Rmult_le_compat_r; [| exact Hz]. apply Rmult_le_pos; [apply Rabs_pos | lra]. }
  replace (A i * z i + B i * z i) with (s * z i) by (unfold s; ring). lra.
Qed.

(** 7. The end at a box c +- r, where o was computed from A . c. *)
Theorem end_step : forall m A v c r g e o,
  (forall i, (i < m)%nat -> Rabs (v i - c i) <= r i) ->
  Rabs (o - dot m A c) <= g * sum m (fun i => Rabs (A i) * Rabs (c i)) + e ->
  o - sum m (fun i => Rabs (A i) * (r i + g * Rabs (c i))) - e <= dot m A v.
Proof.
  intros m A v c r g e o Hv Ho.
  assert (X : dot m A c - sum m (fun i => Rabs (A i) * r i) <= dot m A v).
  { unfold dot. rewrite <- sum_minus. apply sum_le. intros i L.
    assert (Q := product_low (A i) (v i - c i) (r i) (Hv i L)). lra. }
  assert (T : sum m (fun i => Rabs (A i) * (r i + g * Rabs (c i)))
    = sum m (fun i => Rabs (A i) * r i) + g * sum m (fun i => Rabs (A i) * Rabs (c i))).
  { rewrite <- sum_scale, <- sum_plus. apply sum_eq. intros. ring. }
  apply Rabs_le_inv in Ho. lra.
Qed.

(** ** A walk

    What a walk keeps is `functional >= value of the open nodes + offset - error`. A step from value v to v' gains o and loses e; offsets are
    added downward and errors upward, as the walk does, and the bound is read off by a subtraction that is rounded downward. *)
Record step := { from : R; gain : R; loss : R; to : R; true_step : to + gain - loss <= from }.

Fixpoint chained (v : R) (steps : list step) : Prop :=
  match steps with nil => v = 0 | s :: rest => from s = v /\ chained (to s) rest end.

Fixpoint offsets (o : R) (steps : list step) : R := match steps with nil => o | s :: rest => offsets (addDown o (gain s)) rest end.
Fixpoint errors (e : R) (steps : list step) : R := match steps with nil => e | s :: rest => errors (addUp e (loss s)) rest end.

Theorem walk_kept : forall steps v o e functional,
  v + o - e <= functional -> chained v steps -> offsets o steps - errors e steps <= functional.
Proof.
  induction steps as [| s rest IH]; simpl; intros v o e functional H C.
  - subst v. lra.
  - destruct C as [F C]. apply IH with (v := to s); [| exact C].
    assert (T := true_step s). assert (L := addDown_below o (gain s)). assert (G := addUp_above e (loss s)). rewrite F in T. lra.
Qed.

(** **A walk that closes every node bounds its functional from below.** *)
Theorem walk_sound : forall steps functional, chained functional steps ->
  subDown (offsets 0 steps) (errors 0 steps) <= functional.
Proof.
  intros steps functional C. apply Rle_trans with (1 := subDown_below _ _).
  apply walk_kept with (v := functional); [lra | exact C].
Qed.

(** ** Composition: a graph in its order

    Node k has a value v k, exact or as an execution computed it, and a box. If the rule of each node encloses its value whenever its operands,
    which come before it, lie in their boxes, every node lies in its box (`propagate`). *)
Theorem composition : forall (X : Type) (inside : nat -> X -> Prop) (v : nat -> X),
  (forall k, (forall i, (i < k)%nat -> inside i (v i)) -> inside k (v k)) -> forall k, inside k (v k).
Proof. intros X inside v H. apply (well_founded_induction lt_wf). exact H. Qed.
