import * as E from 'fp-ts/lib/Either.js'
import { node, type Op, type Rounds, unsupported } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { add, broadcastOp, concat, dataOf, input, reshape, reshapeOp, scalar, slice, sliceOp } from '../ops/index.ts'
import { order, rewrite, substitute, tape } from './tape.ts'
import { cotangents } from './vjp.ts'

/** Kept values begin at multiples of so many elements. */
const ALIGN = 16

const align = (n: number): number => Math.ceil(n / ALIGN) * ALIGN

/** By how many elements the place of a kept value moves on from round to round. */
export const strideOf = (kept: Tensor): number => align(S.size(kept.shape))

/** Where what a sum over rounds leaves behind lies: the sums, then for each kept value the first round's and by how much a round goes on. */
export const layoutOf = ({ outputs, kept = [], most }: Rounds) => {
  const sums = outputs.reduce((n, y) => n + S.size(y.shape), 0)
  let length = sums
  const places = kept.map((y) => {
    const place = { at: align(length), stride: strideOf(y) }
    length = place.at + most * place.stride
    return place
  })
  return { sums, places, length }
}

/**
 * Sums of what rounds give, `[total]`: the outputs of the body flat, one after the other, added up over its rounds in ascending order.
 * Inputs: the count, then what the body captures. What a round computes is gone when it ends: the vjp is again a sum over rounds, each
 * of which computes its values anew before it differentiates them.
 */
export const accumulateOp: Op<Rounds> = {
  name: 'accumulate',
  shape: ([count, ...captured], body) =>
    count.length === 0 &&
    captured.length === body.captured.length + (body.stored === undefined ? 0 : 1) &&
    body.captured.every((p, i) => S.equals(p.shape, captured[i]))
      ? E.right([layoutOf(body).length])
      : E.left('takes a scalar count and what its body captures'),
  vjp: (ct, [count, ...captured], _, body) => {
    const seeds: readonly Tensor[] = body.outputs.map((y) => input('ct', y.shape))
    const each = cotangents(body.outputs, seeds, body.captured)
    const wanted = body.captured.flatMap((_, k) => (each[k] === undefined ? [] : [k]))
    if (wanted.length === 0) return [undefined]
    const sums = nodeOf([count, ...split(ct, body.outputs), ...captured], {
      ...body,
      captured: [...seeds, ...body.captured],
      outputs: wanted.map((k) => each[k] as Tensor),
    })
    return [undefined, ...body.captured.map((_, k) => sums[wanted.indexOf(k)])]
  },
  interval: unsupported('its body has no interval rule'),
  relax: unsupported('its body has no linear bounds'),
  kernel: {
    rounds: (attrs) => attrs,
    reference: (out, [[count], ...captured], _, __, attrs) => {
      const { nodes, outputs } = tape([...attrs.outputs, ...(attrs.kept ?? [])])
      const { places } = layoutOf(attrs)
      out.fill(0)
      for (let round = 0; round < roundsOf(count, attrs); round++) {
        const values = new Map<Tensor, Float64Array>(attrs.captured.map((p, k) => [p, captured[k]]))
        values.set(attrs.round, Float64Array.of(round))
        for (const { placeholder, at } of attrs.stored ?? []) {
          const n = S.size(placeholder.shape)
          const from = at + round * strideOf(placeholder)
          values.set(placeholder, (captured.at(-1) as Float64Array).subarray(from, from + n))
        }
        for (const x of nodes) values.set(x, values.get(x) ?? evaluated(x, values))
        let at = 0
        for (const y of outputs.slice(0, attrs.outputs.length))
          for (const v of values.get(y) as Float64Array) out[at++] += v
        places.forEach((p, k) => {
          out.set(values.get(outputs[attrs.outputs.length + k]) as Float64Array, p.at + round * p.stride)
        })
      }
    },
  },
}

/** Rounds that a count asks for: all of them where it is no number. */
const roundsOf = (count: number, { per, most }: Rounds): number =>
  count <= 0 ? 0 : count < per * most ? Math.ceil(count / per) : most

const evaluated = (x: Tensor, values: ReadonlyMap<Tensor, Float64Array>): Float64Array => {
  const data = dataOf(x)
  if (data !== undefined) return data
  const out = new Float64Array(S.size(x.shape))
  const { kernel } = x.op
  if ('reference' in kernel)
    kernel.reference(
      out,
      x.inputs.map((i) => values.get(i) as Float64Array),
      x.inputs.map((i) => i.shape),
      x.shape,
      x.attrs,
    )
  return out
}

/** The parts of a flat tensor that have the shapes of `like`. */
const split = (flat: Tensor, like: readonly Tensor[]): readonly Tensor[] => {
  let at = 0
  return like.map((y) => {
    const n = S.size(y.shape)
    at += n
    return reshape(slice(flat, [at - n], [n]), y.shape)
  })
}

