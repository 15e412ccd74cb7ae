import { interval } from '../core/op.ts'
import type { Apply, Interval, Tensor } from '../core/tensor.ts'
import { add, input, intersection, mul, sub } from '../ops/index.ts'
import type { Boxes } from '../tape/ibp.ts'
import { type Bounded, ibp, linearBounds } from '../tape/linear-bounds.ts'

/** A way to bound: an output as a function of boxed nodes -> bounds of it, of rows of it, of nodes on the way. */
export type Bounder = (output: Tensor, boxes: Boxes) => Bounded

const combine =
  (f: (a: Interval, b: Interval) => Interval) =>
  (a: Bounder, b: Bounder): Bounder =>
  (output, boxes) => {
    const [p, q] = [a(output, boxes), b(output, boxes)]
    return {
      output: () => f(p.output(), q.output()),
      rows: (spec) => f(p.rows(spec), q.rows(spec)),
      node: (x) => f(p.node(x), q.node(x)),
    }
  }

/** The tighter of two bounds, element by element: both are sound, so their intersection is. */
export const intersect = combine(intersection)

/** (1 - beta) a + beta b of the ends: sound, being a convex combination of sound bounds. beta in [0, 1], a number or a scalar node. */
export const blend = (beta: Tensor | number) => {
  const mixed = (x: Tensor, y: Tensor) => add(mul(sub(1, beta), x), mul(beta, y)) as Tensor
  return combine((x, y) => interval(mixed(x.lower, y.lower), mixed(x.upper, y.upper)))
}

export { ibp }
/** Symbolic intervals, MixTrain's bound (arXiv:1811.02625; Neurify 1809.08098): parallel lines, every hidden bound by its own walk. */
export const symbolic: Bounder = linearBounds({ slope: 'same', hidden: 'own' })
/** CROWN (arXiv:1811.00866): adaptive lower lines, every hidden bound by its own walk. */
export const crown: Bounder = linearBounds({ slope: 'adaptive', hidden: 'own' })
/** CROWN-IBP (arXiv:1906.06316): hidden bounds by interval propagation, one walk from the output. */
export const crownIbp: Bounder = linearBounds({ slope: 'adaptive', hidden: 'ibp' })

/** The named methods, as the command line has them. */
export const methods = { ibp, symbolic, 'crown-ibp': crownIbp, crown } as const
export type MethodName = keyof typeof methods

/**
 * Bounds of a network's output over a box. The network is traced once on a placeholder; what comes back are graphs in the box's
 * ends, differentiable like any other.
 */
export const boundsOf =
  (method: Bounder) =>
  (network: Apply, box: Interval): Bounded => {
    const x: Tensor = input('x', box.shape)
    return method(network(x), new Map([[x, box]]))
  }
