import { Micro } from '../core/lowering.ts'
import { node, type Op, unsupported } from '../core/op.ts'
import type { Tensor } from '../core/tensor.ts'
import { greater, minimum, mul, select, sign } from './elementwise.ts'
import { elementwise } from './maker.ts'
import { abs, relu } from './relu.ts'
import { unbroadcast } from './shape.ts'

/**
 * Sign-split product max(a, 0) p + min(a, 0) q: coefficient a of a neuron meets the line p where it is positive and q where it is
 * negative. One pass over a, which has a row axis in front of p and q.
 */
export const splitMulOp: Op<undefined> = elementwise(
  {
    name: 'splitMul',
    vjp: (ct, [a, p, q], out) => [
      unbroadcast(splitMulSlope(ct, a, p, q), out.shape, a.shape),
      unbroadcast(mul(ct, relu(a)), out.shape, p.shape),
      unbroadcast(mul(ct, minimum(a, 0)), out.shape, q.shape),
    ],
    interval: unsupported('it is made of coefficients, which are points'),
    relax: unsupported('it is made of coefficients, which are points'),
  },
  Micro.splitMul,
  (a, p, q) => a * (a > 0 ? p : q),
)
const splitMulSlope = (ct: Tensor, a: Tensor, p: Tensor, q: Tensor): Tensor => mul(ct, select(greater(a, 0), p, q))

export const splitMul = (a: Tensor, p: Tensor, q: Tensor): Tensor =>
  p === q ? mul(a, p) : node(splitMulOp, [a, p, q], undefined)

/** |a| r: what a coefficient a adds to a radius r >= 0. */
export const absMulOp: Op<undefined> = elementwise(
  {
    name: 'absMul',
    vjp: (ct, [a, r], out) => [
      unbroadcast(mul(ct, mul(sign(a), r)), out.shape, a.shape),
      unbroadcast(mul(ct, abs(a)), out.shape, r.shape),
    ],
    interval: unsupported('it is made of coefficients, which are points'),
    relax: unsupported('it is made of coefficients, which are points'),
  },
  Micro.absMul,
  (a, r) => Math.abs(a) * r,
)
export const absMul = (a: Tensor, r: Tensor): Tensor => node(absMulOp, [a, r], undefined)