const nodeOf = (inputs: readonly Tensor[], attrs: Rounds): readonly Tensor[] =>
  split(node(accumulateOp, inputs, attrs), attrs.outputs)

const VIEWS = new Set<unknown>([broadcastOp, reshapeOp])

/**
 * The graph of what depends on `starts`, on placeholders of all it needs besides (but for constants and views). A round stands for
 * itself.
 */
const capture = (roots: readonly Tensor[], starts: readonly Tensor[], round: Tensor) => {
  const from = new Set(starts)
  const dependent = new Set<Tensor>()
  for (const x of order(roots))
    if (!from.has(x) && x.inputs.some((i) => from.has(i) || dependent.has(i))) dependent.add(x)
  const placeholders = new Map<Tensor, Tensor>()
  const image = new Map<Tensor, Tensor>([[round, round]])
  const imageOf = (x: Tensor): Tensor => {
    const known = image.get(x)
    if (known !== undefined) return known
    const within = dependent.has(x) || (VIEWS.has(x.op) && !from.has(x))
    const made: Tensor = within
      ? { ...x, inputs: x.inputs.map(imageOf) }
      : dataOf(x) !== undefined
        ? x
        : input('captured', x.shape)
    if (!within && made !== x) placeholders.set(x, made)
    image.set(x, made)
    return made
  }
  // In the order of the graph, so that a deep one does not recurse.
  for (const x of order(roots)) if (dependent.has(x)) imageOf(x)
  return { outputs: roots.map(imageOf), placeholders }
}

/** How items are taken in rounds. */
export interface AccumulateOptions {
  /** Items there are in a run, a scalar; may be known only then. */
  readonly count: Tensor | number
  /** Items that one round takes. */
  readonly per: number
  /** The most items there can be. */
  readonly capacity: number
  /** Whether the backward pass may read products that the rounds had, where memory allows, instead of computing them again. Default: it does not. */
  readonly keeps?: boolean | undefined
}

const sumOf = (
  count: Tensor,
  body: Pick<Rounds, 'per' | 'most' | 'round' | 'keeps'>,
  roots: readonly Tensor[],
  starts: readonly Tensor[],
) => {
  const { outputs, placeholders } = capture(roots, starts, body.round)
  return nodeOf([count, ...placeholders.keys()], { ...body, captured: [...placeholders.values()], outputs })
}

/**
 * Sums over rounds r = 0 .. ceil(count / per) - 1 of the tensors f(r), r a scalar node: one after the other in the same memory, none of it
 * where the count is 0. What does not depend on r is computed once, before. Items behind the count must add 0. Differentiable: the
 * backward pass computes each round again instead of keeping it.
 *
 * @example
 *   const [total] = accumulate({ count: 4, per: 1, capacity: 4 }, (round) => [mul(round, 10)])
 *   total // [60]
 */
export const accumulate = (
  { count, per, capacity, keeps = false }: AccumulateOptions,
  f: (round: Tensor) => readonly Tensor[],
): readonly Tensor[] => {
  const round: Tensor = input('round', [])
  const body = { per, most: Math.ceil(capacity / per), round, keeps }
  return sumOf(typeof count === 'number' ? scalar(count) : count, body, f(round), [round])
}

/**
 * f(inputs), of the shapes that f gives, of which the backward pass keeps the inputs alone and computes the rest a second time: memory for time. What f uses besides
 * is kept, and differentiated, too.
 *
 * @example
 *   const x = input('x', [2])
 *   const [y] = rematerialize(([a]) => [relu(a)], [x])
 */
export const rematerialize = (
  f: (inputs: readonly Tensor[]) => readonly Tensor[],
  inputs: readonly Tensor[],
): readonly Tensor[] =>
  sumOf(scalar(1), { per: 1, most: 1, round: input('round', []), keeps: false }, f(inputs), inputs)

/**
 * One value in two forms: by rounds, or in one piece for backends that cannot repeat part of a plan. `suited` decides; a graph that is
 * differentiated undecided takes the gradient of the first.
 */
const eitherOp: Op<undefined> = {
  name: 'either',
  shape: ([a, b]) => (S.equals(a, b) ? E.right(a) : E.left('both forms must have one shape')),
  vjp: (ct) => [ct, undefined],
  interval: unsupported('choose its form first'),
  relax: unsupported('choose its form first'),
  kernel: { expand: ([byRounds]) => byRounds },
}

export const either = (byRounds: Tensor, whole: Tensor): Tensor => node(eitherOp, [byRounds, whole], undefined)

/** The graph with every value in the form that suits a backend: by rounds where it repeats them. */
export const suited = (outputs: readonly Tensor[], rounds: boolean): readonly Tensor[] =>
  order(outputs).some((x) => x.op === eitherOp)
    ? rewrite(outputs, (x, inputs) =>
        x.op === eitherOp ? inputs[rounds ? 0 : 1] : inputs.every((i, k) => i === x.inputs[k]) ? x : { ...x, inputs },
      )
    : outputs

