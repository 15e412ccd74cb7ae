/**
 * The instruction set of the WASM machine, shared verbatim by the compiler that emits it (src/compile/plan.ts) and the
 * interpreter that runs it (assembly/machine.ts). A program is a flat sequence of i32 words; every instruction begins with
 *
 *   word 0  opcode
 *   word 1  length of the instruction in words, header included
 *   word 2  work: an estimate of its scalar multiply-adds (saturating), by which the machine decides one thread or all
 *
 * A *slot* is an index into the slot table (one i32 byte address each); all offsets and strides count f32 elements.
 */
export enum Opcode {
  /** End of program. */
  halt = 0,
  /**
   * One fused loop nest over D dims: elementwise program with broadcasting, any strided view, optional reduction.
   *   [3] D (1..6) · [4] mode (LoopMode) · [5] combine (Combine) · [6] P: how many leading dims are kept (mode inner/keep)
   *   [7] nIn (1..16) · [8] nOps (0..24) · [9] nRegs (nIn + temporaries) · [10] out slot · [11] out offset
   *   dims[D] · out strides[D] · per input: slot, offset, strides[D] · per op: micro, dst, a, b, c (register numbers)
   * Registers 0..nIn-1 are the inputs; unused operands are 0. The value of the loop is the dst of the last op, or input 0
   * when nOps = 0 (a copy). In mode `map` the output has a stride for every dim. In mode `inner` dims P..D-1 are reduced
   * (out strides 0) and the result is one element per point of dims 0..P-1. In mode `keep` dims P..D-2 are reduced and
   * dim D-1 is kept (out stride 1): out[p, i] = combine over r of value[p, r, i].
   * In mode `map`, where the output is contiguous from offset to end, other values may be stored as well, in the same
   * order from the start of a slot: per value, behind the program: number of its op (ascending, not the last), slot. Such
   * a slot must be no input of the loop.
   */
  loop = 1,
  /** Fill: [3] out slot · [4] out offset · [5] n · [6] f32 bits of the value. */
  fill = 2,
  /**
   * out[b] = A[b] B[b], A: [m, k] (or [k, m] when transA), B: [k, n] (or [n, k] when transB), out: [m, n], row-major.
   *   [3] a · [4] b · [5] out · [6] m · [7] k · [8] n · [9] transA · [10] transB · [11] batch · [12] stride of a per batch
   *   · [13] stride of b per batch · [14] stride of out per batch (a stride of 0 shares the operand)
   * and, in plans for backends that know it, an epilogue: [15] slot of a bias [n] plus 1, or 0 · [16] 1 for relu:
   * out = relu(A B + bias), each step rounded as the loop of its own would.
   */
  matmul = 3,
  /**
   * The three convolutions, x: [N, C, H, W], w: [O, C, KH, KW], y: [N, O, OH, OW]:
   *   conv2d        y = x * w           a = x, b = w, out = y
   *   conv2dInput   x = adjoint to x    a = y, b = w, out = x
   *   conv2dWeight  w = adjoint to w    a = x, b = y, out = w
   *   [3] a · [4] b · [5] out · [6] N · [7] C · [8] H · [9] W · [10] O · [11] KH · [12] KW · [13] OH · [14] OW
   *   · [15] strideY · [16] strideX · [17] padTop · [18] padLeft · [19] dilationY · [20] dilationX
   * y[n,o,i,j] = sum over c,p,q of x[n, c, i*strideY - padTop + p*dilationY, j*strideX - padLeft + q*dilationX] w[o,c,p,q],
   * x being 0 outside its range. OH, OW are given (rows and columns of x that no window reaches get adjoint 0).
   * conv2d and conv2dInput may have an epilogue as matmul has: [21] slot of a bias, one value for each output channel,
   * plus 1, or 0 · [22] 1 for relu.
   */
  conv2d = 4,
  conv2dInput = 5,
  conv2dWeight = 6,
  /** out[i, :] = x[index[i], :]. [3] x · [4] index (f32 holding integers) · [5] out · [6] rows of out · [7] rows of x · [8] d. */
  gather = 7,
  /** Adjoint of gather: out[r, :] = sum of x[i, :] over i with index[i] = r. [3] x · [4] index · [5] out · [6] rows of x · [7] rows of out · [8] d. */
  scatterAdd = 8,
  /** out[o, i] = the first j with the largest x[o, j, i] (NaN counts as largest). [3] x · [4] out · [5] outer · [6] axis · [7] inner. */
  argmax = 9,
  /**
   * Sliding windows, x: [N, C, H, W] -> out: [N, OH, OW, C, KH, KW], zero outside; and fold, its adjoint (a = windows, out = x).
   *   [3] a · [4] out · [5] N · [6] C · [7] H · [8] W · [9] KH · [10] KW · [11] OH · [12] OW · [13] strideY · [14] strideX
   *   · [15] padTop · [16] padLeft · [17] dilationY · [18] dilationX
   */
  unfold = 10,
  fold = 11,
  /**
   * The instructions up to the matching `end`, again and again: ceil(count / per) times, `most` at most (and where the count is NaN).
   *   [3] slot of the count · [4] per · [5] most · [6] slot that holds the number of the round, from 0, while the round lasts
   *   · then for each slot that moves from round to round: the slot · the slot it lies in · the element at which it begins there in
   *   round 0 · the elements by which it moves on
   */
  repeat = 12,
  end = 13,
  /**
   * Coordinates of the elements of x: [d0, .., dk] that are not 0 (NaN is not), in row-major order, 0 behind the last:
   * out: [k + 1, n], n all elements. [3] x · [4] out · [5] n · [6] k + 1 · dims d0 .. dk.
   */
  compact = 14,
  /** `scatterAdd` added to what out holds from element o on. [3] x · [4] index · [5] out · [6] rows of x · [7] rows of out · [8] d · [9] o. */
  scatterInto = 15,
  /**
   * Loops of mode `map` as one: threads share the tiles of all of them, and meet once.
   *   [3..] the loops, each a whole instruction; none reads or writes what another writes
   */
  loops = 16,
  /**
   * The three convolutions with channels in groups: words [3] to [20] as conv2d has them, C and O counting all channels · [21] groups, a divisor
   * of C and O. w: [O, C / groups, KH, KW]. Without an epilogue.
   */
  groupConv2d = 17,
  groupConv2dInput = 18,
  groupConv2dWeight = 19,
}

