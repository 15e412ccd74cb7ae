(** Blocks of linear ops (src/bounds/executions.ts): sums and scalings nested in any way, and sums that are partitioned (pairwise, by lanes, by tiles).

    Multiplied out, a block is a sum of terms, each a head times constants. What a term contributes to the error is told by how many roundings it
    meets on its way, and by nothing else: where they happen does not matter. *)
From Coq Require Import Reals Lra Lia ZArith List.
From Flocq Require Import Core.
From Mixtrain Require Import Rounding Sum Bounds.
Import ListNotations.
Open Scope R_scope.

(** An execution of a block: a head is a float that is read as it is; constants are those that the execution uses, folded or not. *)
Inductive block : Type :=
| Head (x : R)
| Scale (c : R) (b : block)               (* c b, rounded *)
| Add (s t : block)                       (* s + t, rounded *)
| MulAdd (c : R) (s t : block).           (* c s + t with one rounding *)

Fixpoint result (b : block) : R :=
  match b with
  | Head x => x
  | Scale c b => fl (c * result b)
  | Add s t => fl (result s + result t)
  | MulAdd c s t => fl (c * result s + result t)
  end.

(** Terms multiplied out: the roundings that each meets, and its value. *)
Definition lift (c : R) (l : list (nat * R)) : list (nat * R) := map (fun kt => (S (fst kt), c * snd kt)) l.
Fixpoint spread (b : block) : list (nat * R) :=
  match b with
  | Head x => [(0%nat, x)]
  | Scale c b => lift c (spread b)
  | Add s t => lift 1 (spread s) ++ lift 1 (spread t)
  | MulAdd c s t => lift c (spread s) ++ lift 1 (spread t)
  end.

Definition value (l : list (nat * R)) : R := total (map snd l).
Definition size (l : list (nat * R)) : R := total (map (fun kt => Rabs (snd kt)) l).
(** Sum over terms of ((1 + U)^k - 1) |t|, of gamma_k |t|, and of k |t|. *)
Definition excess (l : list (nat * R)) : R := total (map (fun kt => (growing (fst kt) - 1) * Rabs (snd kt)) l).
Definition gammas (l : list (nat * R)) : R := total (map (fun kt => gamma (fst kt) * Rabs (snd kt)) l).
Definition weighted (l : list (nat * R)) : R := total (map (fun kt => INR (fst kt) * Rabs (snd kt)) l).
(** What underflows: half of ETA behind each product, through whatever comes after it. *)
Fixpoint lost (b : block) : R :=
  match b with
  | Head _ => 0
  | Scale c b => (1 + U) * (Rabs c * lost b) + ETA / 2
  | Add s t => (1 + U) * (lost s + lost t)
  | MulAdd c s t => (1 + U) * (Rabs c * lost s + lost t) + ETA / 2
  end.

Fixpoint read (b : block) : Prop :=
  match b with
  | Head x => float x
  | Scale _ b => read b
  | Add s t | MulAdd _ s t => read s /\ read t
  end.

Lemma result_float : forall b, read b -> float (result b).
Proof. destruct b; simpl; intro H; [exact H | apply fl_float | apply fl_float | apply fl_float]. Qed.

Lemma value_app : forall l m, value (l ++ m) = value l + value m.
Proof. intros. unfold value. rewrite map_app. apply total_app. Qed.
Lemma size_app : forall l m, size (l ++ m) = size l + size m.
Proof. intros. unfold size. rewrite map_app. apply total_app. Qed.
Lemma excess_app : forall l m, excess (l ++ m) = excess l + excess m.
Proof. intros. unfold excess. rewrite map_app. apply total_app. Qed.

Lemma lift_cons : forall c k t l, lift c ((k, t) :: l) = (S k, c * t) :: lift c l.
Proof. reflexivity. Qed.
Lemma value_lift : forall c l, value (lift c l) = c * value l.
Proof.
  intros c l. unfold value. induction l as [| [k t] l IH]; [simpl; lra |].
  rewrite lift_cons. cbn [map total fst snd]. rewrite IH. ring.
Qed.
Lemma size_lift : forall c l, size (lift c l) = Rabs c * size l.
Proof.
  intros c l. unfold size. induction l as [| [k t] l IH]; [simpl; lra |].
  rewrite lift_cons. cbn [map total fst snd]. rewrite IH, Rabs_mult. ring.
Qed.
Lemma excess_lift : forall c l, excess (lift c l) = Rabs c * ((1 + U) * excess l + U * size l).
Proof.
  intros c l. unfold excess, size. induction l as [| [k t] l IH]; [simpl; lra |].
  rewrite lift_cons. cbn [map total fst snd]. rewrite IH, growing_S, Rabs_mult. ring.
