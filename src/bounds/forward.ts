import { cotangents } from '../compile/vjp.ts'
import { apply, attributed, interval, node, type Op, type Reduction, type Relax } from '../core/op.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import {
  abs,
  add,
  addOp,
  addUp,
  broadcastTo,
  centre,
  centreAndReach,
  divOp,
  enclose,
  errorOfSum,
  full,
  hull,
  input,
  intersection,
  iota,
  LARGE,
  magnitude,
  majorant,
  maximum,
  mul,
  mulOp,
  mulUp,
  oneHot,
  radius,
  reshape,
  roundingError,
  scalar,
  select,
  sub,
  subDown,
  subOp,
  subUp,
  sum,
  within,
} from '../ops/index.ts'
import { countsOf, isNonlinear, isRearrangement, isSum, underCurve } from './anatomy.ts'
import { widened } from './executions.ts'
import { type Boxes, resultOf } from './ibp.ts'
import type { Covering } from './rows.ts'
import { signs } from './sign.ts'

/**
 * Linear bounds pushed forward (docs/method.md, section 3): every node is an affine form of symbols,
 *
 *     v = sum over j of G_j e_j + t,    e_j in [-1, 1],    t in the interval `rest`,                                        (*)
 *
 * so that it lies in rest -+ sum |G_j|. Symbols are the inputs of the box, scaled to [-1, 1], and, where they are wanted, what a relaxation leaves open of each element (then this is a
 * zonotope, DeepZ, and with one slope for both lines the same bound as a walk backward). What has no symbol goes into the interval: cheap, and wider at every layer.
 *
 * An op that is linear in its boxed operands takes the columns G by its derivative and the interval by its interval rule. The derivative is the adjoint of the adjoint: the vjp carries
 * rows with any axes in front and is linear in them, so its own vjp carries columns. An op with lines p z + t <= f(z) <= q z + u is m z plus what lies between
 * (p - m) z + t and (q - m) z + u on the box, m = p where both are one. A product of two boxes is c_a b + a c_b - c_a c_b -+ r_a r_b. What has neither is its box.
 *
 * *Rounding.* (*) holds in exact arithmetic, and for every execution that the semantics names, with the columns as they were computed. The interval goes by rules that round outward
 * (ops/outward.ts). Columns that are computed as fl(W G_j) are off by E_j with |sum of E_j e_j| <= sum |E_j|, which is linear in s = sum |G_j|; so each step widens the interval, with h = ETA and
 * g_n = gamma_n, by
 *
 * 1. product, n terms, weights off by D: g_n |W| s + D s and n h a column; 2. factor, divisor: u |q| s (2 u |1 / q| s) and h a column, and what the point is off; 3. a sum of n elements: g_n sum s;
 * 4. two forms that meet: u sum |G_a + G_b|; 5. a line: u |m| s and h a column; 6. rearrangement and repetition move, exactly.
 *
 * Products of columns with terms that overflow make s infinite or no number, and with it the box; `errorOfSum` has room for the h of 2^40 products.
 */
export interface Form {
  /** By what their symbols are of, columns `[symbols, n, ...shape]`. */
  readonly columns: ReadonlyMap<Tensor, Tensor>
  readonly rest: Interval
  /** At least the sum of the magnitudes of all columns, `[n, ...shape]`; undefined without any. */
  readonly spread: Tensor | undefined
}

/** What forms may cost and how tight their boxes are. */
export interface FormOptions {
  /** A relaxation of at most so many elements gets a symbol for each of them; 0: no relaxation does, infinity: each one. */
  readonly symbols: number
  /** Whether each box is intersected with the interval rule of its op, on the boxes that its operands have: never wider than interval propagation. */
  readonly intersected: boolean
}

