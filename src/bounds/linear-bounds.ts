import { either } from '../compile/accumulate.ts'
import { order } from '../compile/tape.ts'
import { raise } from '../core/error.ts'
import { interval, type Slope } from '../core/op.ts'
import type * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { broadcastTo, intersection, scalar, select } from '../ops/index.ts'
import { dependents, exactNodes, isNonlinear, leakOf, mixes, movedFrom, underCurve } from './anatomy.ts'
import { answer, type Bounder, contextOf, coveringOf, defined, specified } from './bounder.ts'
import { formsOf } from './forward.ts'
import { type Boxes, propagate, resultOf } from './ibp.ts'
import { boundListed, elementsOf, listable, roundOf } from './lists.ts'
import type { Context, Covering, Rows } from './rows.ts'
import { screener, unstable } from './screen.ts'
import { signs } from './sign.ts'
import { boundNode, inParts, largestOf, type Parts, peel, startOf } from './starts.ts'
import { walk } from './walk.ts'

export type { Bounded, Bounder } from './bounder.ts'

/**
 * Linear bounds by backward substitution (Fast-Lin, CROWN, DeepZ in reverse: docs/method.md, section 3).
 *
 * A walk starts with rows of coefficients over a node and carries them back to the input: through a linear op they go by its vjp,
 * through a nonlinear one by its relaxation, and what is constant collects in an offset. At the input box with centre c and radius r,
 * A x lies in A c +- |A| r. Coefficients are `[rows, n, ...shape]`; an extent of 1 in place of n means "the same for every image".
 *
 * Every layer is walked backward unless `hidden` says otherwise. With one slope for both lines the forward direction with all symbols (bounds/forward.ts: a zonotope) gives the same bounds, and keeps
 * what it has for the next layer; but it takes (inputs + neurons before) products with a layer's weights, and backward (open neurons of the layer) walks. At the second layer both are
 * the product W2 L W1. Multiply-adds an image, weights trained for 0.3: conv2 of `small` 1.1 M backward, 360 M forward; its fc 6 M and 180 M; all neurons open, 5-50x6-5: 1.4 M and 2.0 M.
 */
export interface Method {
  /** Lower slopes of the relaxations. A map gives tensors (alpha-CROWN) for some nodes. */
  readonly slope: 'same' | 'adaptive' | 'zero' | ReadonlyMap<Tensor, Tensor>
  /** Pre-activation bounds: by interval propagation, each by its own full backward walk, or by forms of the inputs pushed forward (bounds/forward.ts). */
  readonly hidden: 'ibp' | 'own' | 'forward'
  /** Rows of one round of a walk of listed rows; 0: all rows of a layer at once. By the size of the network unless given. */
  readonly perRound?: number
  /** How the rows of a layer, and of what is asked, go in parts. Default: all at once. The bounds are the same. */
  readonly parts?: Parts
}

/**
 * Interval propagation over boxes and balls. A ball is used up by the first op that mixes its elements: such a node, whose box would be exact
 * but for the ball, is bounded by a walk, that is by the dual norm; whatever follows only sees boxes. `given` boxes are taken as they are.
 */
const propagated = (
  outputs: readonly Tensor[],
  boxes: Boxes,
  given: Boxes,
  exact: ReadonlySet<Tensor>,
  ctx: Context,
  covers: ((box: (x: Tensor) => Interval) => Covering) | undefined,
): ReadonlyMap<Tensor, Operand> => {
  const balls = new Map([...boxes].filter(([, box]) => box.ball !== undefined))
  const round = dependents(outputs, balls)
  return propagate(
    outputs,
    boxes,
    (x, box) =>
      given.get(x) ?? (round.has(x) && exact.has(x) && mixes(x) ? boundNode(x, ctx, (y) => boxes.get(y)) : box),
    covers,
  )
}

/** A relaxation is never asked for when the walk ends at every nonlinear node. */
const never = (): never =>
  raise({ kind: 'unsupported', what: 'relaxing in interval propagation', reason: 'the walk ends at nonlinear ops' })

/**
 * Interval bound propagation. Rows are merged into the linear ops after the last nonlinear one before they meet a box
 * (arXiv:1810.12715, section 3): margins are tighter than differences of logit bounds.
 */