Qed.

Lemma size_nonnegative : forall l, 0 <= size l.
Proof. unfold size. induction l as [| [k t] l IH]; simpl; [lra |]. assert (H := Rabs_pos t). lra. Qed.
Lemma value_size : forall l, Rabs (value l) <= size l.
Proof.
  unfold value, size. induction l as [| [k t] l IH]; simpl; [rewrite Rabs_R0; lra |].
  apply Rle_trans with (1 := Rabs_triang _ _). lra.
Qed.

Lemma scaled : forall c v x E, Rabs (v - x) <= E -> Rabs (c * v - c * x) <= Rabs c * E.
Proof.
  intros c v x E H. replace (c * v - c * x) with (c * (v - x)) by ring. rewrite Rabs_mult.
  apply Rmult_le_compat_l; [apply Rabs_pos | exact H].
Qed.
Lemma together : forall v w x y E F, Rabs (v - x) <= E -> Rabs (w - y) <= F -> Rabs (v + w - (x + y)) <= E + F.
Proof.
  intros v w x y E F H K. replace (v + w - (x + y)) with ((v - x) + (w - y)) by ring.
  apply Rle_trans with (1 := Rabs_triang _ _). lra.
Qed.
Lemma magnitudes : forall c l, Rabs (c * value l) <= Rabs c * size l.
Proof. intros c l. rewrite Rabs_mult. apply Rmult_le_compat_l; [apply Rabs_pos | apply value_size]. Qed.

(** **The lemma of blocks**: an execution differs from the exact value by at most sum of ((1 + U)^k - 1) |t| over its terms, and what underflows. *)
Theorem block_error : forall b, read b -> Rabs (result b - value (spread b)) <= excess (spread b) + lost b.
Proof.
  induction b as [x | c b IH | s IHs t IHt | c s IHs t IHt]; simpl; intro W.
  - unfold value, excess, growing. simpl. rewrite Rplus_0_r, Rminus_diag_eq, Rabs_R0 by reflexivity. lra.
  - specialize (IH W). rewrite value_lift, excess_lift.
    destruct (fl_error (c * result b)) as (d & e & Hd & He & ->).
    assert (H := one_more _ _ _ _ d e (scaled c _ _ _ IH) (magnitudes c (spread b)) Hd He). lra.
  - destruct W as [Ws Wt]. rewrite value_app, excess_app, !value_lift, !excess_lift, Rabs_R1, !Rmult_1_l.
    destruct (fl_sum_error (result s) (result t)) as (d & Hd & ->); try (apply result_float; assumption).
    assert (Z := together _ _ _ _ _ _ (IHs Ws) (IHt Wt)).
    assert (M : Rabs (value (spread s) + value (spread t)) <= size (spread s) + size (spread t)).
    { apply Rle_trans with (1 := Rabs_triang _ _). assert (A := value_size (spread s)). assert (B := value_size (spread t)). lra. }
    assert (E : Rabs 0 <= ETA / 2) by (rewrite Rabs_R0; assert (P := ETA_positive); lra).
    assert (X := scaled_abs _ d _ Z Hd).
    assert (Y : Rabs (d * (value (spread s) + value (spread t))) <= U * (size (spread s) + size (spread t)))
      by (rewrite Rabs_mult; apply Rmult_le_compat; try apply Rabs_pos; assumption).
    replace ((result s + result t) * (1 + d) - (value (spread s) + value (spread t)))
      with ((result s + result t - (value (spread s) + value (spread t))) * (1 + d) + d * (value (spread s) + value (spread t))) by ring.
    apply Rle_trans with (1 := Rabs_triang _ _). lra.
  - destruct W as [Ws Wt]. rewrite value_app, excess_app, !value_lift, !excess_lift, Rabs_R1, !Rmult_1_l.
    destruct (fl_error (c * result s + result t)) as (d & e & Hd & He & ->).
    assert (Z := together _ _ _ _ _ _ (scaled c _ _ _ (IHs Ws)) (IHt Wt)).
    assert (M : Rabs (c * value (spread s) + value (spread t)) <= Rabs c * size (spread s) + size (spread t)).
    { apply Rle_trans with (1 := Rabs_triang _ _). assert (A := magnitudes c (spread s)). assert (B := value_size (spread t)). lra. }
    assert (H := one_more _ _ _ _ d e Z M Hd He). lra.
Qed.