export enum LoopMode {
  map = 0,
  inner = 1,
  keep = 2,
}

export enum Combine {
  sum = 0,
  max = 1,
  min = 2,
}

/**
 * The scalar functions of a loop. Semantics are IEEE 754 binary32 round-to-nearest; NaN operands give NaN except in
 * comparisons (0 or 1) and in the operand that `select` does not take.
 */
export enum Micro {
  add = 0,
  sub = 1,
  mul = 2,
  div = 3,
  /** NaN-propagating minimum and maximum (f32x4.min / max), -0 < +0. */
  min = 4,
  max = 5,
  neg = 6,
  abs = 7,
  /** -1, 0, 1; NaN for NaN; sign(+-0) = 0. */
  sign = 8,
  /** 1 where x > 0, 0 where x <= 0, NaN for NaN. */
  step = 9,
  /** max(x, 0). */
  relu = 10,
  sqrt = 11,
  exp = 12,
  log = 13,
  tanh = 14,
  sigmoid = 15,
  /** Comparisons give 1 or 0 (0 when an operand is NaN). */
  greater = 16,
  greaterEqual = 17,
  equal = 18,
  /** a where the condition is neither 0 nor NaN... a = condition, b = then, c = else: b if a != 0, c if a == 0, NaN if a is NaN. */
  select = 19,
  /** Sign-split product: max(a, 0) * b + min(a, 0) * c, computed as a * (a > 0 ? b : c). */
  splitMul = 20,
  /** a * b + c, two roundings unless the module is the fast-math one. */
  mulAdd = 21,
  /** |a| * b. */
  absMul = 22,
  /** The next number above and below, as IEEE 754 nextUp and nextDown: NaN stays, up(inf) = inf, up(-inf) = the least finite. */
  up = 23,
  down = 24,
  /** The error function, 2 / sqrt(pi) times the integral of e^-t^2 from 0 to x. */
  erf = 25,
  /** NaN beyond 8192, where a float32 says little about a phase. */
  sin = 26,
  cos = 27,
  /** The nearest integer below, and the nearest of all, ties to even; what is no finite number stays. */
  floor = 28,
  round = 29,
}
