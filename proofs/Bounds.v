(** The constants and the interval rule of src/ops/outward.ts: errors that are themselves computed in floats. *)
From Coq Require Import Reals Lra Lia ZArith.
From Flocq Require Import Core.
From Mixtrain Require Import Rounding Sum.
Open Scope R_scope.

(** A float constant that `gamma(n)` gives: not below 1.02 n U. *)
Definition covers_gamma (g : R) (n : nat) : Prop := 102 / 100 * (INR n * U) <= g.
(** A float constant that `growth(n)` gives: not below 1 + 1.02 (n + 1) U. *)
Definition covers_growth (g : R) (n : nat) : Prop := 1 + 102 / 100 * (INR (S n) * U) <= g.

Definition notFaint (x : R) : R := Rmax x FAINT.
(** `errorOfSum`, with g = gamma(n). *)
Definition errorOfSum (x g : R) : R := notFaint (mulUp x g).
(** `majorant`, with g = growth(n). *)
Definition majorant (m g : R) : R := notFaint (mulUp m g).

Lemma FAINT_value : FAINT = bpow radix2 69 * ETA.
Proof. unfold FAINT, ETA. rewrite <- bpow_plus. reflexivity. Qed.

Lemma bpow_num : forall z, (0 <= z)%Z -> bpow radix2 z = IZR (2 ^ z).
Proof. intros z H. rewrite <- IZR_Zpower by exact H. reflexivity. Qed.

(** gamma_n is by 1.5 % less than what the code multiplies with. *)
Lemma gamma_factor : forall n, short n -> gamma n <= 9852 / 10000 * (102 / 100 * (INR n * U)).
Proof.
  intros n S. assert (H := short_small n S). assert (P := pos_INR n). assert (HU := U_positive).
  assert (0 <= INR n * U) by (apply Rmult_le_pos; lra).
  unfold gamma. apply Rmult_le_reg_r with (1 - INR n * U); [lra |].
  unfold Rdiv at 1. rewrite Rmult_assoc, Rinv_l by lra. nra.
Qed.

(** **`errorOfSum`**: at least gamma_n x + N ETA for x >= 0 and N <= 2^40. *)
Theorem errorOfSum_above : forall x g n N, 0 <= x -> short n -> covers_gamma g n -> N <= bpow radix2 40 ->
  gamma n * x + N * ETA <= errorOfSum x g.
Proof.
  intros x g n N Hx S G HN. unfold covers_gamma in G.
  assert (A := mulUp_above x g). assert (F := gamma_factor n S).
  assert (gamma n * x <= 9852 / 10000 * (x * g)).
  { apply Rle_trans with (9852 / 10000 * (102 / 100 * (INR n * U)) * x); [apply Rmult_le_compat_r; assumption |].
    assert (102 / 100 * (INR n * U) * x <= g * x) by (apply Rmult_le_compat_r; assumption). lra. }
  assert (HE := ETA_positive).
  assert (N * ETA <= bpow radix2 40 * ETA) by (apply Rmult_le_compat_r; lra).
  assert (L := Rmax_l (mulUp x g) FAINT). assert (R := Rmax_r (mulUp x g) FAINT).
  unfold errorOfSum, notFaint. rewrite FAINT_value in *.
  rewrite !bpow_num in * by lia. simpl (2 ^ 40)%Z in *. simpl (2 ^ 69)%Z in *.
  destruct (Rle_dec (590295810358705651712 * ETA) (x * g)); lra.
Qed.

(** **`majorant`**: at least the sum M of non-negative products that was computed as m, and by 2^22 ETA more. *)
Theorem majorant_above : forall M m g n N, 0 <= m -> short n -> covers_growth g n ->
  N <= bpow radix2 20 -> Rabs (m - M) <= gamma n * M + N * ETA ->
  M + bpow radix2 22 * ETA <= majorant m g.