(** The same with gamma, and as the code computes it: at most 1.02 U times the sum of k |t|. *)
Theorem block_gamma : forall b, read b -> (forall k t, In (k, t) (spread b) -> short k) ->
  Rabs (result b - value (spread b)) <= gammas (spread b) + lost b /\
  gammas (spread b) <= 102 / 100 * U * weighted (spread b).
Proof.
  intros b W S.
  assert (A : excess (spread b) <= gammas (spread b) /\ gammas (spread b) <= 102 / 100 * U * weighted (spread b)).
  { unfold excess, gammas, weighted. induction (spread b) as [| [k t] l IH]; simpl; [lra |].
    assert (IH' : (forall k t, In (k, t) l -> short k)) by (intros k' t' H; apply (S k' t'); right; exact H).
    destruct (IH IH') as [IH1 IH2].
    assert (Sk : short k) by (apply (S k t); left; reflexivity).
    assert (H := short_small k Sk). assert (G := growing_gamma k ltac:(lra)). assert (F := gamma_factor k Sk).
    assert (T := Rabs_pos t). assert (P := pos_INR k). assert (HU := U_positive).
    assert (0 <= INR k * U) by (apply Rmult_le_pos; lra).
    assert ((growing k - 1) * Rabs t <= gamma k * Rabs t) by (apply Rmult_le_compat_r; lra).
    assert (gamma k * Rabs t <= 102 / 100 * (INR k * U) * Rabs t) by (apply Rmult_le_compat_r; lra).
    lra. }
  assert (E := block_error b W). lra.
Qed.

(** ** Sums that are partitioned *)

(** A sum of so many heads in any nesting. *)
Fixpoint sums (b : block) : Prop := match b with Head _ => True | Add s t => sums s /\ sums t | _ => False end.

Lemma in_lift : forall c l k t, In (k, t) (lift c l) -> exists j u, k = S j /\ In (j, u) l.
Proof. intros c l k t H. apply in_map_iff in H. destruct H as [[j u] [E I]]. inversion E. exists j, u. split; [reflexivity | exact I]. Qed.
Lemma lift_length : forall c l, length (lift c l) = length l.
Proof. intros. apply map_length. Qed.
Lemma spread_positive : forall b, (1 <= length (spread b))%nat.
Proof. induction b; simpl; rewrite ?app_length, ?lift_length; simpl; lia. Qed.

(** A term meets at most m - 1 additions in a sum of m terms, whatever their order. *)
Theorem additions : forall b k t, sums b -> In (k, t) (spread b) -> (S k <= length (spread b))%nat.
Proof.
  induction b as [x | c b IH | u IHu v IHv | c u IHu v IHv]; simpl; intros k t W H; try contradiction.
  - destruct H as [E | []]. inversion E. lia.
  - destruct W as [Wu Wv]. rewrite app_length, !lift_length.
    assert (Pu := spread_positive u). assert (Pv := spread_positive v).
    apply in_app_or in H. destruct H as [H | H]; apply in_lift in H; destruct H as (j & w & -> & I).
    + specialize (IHu j w Wu I). lia.
    + specialize (IHv j w Wv I). lia.
Qed.

(** A partition: parts, each computed in its own way, and the order in which their results are added. *)
Inductive partition : Type := Part (b : block) | Join (s t : partition).
Fixpoint whole (p : partition) : block := match p with Part b => b | Join s t => Add (whole s) (whole t) end.
Fixpoint parts (p : partition) : list block := match p with Part b => [b] | Join s t => parts s ++ parts t end.

Lemma parts_positive : forall p, (1 <= length (parts p))%nat.
Proof. induction p; simpl; rewrite ?app_length; simpl; lia. Qed.

(** **Sums in blocks**: where every term of a part meets at most n roundings, it meets at most n + P - 1 in a sum of P parts. *)
Theorem partitioned : forall p n k t,
  (forall b, In b (parts p) -> forall j u, In (j, u) (spread b) -> (j <= n)%nat) ->
  In (k, t) (spread (whole p)) -> (S k <= n + length (parts p))%nat.
Proof.
  induction p as [b | s IHs v IHv]; simpl; intros n k t W H.
  - specialize (W b (or_introl eq_refl) k t H). lia.
  - rewrite app_length. assert (Ps := parts_positive s). assert (Pv := parts_positive v).
    apply in_app_or in H. destruct H as [H | H]; apply in_lift in H; destruct H as (j & u & -> & I).
    + assert (S j <= n + length (parts s))%nat by (apply (IHs n j u); [intros b B; apply W; apply in_or_app; left; exact B | exact I]). lia.
    + assert (S j <= n + length (parts v))%nat by (apply (IHv n j u); [intros b B; apply W; apply in_or_app; right; exact B | exact I]). lia.
Qed.