export const ibp: Bounder = defined((output, around, given = new Map(), rounding = 'none') => {
  const { boxes, boxed, images } = contextOf(output, around, rounding)
  const covers = coveringOf(output, boxed, boxes, given, rounding)
  const box = (x: Tensor) => known.get(x) as Interval
  const terminal = (x: Tensor) => (boxes.has(x) || (boxed.has(x) && isNonlinear(x, boxed)) ? box(x) : undefined)
  const ctx: Context = { images, boxed, bounds: box, slope: never, outward: covers?.(box) }
  const known = propagated([output], boxes, given, exactNodes(order([output]), boxes, boxed), ctx, covers)
  return {
    output: () => answer(box(output)),
    rows: (spec) => specified(output, ctx, spec, (rows) => walk(output, rows, ctx, terminal)),
    node: box,
    rounding,
  }
})

const memo = (f: (x: Tensor) => Interval): ((x: Tensor) => Interval) => {
  const known = new Map<Tensor, Interval>()
  return (x) => {
    const box = known.get(x) ?? f(x)
    known.set(x, box)
    return box
  }
}

/** Coefficients of a layer's rows from which lists of them pay: of some rows, and of all, which saves memory alone. */
const [WORTHWHILE, LARGE] = [2 ** 18, 2 ** 25]
const ones = (shape: S.Shape): Tensor => broadcastTo(scalar(1), shape)

/**
 * The CROWN family (arXiv:1811.00866, 1804.10829, 1906.06316). `{ slope: 'same', hidden: 'own' }` is the symbolic interval of MixTrain,
 * `{ slope: 'adaptive', hidden: 'own' }` CROWN, `{ slope: 'adaptive', hidden: 'ibp' }` CROWN-IBP.
 *
 * @example
 *   const method = linearBounds({ slope: 'adaptive', hidden: 'ibp' })
 */
