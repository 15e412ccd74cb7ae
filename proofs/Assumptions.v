(** What the theorems rest on: `npm run proofs` refuses anything but the axioms of Coq's real numbers. *)
From Mixtrain Require Import Rounding Sum Bounds Blocks Walk.
Print Assumptions up_above.
Print Assumptions order_is_free.
Print Assumptions sum_error.
Print Assumptions sum_gamma.
Print Assumptions no_overflow.
Print Assumptions errorOfSum_above.
Print Assumptions majorant_above.
Print Assumptions product_real.
Print Assumptions product_deployed.
Print Assumptions block_error.
Print Assumptions block_gamma.
Print Assumptions additions.
Print Assumptions partitioned.
Print Assumptions product_step.
Print Assumptions point_step.
Print Assumptions line_step.
Print Assumptions merge_step.
Print Assumptions end_step.
Print Assumptions walk_sound.
Print Assumptions composition.
