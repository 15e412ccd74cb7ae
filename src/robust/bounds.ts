import { anatomy } from '../bounds/anatomy.ts'
import type { Bounded, Bounder } from '../bounds/bounder.ts'
import { forwardBounds } from '../bounds/forward-bounds.ts'
import type { Boxes } from '../bounds/ibp.ts'
import { ibp, linearBounds } from '../bounds/linear-bounds.ts'
import { order } from '../compile/tape.ts'
import { raise } from '../core/error.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import type { Apply, Interval, Tensor } from '../core/tensor.ts'
import { add, input, intersection, mul, sub } from '../ops/index.ts'
import { alphaCrown } from './alpha-crown.ts'

export type { Bounder }

const combine =
  (f: (a: Interval, b: Interval) => Interval) =>
  (p: Bounded, q: Bounded): Bounded => ({
    output: () => f(p.output(), q.output()),
    rows: (spec) => f(p.rows(spec), q.rows(spec)),
    node: (x) => f(p.node(x), q.node(x)),
    ...(p.rounding !== undefined && p.rounding === q.rounding ? { rounding: p.rounding } : {}),
  })

/**
 * The boxes of all hidden nodes, inputs before users, each the intersection of what two methods make of it, given those before it:
 * l = max(l_a, l_b), u = min(u_a, u_b).
 */
export const intersected =
  (a: Bounder, b: Bounder) =>
  (output: Tensor, boxes: Boxes, given: Boxes = new Map(), rounding: Rounding = 'none'): Boxes =>
    anatomy(output, boxes).hidden.reduce<Boxes>(
      (known, h) =>
        known.has(h)
          ? known
          : new Map(known).set(
              h,
              intersection(a(h, boxes, known, rounding).node(h), b(h, boxes, known, rounding).node(h)),
            ),
      given,
    )

/**
 * The tighter of two bounds, element by element, at every hidden node and at the output: both are sound, so their intersection is. `intersect(symbolic, ibp)` is
 * what MixTrain's authors call mix. Commutative, and idempotent but for methods whose slopes depend on more than boxes.
 *
 * @example
 *   const method = intersect(symbolic, ibp)
 */
export const intersect =
  (a: Bounder, b: Bounder): Bounder =>
  (output, boxes, given, rounding) => {
    const known = intersected(a, b)(output, boxes, given, rounding)
    return combine(intersection)(a(output, boxes, known, rounding), b(output, boxes, known, rounding))
  }

/**
 * (1 - beta) a + beta b of the ends: sound, being a convex combination of sound bounds, each with hidden boxes of its own. beta in [0, 1], a number or a
 * scalar node. Outward rounding is refused (unsupported): a blend is for training.
 *
 * @example
 *   const method = blend(0.5)(crownIbp, ibp)
 */
export const blend = (beta: Tensor | number) => {
  const mixed = (x: Tensor, y: Tensor) => add(mul(sub(1, beta), x), mul(beta, y)) as Tensor
  const both = combine((x, y) => interval(mixed(x.lower, y.lower), mixed(x.upper, y.upper)))
  return (a: Bounder, b: Bounder): Bounder =>
    (output, boxes, given, rounding = 'none') =>
      rounding === 'none'
        ? both(a(output, boxes, given), b(output, boxes, given))
        : raise({
            kind: 'unsupported',
            what: 'outward rounding of a blend of bounds',
            reason: 'it is for training; intersect gives the tighter of two',
          })
}

export { ibp }
/** Symbolic intervals, MixTrain's bound (arXiv:1811.02625; Neurify 1809.08098): parallel lines, every hidden bound by its own walk. */
export const symbolic: Bounder = linearBounds({ slope: 'same', hidden: 'own' })
/** CROWN (arXiv:1811.00866): adaptive lower lines, every hidden bound by its own walk. */
export const crown: Bounder = linearBounds({ slope: 'adaptive', hidden: 'own' })
/** CROWN-IBP (arXiv:1906.06316): hidden bounds by interval propagation, one walk from the output. */
export const crownIbp: Bounder = linearBounds({ slope: 'adaptive', hidden: 'ibp' })