/** What all forms of a graph share. */
export interface FormContext {
  readonly boxes: Boxes
  readonly given: Boxes
  readonly boxed: ReadonlySet<Tensor>
  readonly images: number
  readonly covers: ((box: (x: Tensor) => Interval) => Covering) | undefined
  /** May tighten the box of a node as it is reached, before its relaxations see it. */
  readonly refine?: (x: Tensor, box: Interval) => Interval
}

export interface Forms {
  readonly box: (x: Tensor) => Interval
  readonly form: (x: Tensor) => Form
}

const addition = (a: Tensor | undefined, b: Tensor | undefined, plus: (a: Tensor, b: Tensor) => Tensor) =>
  a && b ? plus(a, b) : (a ?? b)
const plain = (a: Tensor, b: Tensor): Tensor => add(a, b)

/** An interval tensor of a point. */
const point = (x: Tensor): Interval => interval(x, x)

/** Symbols of their own for the elements of a node: `[size, n, ...shape]`, r on the diagonal. */
const diagonal = (r: Tensor): Tensor => {
  const [n, ...shape] = r.shape
  const size = S.size(shape)
  return select(reshape(oneHot(iota(size), size), [size, 1, ...shape]), reshape(r, [1, n, ...shape]), 0) as Tensor
}

/** Columns of operand k carried to the result by the derivative of an op that is linear in it; undefined where its vjp carries no rows to that operand. */
const pushed = (x: Tensor, k: number, columns: Tensor): Tensor | undefined => {
  const rows: Tensor = input('rows', [columns.shape[0], ...x.shape])
  const back = x.op.vjp(rows, x.inputs, x, x.attrs)[k]
  return back === undefined || !S.equals(back.shape, columns.shape)
    ? undefined
    : cotangents([back], [columns], [rows])[0]
}