export const linearBounds = (method: Method): Bounder =>
  defined((output, around, given = new Map(), rounding = 'none') => {
    const { boxes, boxed, images } = contextOf(output, around, rounding)
    const { withoutNegative, inDomain } = signs((x) => boxed.has(x))
    const covers = coveringOf(output, boxed, boxes, given, rounding)
    const nodes = order([output])
    const exact = exactNodes(nodes, boxes, boxed)
    const users = nodes.filter((x) => boxed.has(x) && isNonlinear(x, boxed))
    /** What an op with a domain reads. */
    const confined = new Set(
      users.flatMap(({ op, inputs }) => inputs.filter((i, k) => boxed.has(i) && op.domain?.[k] !== undefined)),
    )
    const terminal = (x: Tensor) => boxes.get(x)
    const there = (x: Tensor): Interval | undefined => {
      const box = given.get(x) ?? byInterval.get(x)
      return box !== undefined && isInterval(box) ? box : undefined
    }
    /** The box of a node as its relaxation needs it. */
    const bounds = memo((x) => (confined.has(x) ? full(x) : (there(x) ?? needed(x) ?? full(x))))
    const known = new Map<Tensor, Interval>()
    const full = memo((x) => {
      const whole = there(x) ?? boundAll(x)
      const box = confined.has(x) ? withoutNegative(x, intersection(whole, enclosure(x))) : whole
      known.set(x, box)
      return box
    })
    const slope = (x: Tensor): Slope =>
      typeof method.slope === 'string' ? method.slope : (method.slope.get(x) ?? 'adaptive')
    const ctx: Context = { images, boxed, bounds, slope, outward: covers?.((x) => box(x)) }
    /** Bounds of the elements of a node that `mask` names, by a walk of listed rows, if it has at least so many coefficients. */
    const boundList = (x: Tensor, mask: () => Tensor, least: number): Interval | undefined => {
      const peeled = peel(x, ctx, terminal)
      if (terminal(peeled.base) !== undefined || method.perRound === 0) return undefined
      // Rows of lists are gathered by image; no error bound of their sums is proved.
      if (rounding !== 'none') return undefined
      const start = startOf(peeled.base, ctx)
      const enough = method.perRound !== undefined || elementsOf(start, ctx) >= least
      if (!enough || !listable(start, ctx, terminal)) return undefined
      const list = boundListed(x, peeled, start, ctx, terminal, mask(), method.perRound ?? roundOf(start, ctx))
      const whole = boundNode(x, ctx, terminal, method.parts)
      return interval(either(list.lower, whole.lower), either(list.upper, whole.upper))
    }
    const boundAll = (x: Tensor): Interval => {
      const z = underCurve(x, boxed)
      if (z !== undefined) {
        const operands = x.inputs.map((i) => (i === z ? bounds(z) : i))
        return resultOf(x, inDomain(x, operands), ctx.outward)
      }
      const moved = movedFrom(x, boxed, (y) => there(y) !== undefined || boxes.has(y))
      if (moved !== undefined) {
        const cover = ctx.outward
        const made = propagate([x], new Map([[moved, bounds(moved)]]), undefined, cover && (() => cover))
        return made.get(x) as Interval
      }
      return boundList(x, () => ones([images, ...x.shape.slice(1)]), LARGE) ?? boundNode(x, ctx, terminal, method.parts)
    }
    const screen = screener(boxes, ctx)
    const screens =
      rounding === 'none' &&
      given.size === 0 &&
      confined.size === 0 &&
      [...boxes.values()].every((b) => b.ball === undefined)
    /** Where only unstable neurons need rows (the lines of a leak are the same for every box on which it is stable): the screen, and their own bounds where it leaves them open. */
    const needed = (x: Tensor): Interval | undefined => {
      const only = users.filter((y) => y.inputs.includes(x)).every((y) => leakOf(y) !== undefined)
      const box = screens && only ? screen(x) : undefined
      if (box === undefined) return undefined
      const open = unstable(box)
      const own = boundList(x, () => open, WORTHWHILE)
      if (own === undefined) return undefined
      return interval(select(open, own.lower, box.lower), select(open, own.upper, box.upper))
    }
    const pushed = () => {
      const { box: of } = formsOf(nodes, { boxes, given, boxed, images, covers }, { symbols: 0, intersected: true })
      return new Map(nodes.filter((x) => boxed.has(x)).map((x): [Tensor, Operand] => [x, of(x)]))
    }
    const byInterval =
      method.hidden === 'forward'
        ? pushed()
        : propagated(method.hidden === 'ibp' ? [output] : [...exact], boxes, given, exact, ctx, covers)
    // For the magnitudes that slack is made of: the box that is known, else by the interval rule from those of the operands.
    const enclosed = new Map<Tensor, Operand>(boxes)
    /**
     * Interval propagation from the boxes that are known so far. A walk through the line below a ReLU loses that its value is not negative, which the
     * interval keeps; both boxes hold, and so does their intersection.
     */
    const enclosure = (x: Tensor): Interval => {
      for (const y of order([x])) {
        if (enclosed.has(y)) continue
        const operands = y.inputs.map((i) => enclosed.get(i) as Operand)
        const made = operands.some(isInterval) ? resultOf(y, inDomain(y, operands), ctx.outward) : y
        const seen = known.get(y)
        enclosed.set(y, seen === undefined ? made : intersection(made, seen))
      }
      return enclosed.get(x) as Interval
    }
    const magnitudes = new Map<Tensor, Interval>()
    const box = (x: Tensor): Interval => {
      const seen = boxes.get(x) ?? known.get(x) ?? given.get(x) ?? byInterval.get(x) ?? magnitudes.get(x)
      if (seen !== undefined && isInterval(seen)) return seen
      const operands = x.inputs.map((i) => (boxed.has(i) ? box(i) : i))
      const made = resultOf(x, inDomain(x, operands), ctx.outward)
      magnitudes.set(x, made)
      return made
    }
    // Boxes are asked for in the order of the graph, so that a deep network does not recurse.
    const settle = () => {
      for (const x of users) for (const i of x.inputs) if (boxed.has(i)) bounds(i)
    }
    return {
      output: () => {
        settle()
        return answer(boundAll(output))
      },
      rows: (spec) => {
        settle()
        const largest = images * largestOf(output, ctx)
        return specified(output, ctx, spec, (rows) =>
          inParts(rows, largest, method.parts, [images], (some) => walk(output, some, ctx, terminal)),
        )
      },
      lines: (spec) => {
        settle()
        const [[x, box], ...others] = boxes
        if (others.length > 0 || box.ball !== undefined) return undefined
        let rows: Rows | undefined
        const { lower } = specified(output, ctx, spec, (start) => {
          const walked = walk(output, start, ctx, terminal)
          rows = walked.met.get(x)
          return walked
        })
        return rows === undefined || rows.patch !== undefined
          ? undefined
          : { lower, coefficients: broadcastTo(rows.lower, [spec.shape[0], images, ...x.shape.slice(1)]) }
      },
      node: (x) => {
        settle()
        return full(x)
      },
      rounding,
    }
  })