Proof.
  intros M m g n N Hm S G HN E. unfold covers_growth in G. rewrite S_INR in G.
  assert (H := short_small n S). assert (P := pos_INR n). assert (HU := U_positive). assert (HE := ETA_positive).
  set (q := INR n * U) in *. assert (Q : 0 <= q) by (apply Rmult_le_pos; lra).
  replace ((INR n + 1) * U) with (q + U) in G by (unfold q; ring).
  assert (X : M - m <= gamma n * M + N * ETA) by (assert (T := Rle_abs (M - m)); rewrite Rabs_minus_sym in T; lra).
  (* (1 - 2 q) M <= (1 - q)(m + N ETA) *)
  assert (X2 : (1 - 2 * q) * M <= (1 - q) * (m + N * ETA)).
  { assert (gamma n * (1 - q) = q) by (unfold gamma; fold q; field; lra).
    assert ((1 - q) * (M - m) <= (1 - q) * (gamma n * M + N * ETA)) by (apply Rmult_le_compat_l; lra).
    replace ((1 - q) * (gamma n * M + N * ETA)) with (gamma n * (1 - q) * M + (1 - q) * (N * ETA)) in * by ring.
    rewrite H0 in H1. nra. }
  assert (X3 : (1 - q) <= (1 - 2 * q) * (1 + 101 / 100 * q)) by nra.
  assert (NE : N * ETA <= bpow radix2 20 * ETA) by (apply Rmult_le_compat_r; lra).
  assert (B20 : 0 < bpow radix2 20 * ETA) by (apply Rmult_lt_0_compat; [apply bpow_gt_0 | lra]).
  assert (X4 : M <= (1 + 101 / 100 * q) * (m + bpow radix2 20 * ETA)).
  { apply Rmult_le_reg_l with (1 - 2 * q); [lra |].
    apply Rle_trans with (1 := X2).
    apply Rle_trans with ((1 - q) * (m + bpow radix2 20 * ETA)); [apply Rmult_le_compat_l; lra |].
    rewrite <- Rmult_assoc. apply Rmult_le_compat_r; lra. }
  assert (A := mulUp_above m g).
  assert (m * (1 + 102 / 100 * (q + U)) <= m * g) by (apply Rmult_le_compat_l; lra).
  assert (X5 : (1 + 101 / 100 * q) * m <= m * g - m * U) by nra.
  assert (X6 : (1 + 101 / 100 * q) * (bpow radix2 20 * ETA) <= 2 * (bpow radix2 20 * ETA)) by (apply Rmult_le_compat_r; lra).
  assert (L := Rmax_l (mulUp m g) FAINT). assert (R := Rmax_r (mulUp m g) FAINT).
  unfold majorant, notFaint. rewrite FAINT_value in *.
  assert (U = 2 * bpow radix2 (-25)) by (unfold U; change (-24)%Z with (1 + -25)%Z; rewrite bpow_plus; simpl (bpow radix2 1); lra).
  rewrite U_value in *. rewrite !bpow_num in * by lia.
  simpl (2 ^ 20)%Z in *. simpl (2 ^ 22)%Z in *. simpl (2 ^ 69)%Z in *.
  destruct (Rle_dec (590295810358705651712 / 2 * ETA) m).
  - assert (m * / 16777216 >= 590295810358705651712 / 2 * ETA / 16777216) by lra. lra.
  - assert (q * m <= 48 / 10000 * m) by (apply Rmult_le_compat_r; lra). lra.
Qed.

(** ** The interval rule of a product

    One element: terms x_i w_i with x_i in c_i +- r_i, i < n. *)
Fixpoint sum (n : nat) (f : nat -> R) : R := match n with O => 0 | S k => sum k f + f k end.

Lemma sum_le : forall n f g, (forall i, (i < n)%nat -> f i <= g i) -> sum n f <= sum n g.
Proof. induction n; intros f g H; simpl; [lra |]. assert (A := H n ltac:(lia)). assert (B := IHn f g ltac:(intros; apply H; lia)). lra. Qed.
Lemma sum_eq : forall n f g, (forall i, (i < n)%nat -> f i = g i) -> sum n f = sum n g.
Proof. intros n f g H. apply Rle_antisym; apply sum_le; intros i L; rewrite H by exact L; lra. Qed.
Lemma sum_plus : forall n f g, sum n (fun i => f i + g i) = sum n f + sum n g.
Proof. induction n; intros; simpl; [lra | rewrite IHn; lra]. Qed.
Lemma sum_minus : forall n f g, sum n (fun i => f i - g i) = sum n f - sum n g.
Proof. induction n; intros; simpl; [lra | rewrite IHn; lra]. Qed.
Lemma sum_scale : forall n k f, sum n (fun i => k * f i) = k * sum n f.
Proof. induction n; intros; simpl; [lra | rewrite IHn; lra]. Qed.
Lemma sum_0 : forall n f, (forall i, (i < n)%nat -> 0 <= f i) -> 0 <= sum n f.
Proof. induction n; intros f H; simpl; [lra |]. assert (A := H n ltac:(lia)). assert (B := IHn f ltac:(intros; apply H; lia)). lra. Qed.
Lemma sum_abs : forall n f, Rabs (sum n f) <= sum n (fun i => Rabs (f i)).
Proof. induction n; intros; simpl; [rewrite Rabs_R0; lra |]. apply Rle_trans with (1 := Rabs_triang _ _). assert (A := IHn f). lra. Qed.