/** Forms of the nodes of a graph, inputs before users. */
export const formsOf = (nodes: readonly Tensor[], context: FormContext, options: FormOptions): Forms => {
  const { boxes, given, boxed, images } = context
  const known = new Map<Tensor, Interval>()
  const forms = new Map<Tensor, Form>()
  const box = (x: Tensor): Interval => known.get(x) as Interval
  const form = (x: Tensor): Form => forms.get(x) as Form
  const cover = context.covers?.(box)
  const { inDomain } = signs((x) => boxed.has(x))

  const rule = <A>(op: Op<A>, attrs: A, ...xs: readonly Operand[]): Interval =>
    cover === undefined ? (apply(op, xs, attrs) as Interval) : enclose(op, xs, attrs, 'real')
  const plus = (a: Operand, b: Operand): Interval => rule(addOp, undefined, a, b)
  const times = (a: Operand, b: Operand): Interval => rule(mulOp, undefined, a, b)
  const middle = (b: Interval) => (cover === undefined ? { c: centre(b), r: radius(b) } : centreAndReach(b))
  const pointOf = (x: Tensor): Operand => cover?.point(x) ?? x
  /** The largest magnitude that a point may have, as it is computed or as it is meant. */
  const sizeOf = (x: Tensor): Tensor => {
    const p = pointOf(x)
    return isInterval(p) ? maximum(abs(x), magnitude(p)) : abs(x)
  }
  const bounded = (size: Tensor): Tensor => within(size, LARGE, size)

  const made = (columns: ReadonlyMap<Tensor, Tensor>, rest: Interval): Form => {
    const count = [...columns.values()].reduce((n, g) => n + g.shape[0], 0)
    const total = [...columns.values()]
      .map((g) => sum(abs(g), [0]) as Tensor)
      .reduce<Tensor | undefined>((a, b) => addition(a, b, cover === undefined ? plain : addUp), undefined)
    return { columns, rest, spread: total && (cover === undefined ? total : majorant(total, count)) }
  }
  const concretized = ({ rest, spread }: Form): Interval =>
    spread === undefined
      ? rest
      : cover === undefined
        ? interval(sub(rest.lower, spread) as Tensor, add(rest.upper, spread) as Tensor)
        : interval(subDown(rest.lower, spread), addUp(rest.upper, spread))

  /** Whether each image of the result depends on the same image of the boxed operands alone, so that columns of images are columns of it. */
  const keepsImages = (x: Tensor): boolean => {
    const isBoxed = x.inputs.map((i) => boxed.has(i))
    const shapes = x.inputs.map((i) => i.shape)
    return (
      x.shape[0] === images &&
      shapes.every((s, k) => !isBoxed[k] || s[0] === images) &&
      x.op.keepsImages?.(shapes, x.shape, x.attrs, isBoxed) !== false
    )
  }

  /** The columns of all boxed operands, carried, those of the same symbols added; undefined where one cannot be. */
  const carried = (x: Tensor, carry: (k: number, columns: Tensor) => Tensor | undefined) => {
    const all = new Map<Tensor, Tensor>()
    for (const [k, i] of x.inputs.entries())
      for (const [source, g] of boxed.has(i) ? form(i).columns : []) {
        const to = carry(k, g)
        if (to === undefined) return undefined
        all.set(source, addition(all.get(source), to, plain) as Tensor)
      }
    return all
  }

  /** What rounding costs columns that go through an op that is linear in its boxed operands, 1 to 3 and 6; 'unknown' where that is not proved. */
  const lost = (x: Tensor, c: Covering): Tensor | undefined | 'unknown' => {
    const k = x.inputs.findIndex((i) => boxed.has(i))
    const s = form(x.inputs[k]).spread
    const { linear } = x.op
    const terms = countsOf(x)?.result
    if (isRearrangement(x) || isSum(x) || linear === 'repeats') return undefined
    const other = x.inputs[1 - k]
    const off = other === undefined ? undefined : c.off(other)
    const applied = (size: Tensor) =>
      node(
        x.op,
        x.inputs.map((i, j) => (j === k ? (s as Tensor) : i === other ? size : abs(i))),
        x.attrs,
      )
    if (s === undefined) return undefined
    if (terms !== undefined) {
      const reach = errorOfSum(bounded(majorant(applied(sizeOf(other)), terms)), terms)
      return off === undefined ? reach : addUp(reach, majorant(applied(off), terms))
    }
    if (linear === 'multiplies') {
      const rounded = roundingError(bounded(mulUp(s, sizeOf(other))))
      return off === undefined ? rounded : addUp(rounded, mulUp(s, off))
    }
    if (linear === 'divides') {
      const { lower, upper } = enclose(divOp, [scalar(1), hull(other, c.point(other))], undefined, 'real')
      const rounded = errorOfSum(bounded(mulUp(s, maximum(abs(lower), abs(upper)))), 2)
      return off === undefined ? rounded : addUp(rounded, mulUp(s, subUp(upper, lower)))
    }
    if (linear !== 'sums') return 'unknown'
    const n = S.size(x.inputs[0].shape) / Math.max(1, S.size(x.shape))
    return errorOfSum(bounded(majorant(node(x.op, [s], x.attrs), n)), n)
  }

  /** A form, wider by what its own columns, two forms that met and executions of the node cost. */
  const settled = (x: Tensor, columns: ReadonlyMap<Tensor, Tensor>, rest: Interval, meets: boolean): Form => {
    const { spread } = made(columns, rest)
    if (cover === undefined) return { columns, rest, spread }
    const met = meets && spread !== undefined ? widened(rest, roundingError(bounded(spread))) : rest
    return { columns, rest: cover.isPart(x) ? met : widened(met, cover.error(x)), spread }
  }

  const linear = (x: Tensor): Form | undefined => {
    const columns = carried(x, (k, g) => pushed(x, k, g))
    const error = cover && lost(x, cover)
    if (columns === undefined || error === 'unknown') return undefined
    const rest = rule(x.op, x.attrs, ...x.inputs.map((i) => (boxed.has(i) ? form(i).rest : pointOf(i))))
    return settled(x, columns, cover === undefined ? rest : widened(rest, error), isMeeting(x))
  }
  const isMeeting = (x: Tensor): boolean => x.inputs.filter((i) => boxed.has(i)).length > 1

  /** What a relaxation leaves open: symbols where it is small enough, else part of the interval. */
  const opened = (x: Tensor, columns: Map<Tensor, Tensor>, rest: Interval, open: Interval, meets: boolean): Form => {
    if (S.size(x.shape.slice(1)) > options.symbols) return settled(x, columns, plus(rest, open), meets)
    const { c, r } = middle(open)
    const whole = broadcastTo(r, x.shape) as Tensor
    return settled(x, new Map(columns).set(x, diagonal(whole)), plus(rest, c), meets)
  }

  /** A product of two boxes by their centres and radii, c_a b + a c_b - c_a c_b -+ r_a r_b. */
  const product = (x: Tensor): Form | undefined => {
    const [a, b] = x.inputs.map((i) => middle(box(i)))
    const at = node(x.op, [a.c, b.c], x.attrs)
    const columns = carried(x, (k, g) => pushed(at, k, g))
    if (columns === undefined) return undefined
    const [f, g] = x.inputs.map(form)
    const both = plus(rule(x.op, x.attrs, f.rest, point(b.c)), rule(x.op, x.attrs, point(a.c), g.rest))
    const rest = rule(subOp, undefined, both, rule(x.op, x.attrs, point(a.c), b.c))
    const far = rule(x.op, x.attrs, interval(full(a.r.shape, 0), a.r), b.r).upper
    const open = interval(sub(0, far) as Tensor, far)
    if (cover === undefined) return opened(x, columns, rest, open, true)
    const terms = countsOf(x)?.result ?? 1
    const zero = (y: Tensor) => full(y.shape, 0)
    const reach = (s: Tensor, c: Tensor) => majorant(node(x.op, [s, c], x.attrs), terms)
    const size = addUp(reach(f.spread ?? zero(a.c), abs(b.c)), reach(abs(a.c), g.spread ?? zero(b.c)))
    return opened(x, columns, widened(rest, errorOfSum(bounded(size), terms)), open, true)
  }

  /** The form through lines: by one slope for all columns, what lies between the lines in the interval. */
  const relaxed = (x: Tensor, operands: readonly Operand[]): Form | undefined => {
    const { relax: own, outward } = x.op
    if (own === 'linear' || 'unsupported' in own || 'definition' in own) return undefined
    if ('bilinear' in own) return product(x)
    const reduction = 'lift' in own ? (own as Reduction<unknown>) : undefined
    const nearest = (reduction?.relax ?? own) as Relax<unknown>
    const proved = outward?.relax === 'selection' ? nearest : outward?.relax
    const lines = cover === undefined ? nearest : proved
    if (lines === undefined) return undefined
    const isBoxed = x.inputs.map((i) => boxed.has(i))
    if (reduction === undefined && x.inputs.some((i, k) => isBoxed[k] && !S.equals(i.shape, x.shape))) return undefined
    const { lower, upper } = lines(operands, x.attrs, 'same')
    const slopes = lower.slopes.map((p, k) => {
      const q = upper.slopes[k]
      return p === q ? p : (mul(add(p, q), 0.5) as Tensor)
    })
    /** Columns `[symbols, n, ...operand]` times a factor, added up where the op reduces. */
    const scaled = (g: Tensor, m: Tensor): Tensor | undefined => {
      if (reduction === undefined) return mul(g, m)
      const rows: Tensor = input('rows', [g.shape[0], ...x.shape])
      const back = broadcastTo(mul(reduction.lift(rows, x.inputs, x.attrs), m) as Tensor, g.shape)
      return cotangents([back], [g], [rows])[0]
    }
    /** Numbers of the operand's elements that are added up, and how exactly: slopes of 0 and 1 pick one. */
    const picks = reduction !== undefined && reduction.collect === undefined
    const terms = reduction === undefined ? 1 : S.size(x.inputs[0].shape) / Math.max(1, S.size(x.shape))
    const collected = (size: Tensor): Tensor =>
      reduction?.collect === undefined ? size : majorant(reduction.collect(size, x.attrs), terms)
    const addedUp = (products: Interval): Interval => {
      if (reduction === undefined) return products
      const [l, u] = [products.lower, products.upper].map((end) => {
        const one = scaled(reshape(end, [1, ...end.shape]), scalar(1)) as Tensor
        return reshape(one, x.shape)
      })
      const error =
        cover === undefined || picks ? undefined : errorOfSum(bounded(collected(magnitude(products))), terms)
      return widened(interval(l, u), error)
    }
    const columns = carried(x, (k, g) => scaled(g, slopes[k]))
    if (columns === undefined) return undefined
    const zero = point(full(x.shape, 0))
    const spreading = (i: Tensor, of: Tensor): Interval => interval(broadcastTo(of, i.shape), broadcastTo(of, i.shape))
    let [rest, open] = [zero, zero]
    let error: Tensor | undefined
    for (const [k, i] of x.inputs.entries()) {
      const [p, q, m, o] = [lower.slopes[k], upper.slopes[k], slopes[k], operands[k]]
      if (!isInterval(o)) continue
      if (!isBoxed[k]) {
        open = plus(open, interval(times(p, o).lower, times(q, o).upper))
        continue
      }
      const { rest: t, spread } = form(i)
      rest = plus(rest, addedUp(times(spreading(i, m), t)))
      if (p !== q) {
        const beside = (line: Tensor) => times(rule(subOp, undefined, spreading(i, line), spreading(i, m)), o)
        open = plus(open, addedUp(interval(beside(p).lower, beside(q).upper)))
      }
      if (cover === undefined || spread === undefined || picks) continue
      const size = bounded(collected(mulUp(spread, abs(m))))
      error = addition(error, errorOfSum(size, terms === 1 ? 1 : terms + 1), addUp)
    }
    const ends = [lower.intercept, upper.intercept].map((t) => (t === undefined ? zero.lower : broadcastTo(t, x.shape)))
    open = plus(open, interval(ends[0], ends[1]))
    const whole = cover === undefined ? rest : widened(rest, error)
    return opened(x, columns, whole, open, isMeeting(x))
  }

  for (const x of nodes) {
    if (!boxed.has(x)) continue
    const start = boxes.get(x)
    if (start !== undefined) {
      const { c, r } = middle(start)
      known.set(x, start)
      forms.set(x, made(new Map([[x, diagonal(r)]]), point(c)))
      continue
    }
    const operands = inDomain(
      x,
      x.inputs.map((i) => (boxed.has(i) ? box(i) : pointOf(i))),
    )
    const isLinear = !isNonlinear(x, boxed)
    // The interval rule: what there is without a form, and what magnitudes of executions are taken from.
    let byRule: Interval | undefined
    const ruled = (): Interval => {
      byRule ??= attributed(x, () => resultOf(x, operands, cover))
      return byRule
    }
    if (!isLinear && cover !== undefined) known.set(x, ruled())
    const found = keepsImages(x) ? attributed(x, () => (isLinear ? linear(x) : relaxed(x, operands))) : undefined
    const own: Form = found ?? { columns: new Map(), rest: ruled(), spread: undefined }
    const exact = concretized(own)
    const concrete = cover?.isPart(x) ? widened(exact, cover.error(x)) : exact
    const whole =
      found === undefined || underCurve(x, boxed) !== undefined
        ? ruled()
        : options.intersected
          ? intersection(concrete, ruled())
          : concrete
    const last = given.get(x) ?? context.refine?.(x, whole) ?? whole
    known.set(x, last)
    forms.set(x, own)
  }
  return { box, form }
}