/** A copy of a body that shares no node but constants with others of it. */
export const instance = (body: Rounds): Rounds => {
  const image = new Map<Tensor, Tensor>()
  const fresh = (x: Tensor): Tensor => {
    const made = image.get(x) ?? { ...x }
    image.set(x, made)
    return made
  }
  const [round, captured] = [fresh(body.round), body.captured.map(fresh)]
  const stored = body.stored?.map(({ placeholder, at }) => ({ placeholder: fresh(placeholder), at }))
  const made = rewrite([...body.outputs, ...(body.kept ?? [])], (x, inputs) =>
    dataOf(x) !== undefined ? x : x.inputs.length === 0 ? fresh(x) : { ...x, inputs },
  )
  const [outputs, kept] = [made.slice(0, body.outputs.length), made.slice(body.outputs.length)]
  return { ...body, round, captured, outputs, kept, ...(stored && { stored }) }
}

/** Where the parts of a flat sum begin. */
const starts = (body: Rounds): readonly number[] =>
  body.outputs.map((_, k) => body.outputs.slice(0, k).reduce((n, y) => n + S.size(y.shape), 0))

/** The graph without the sums that nothing reads and what only they would capture: a vjp gives one for every operand. */
export const pruned = (outputs: readonly Tensor[]): readonly Tensor[] => {
  const nodes = order(outputs)
  if (!nodes.some((x) => x.op === accumulateOp)) return outputs
  const live = new Set<Tensor>(outputs)
  /** Parts of each sum that are read. */
  const read = new Map<Tensor, Set<number>>()
  /** Sums that are read as a whole. */
  const whole = new Set<Tensor>()
  const kept = new Map<Tensor, Rounds>()
  const partOf = (x: Tensor): number => {
    const { starts: from, sizes } = x.attrs as { readonly starts: readonly number[]; readonly sizes: readonly number[] }
    const { outputs: parts } = x.inputs[0].attrs as Rounds
    return starts(x.inputs[0].attrs as Rounds).findIndex((s, k) => s === from[0] && S.size(parts[k].shape) === sizes[0])
  }
  const isPart = (x: Tensor) => x.op === sliceOp && x.inputs[0].op === accumulateOp && partOf(x) >= 0
  for (const x of [...nodes].reverse()) {
    if (!live.has(x)) continue
    if (isPart(x)) {
      const [sum] = x.inputs
      read.set(sum, (read.get(sum) ?? new Set()).add(partOf(x)))
      live.add(sum)
    } else if (x.op === accumulateOp) {
      const body = x.attrs as Rounds
      const parts = outputs.includes(x) || whole.has(x) ? undefined : read.get(x)
      const remaining = body.outputs.filter((_, k) => parts?.has(k) ?? true)
      const used = new Set(order(remaining))
      kept.set(x, { ...body, outputs: remaining, captured: body.captured.filter((p) => used.has(p)) })
      live.add(x.inputs[0])
      body.captured.forEach((p, k) => used.has(p) && live.add(x.inputs[k + 1]))
    } else
      for (const i of x.inputs) {
        live.add(i)
        if (i.op === accumulateOp) whole.add(i)
      }
  }
  return rewrite(outputs, (x, inputs) => {
    const body = kept.get(x)
    if (body !== undefined) {
      const { captured } = x.attrs as Rounds
      return node(
        accumulateOp,
        [inputs[0], ...inputs.slice(1).filter((_, k) => body.captured.includes(captured[k]))],
        body,
      )
    }
    const to = isPart(x) ? kept.get(x.inputs[0]) : undefined
    if (to !== undefined) {
      const [sum] = x.inputs
      const part = (sum.attrs as Rounds).outputs[partOf(x)]
      return slice(inputs[0], [starts(to)[to.outputs.indexOf(part)]], [S.size(part.shape)])
    }
    return inputs.every((i, k) => i === x.inputs[k]) ? x : { ...x, inputs }
  })
}

/** Every sum over rounds written out, for backends that cannot repeat part of a plan. */
export const unrolled = (outputs: readonly Tensor[]): readonly Tensor[] => {
  const inline = (x: Tensor, inputs: readonly Tensor[]): Tensor => {
    if (x.op !== accumulateOp) return inputs.every((i, k) => i === x.inputs[k]) ? x : { ...x, inputs }
    const { most, round, captured, outputs: each } = x.attrs as Rounds
    const operands = captured.map((p, k): readonly [Tensor, Tensor] => [p, inputs[k + 1]])
    const parts = Array.from({ length: most }, (_, r) =>
      unrolled(suited(substitute(each, new Map([...operands, [round, scalar(r)]])), false)),
    ).reduce((sum, y) => sum.map((s, k) => add(s, y[k])))
    return concat(
      parts.map((p) => reshape(p, [S.size(p.shape)])),
      0,
    )
  }
  return order(outputs).some((x) => x.op === accumulateOp) ? rewrite(outputs, inline) : outputs
}