(** An execution of sum_i a_i b_i + bias, terms in any order: what the tree adds is a permutation of these. *)
Record executes (t : tree) (n : nat) (exactly magnitudes : R) : Prop := {
  whole : wellformed t;
  enough : (live t <= n)%nat;
  equal : exact t = exactly;
  size : magnitude t = magnitudes;
}.

Section Product.
Variable n : nat.
Hypothesis short_n : short (S n).
Variables c r w reach : nat -> R.
Hypothesis r_nonnegative : forall i, 0 <= r i.
(** k = gamma_{n+1}. *)
Let k := gamma (S n).

(** What the kernel computes for the centres. *)
Variable C : tree.
Hypothesis C_is : executes C n (sum n (fun i => c i * w i)) (sum n (fun i => Rabs (c i) * Rabs (w i))).
(** What it computes for the reaches and |W|, made a majorant. *)
Variable spread : tree.
Hypothesis spread_is : executes spread n (sum n (fun i => reach i * Rabs (w i))) (sum n (fun i => reach i * Rabs (w i))).
Hypothesis spread_nonnegative : 0 <= computed spread.
Variable growth : R.
Hypothesis growth_covers : covers_growth growth n.
Let radius := majorant (computed spread) growth.
Let value := computed C.

Lemma short_smaller : short n.
Proof. unfold short in *. rewrite S_INR in short_n. lra. Qed.

Lemma count_small : INR n <= bpow radix2 20.
Proof. assert (S := short_smaller). unfold short in S. rewrite bpow_num by lia. simpl (2 ^ 20)%Z. lra. Qed.

Lemma radius_above : sum n (fun i => reach i * Rabs (w i)) + bpow radix2 22 * ETA <= radius.
Proof.
  unfold radius. apply majorant_above with (n := n) (N := INR n); auto using short_smaller, count_small.
  destruct spread_is as [W L E M]. assert (G := sum_gamma spread n W L short_smaller). rewrite E, M in G. exact G.
Qed.

Lemma value_near : Rabs (value - sum n (fun i => c i * w i)) <= k * sum n (fun i => Rabs (c i) * Rabs (w i)) + INR n * ETA.
Proof.
  destruct C_is as [W L E M]. assert (G := sum_gamma C n W L short_smaller). rewrite E, M in G.
  assert (gamma n <= k) by (apply gamma_le; [lia | exact short_n]).
  assert (0 <= sum n (fun i => Rabs (c i) * Rabs (w i))) by (apply sum_0; intros; apply Rmult_le_pos; apply Rabs_pos).
  assert (gamma n * sum n (fun i => Rabs (c i) * Rabs (w i)) <= k * sum n (fun i => Rabs (c i) * Rabs (w i)))
    by (apply Rmult_le_compat_r; assumption).
  unfold value. lra.
Qed.

Lemma etas : 0 <= INR n * ETA /\ INR n * ETA + INR (S n) * ETA <= bpow radix2 22 * ETA.
Proof.
  assert (E := ETA_positive). assert (P := pos_INR n). split; [apply Rmult_le_pos; lra |].
  rewrite S_INR. assert (B := count_small). rewrite <- Rmult_plus_distr_r. apply Rmult_le_compat_r; [lra |].
  rewrite bpow_num in B by lia. simpl (2 ^ 20)%Z in B. rewrite bpow_num by lia. simpl (2 ^ 22)%Z. lra.
Qed.

Variable x : nat -> R.
Hypothesis x_in_box : forall i, (i < n)%nat -> Rabs (x i - c i) <= r i.

Lemma distance : Rabs (sum n (fun i => x i * w i) - sum n (fun i => c i * w i)) <= sum n (fun i => r i * Rabs (w i)).
Proof.
  rewrite <- sum_minus. apply Rle_trans with (1 := sum_abs _ _). apply sum_le. intros i L.
  replace (x i * w i - c i * w i) with ((x i - c i) * w i) by ring. rewrite Rabs_mult.
  apply Rmult_le_compat_r; [apply Rabs_pos | apply x_in_box; exact L].
Qed.

(** **`product`, semantics `real`**: every real point of the box has its value between the computed ends. *)
Theorem product_real :
  (forall i, (i < n)%nat -> r i + k * Rabs (c i) <= reach i) ->
  subDown value radius <= sum n (fun i => x i * w i) <= addUp value radius.