/** Forms of the inputs pushed forward, each box intersected with interval propagation: never wider than `ibp`, cheap where inputs are few. */
export const forward: Bounder = forwardBounds()
/** Forms of the inputs and of all relaxations pushed forward (DeepZ): the bounds of `symbolic`, up to rounding. */
export const zonotope: Bounder = forwardBounds({ symbols: Number.POSITIVE_INFINITY, intersected: false })
/** CROWN whose hidden boxes are those of `forward`: one walk from the output. */
export const crownForward: Bounder = linearBounds({ slope: 'adaptive', hidden: 'forward' })

/** alpha-CROWN as the command line has it. */
export const ALPHA = { steps: 20, lr: 0.25 }

/** The named methods, as the command line has them; `intersect` is that of symbolic and interval bounds. */
export const methods = {
  ibp,
  symbolic,
  'crown-ibp': crownIbp,
  crown,
  'alpha-crown': alphaCrown(ALPHA),
  forward,
  'crown-forward': crownForward,
  intersect: intersect(symbolic, ibp),
} as const
/** A name of `methods`: what `--method` takes. */
export type MethodName = keyof typeof methods

/** Bounds rounded as asked for: a method that rounds otherwise is refused. */
export const rounded =
  (method: Bounder) =>
  (output: Tensor, boxes: Boxes, rounding: Rounding): Bounded => {
    const bounded = method(output, boxes, undefined, rounding)
    return (bounded.rounding ?? 'none') === rounding
      ? bounded
      : raise({ kind: 'unsupported', what: 'outward rounding of these bounds', reason: 'they round to nearest' })
  }

/**
 * Bounds of a network's output over a box or ball. The network is traced once on a placeholder; what comes back are graphs in the box's
 * ends, differentiable like any other.
 *
 * @example
 *   const x = ball(constant([0.5, 0.5], [1, 2]), 0.1)
 *   boundsOf(crown)((v) => sum(relu(v), [1]), x).output() // { lower: [0.8], upper: [1.2] }
 */
export const boundsOf =
  (method: Bounder) =>
  (network: Apply, box: Interval, rounding: Rounding = 'none'): Bounded => {
    const x: Tensor = input('x', box.shape)
    return rounded(method)(network(x), new Map([[x, box]]), rounding)
  }

/** The bounds of one layer. */
export interface LayerBounds {
  /** `relu2.input` is what the second ReLU sees (in the order of the graph), `output` the network's output. */
  readonly name: string
  readonly node: Tensor
  /** `[n, ...]`, of the layer's shape. */
  readonly bounds: Interval
}

/**
 * Bounds of every layer: of each hidden node, that is each boxed operand of a nonlinear op, as the method's relaxations see it, and of the output. A node that feeds
 * several nonlinear ops is named after the first.
 *
 * @example
 *   const x = input('x', [1, 2])
 *   const layers = layerBounds(crown)(relu(sub(x, 0.4)), new Map([[x, ball(constant([0.5, 0.2], [1, 2]), 0.1)]]))
 *   layers.map(({ name }) => name) // ['relu1.input', 'output']
 */
export const layerBounds =
  (method: Bounder) =>
  (output: Tensor, boxes: Boxes, rounding: Rounding = 'none'): readonly LayerBounds[] => {
    const { hidden } = anatomy(output, boxes)
    const wanted = new Set(hidden)
    const counts = new Map<string, number>()
    const names = new Map<Tensor, string>()
    for (const { op, inputs } of order([output])) {
      const own = inputs.filter((i) => wanted.has(i))
      if (own.length === 0 || op.relax === 'linear') continue
      const count = (counts.get(op.name) ?? 0) + 1
      counts.set(op.name, count)
      own.forEach((i, k) => {
        if (!names.has(i)) names.set(i, `${op.name}${count}.input${own.length > 1 ? k + 1 : ''}`)
      })
    }
    const bounded = rounded(method)(output, boxes, rounding)
    return [
      ...hidden.map((node) => ({ name: names.get(node) as string, node, bounds: bounded.node(node) })),
      { name: 'output', node: output, bounds: bounded.output() },
    ]
  }