Proof.
  intro reach_above.
  assert (A := radius_above). assert (V := value_near). assert (D := distance). destruct etas as [E0 E].
  assert (E1 : 0 <= INR (S n) * ETA) by (apply Rmult_le_pos; [apply pos_INR | left; apply ETA_positive]).
  assert (W : sum n (fun i => r i * Rabs (w i)) + k * sum n (fun i => Rabs (c i) * Rabs (w i)) <= sum n (fun i => reach i * Rabs (w i))).
  { rewrite <- sum_scale, <- sum_plus. apply sum_le. intros i L.
    replace (r i * Rabs (w i) + k * (Rabs (c i) * Rabs (w i))) with ((r i + k * Rabs (c i)) * Rabs (w i)) by ring.
    apply Rmult_le_compat_r; [apply Rabs_pos | apply reach_above; exact L]. }
  assert (N := Rabs_triang (sum n (fun i => x i * w i) - sum n (fun i => c i * w i)) (sum n (fun i => c i * w i) - value)).
  replace (sum n (fun i => x i * w i) - sum n (fun i => c i * w i) + (sum n (fun i => c i * w i) - value))
    with (sum n (fun i => x i * w i) - value) in N by ring.
  rewrite (Rabs_minus_sym (sum n (fun i => c i * w i)) value) in N.
  assert (Rabs (sum n (fun i => x i * w i) - value) <= radius) as B by lra.
  apply Rabs_le_inv in B. assert (L := subDown_below value radius). assert (H := addUp_above value radius). lra.
Qed.

(** **`product` with a bias, semantics `deployed`**: every execution of the layer at every float point of the box, its products and the bias in
    any order, fused or not, lies between the ends, to which the bias is added outward and which the bias's share of the error widens
    (the case of one product and its bias of the blocks in src/bounds/executions.ts). *)
Variable bias biasError : R.
Hypothesis biasError_above : k * Rabs bias <= biasError.

Theorem product_deployed : forall execution,
  executes execution (S n) (sum n (fun i => x i * w i) + bias) (sum n (fun i => Rabs (x i) * Rabs (w i)) + Rabs bias) ->
  (forall i, (i < n)%nat -> (1 + k) * r i + 2 * k * Rabs (c i) <= reach i) ->
  subDown (addDown (subDown value radius) bias) biasError <= computed execution
    <= addUp (addUp (addUp value radius) bias) biasError.
Proof.
  intros t [Wt Lt Et Mt] reach_above.
  assert (G := sum_gamma t (S n) Wt Lt short_n). rewrite Et, Mt in G. fold k in G.
  assert (K := gamma_nonnegative (S n) short_n). fold k in K.
  assert (A := radius_above). assert (V := value_near). assert (D := distance). destruct etas as [E0 E].
  assert (M : sum n (fun i => Rabs (x i) * Rabs (w i)) <= sum n (fun i => (Rabs (c i) + r i) * Rabs (w i))).
  { apply sum_le. intros i L. apply Rmult_le_compat_r; [apply Rabs_pos |].
    assert (T := Rabs_triang (x i - c i) (c i)). replace (x i - c i + c i) with (x i) in T by ring.
    assert (B := x_in_box i L). lra. }
  assert (k * sum n (fun i => Rabs (x i) * Rabs (w i)) <= k * sum n (fun i => (Rabs (c i) + r i) * Rabs (w i)))
    by (apply Rmult_le_compat_l; assumption).
  assert (W : sum n (fun i => r i * Rabs (w i)) + k * sum n (fun i => Rabs (c i) * Rabs (w i))
    + k * sum n (fun i => (Rabs (c i) + r i) * Rabs (w i)) <= sum n (fun i => reach i * Rabs (w i))).
  { rewrite <- !sum_scale, <- !sum_plus. apply sum_le. intros i L.
    replace (r i * Rabs (w i) + k * (Rabs (c i) * Rabs (w i)) + k * ((Rabs (c i) + r i) * Rabs (w i)))
      with (((1 + k) * r i + 2 * k * Rabs (c i)) * Rabs (w i)) by ring.
    apply Rmult_le_compat_r; [apply Rabs_pos | apply reach_above; exact L]. }
  set (X := sum n (fun i => x i * w i)) in *. set (Y := sum n (fun i => c i * w i)) in *.
  assert (N : Rabs (computed t - bias - value) <= radius + biasError).
  { replace (computed t - bias - value) with ((computed t - (X + bias)) + ((X - Y) + (Y - value))) by ring.
    apply Rle_trans with (1 := Rabs_triang _ _).
    assert (T := Rabs_triang (X - Y) (Y - value)). rewrite (Rabs_minus_sym Y value) in T. lra. }
  apply Rabs_le_inv in N.
  assert (L1 := subDown_below (addDown (subDown value radius) bias) biasError).
  assert (L2 := addDown_below (subDown value radius) bias). assert (L3 := subDown_below value radius).
  assert (U1 := addUp_above (addUp (addUp value radius) bias) biasError).
  assert (U2 := addUp_above (addUp value radius) bias). assert (U3 := addUp_above value radius). lra.
Qed.
End Product.
