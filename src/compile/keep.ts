import { node, type Rounds } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { conv2dInputOp, conv2dOp, conv2dWeightOp, input as inputOf, matmulOp, slice, sliceOp } from '../ops/index.ts'
import { accumulateOp, layoutOf } from './accumulate.ts'
import { order, rewrite, substitute } from './tape.ts'

/**
 * Memory for time: the backward pass of a sum over rounds computes again what each round had. Products that it needs can be left where the
 * forward pass wrote them instead, each round's in a place of its own: no value is copied, and none is computed twice. What is cheap is still
 * computed again.
 */

const PRODUCTS = new Set<unknown>([matmulOp, conv2dOp, conv2dInputOp, conv2dWeightOp])
/** Multiply-adds of an element that pay for writing it to memory and reading it back. */
const DEAR = 16
/** Elements that one sum keeps at most: 128 MiB in f32. */
const MOST = 2 ** 25

export const workOf = (x: Tensor): number => {
  const { kernel } = x.op
  if (!('lower' in kernel)) return 0
  const how = kernel.lower(
    x.inputs.map((i) => i.shape),
    x.shape,
    x.attrs,
  )
  return how.kind === 'kernel' ? how.work : 0
}

const density = (x: Tensor): number => workOf(x) / S.size(x.shape)

/** The first nodes on every way down from the outputs that `stops` names. */
const frontier = (outputs: readonly Tensor[], stops: (x: Tensor) => boolean): readonly Tensor[] => {
  const [found, seen, stack] = [new Set<Tensor>(), new Set<Tensor>(), [...outputs]]
  for (let x = stack.pop(); x !== undefined; x = stack.pop()) {
    if (seen.has(x)) continue
    seen.add(x)
    if (stops(x)) found.add(x)
    else stack.push(...x.inputs)
  }
  return [...found]
}

/** Products of the body of `first` to keep for the later sums: the dearest for their size, as many as fit. */
const chosen = (first: Rounds, later: readonly Rounds[]): readonly Tensor[] => {
  const own = new Set(order(first.outputs).filter((x) => PRODUCTS.has(x.op) && density(x) >= DEAR))
  const ends = later.flatMap((b) => b.outputs)
  for (;;) {
    const wanted = [...frontier(ends, (x) => own.has(x))].sort((a, b) => density(b) - density(a))
    const taken = wanted.filter((_, k) => layoutOf({ ...first, kept: wanted.slice(0, k + 1) }).length <= MOST)
    if (taken.length === wanted.length) return taken
    // What does not fit is computed again, from products before it that may be kept.
    for (const x of wanted) if (!taken.includes(x)) own.delete(x)
  }
}

const bodyOf = (x: Tensor): Rounds => x.attrs as Rounds

/** Whether two sums run the same rounds on the same values. */
const agree = (a: Tensor, b: Tensor): boolean => {
  const operandOf = new Map(bodyOf(a).captured.map((p, k) => [p, a.inputs[k + 1]]))
  return (
    bodyOf(a).round === bodyOf(b).round &&
    a.inputs[0] === b.inputs[0] &&
    bodyOf(b).captured.every((p, k) => (operandOf.get(p) ?? b.inputs[k + 1]) === b.inputs[k + 1])
  )
}

/** The graph in which the first of several sums over the same rounds keeps products that the others would compute again. */
export const keeping = (outputs: readonly Tensor[]): readonly Tensor[] => {
  const sums = order(outputs).filter((x) => x.op === accumulateOp && bodyOf(x).keeps)
  const firstOf = new Map<Tensor, Tensor>()
  for (const [k, x] of sums.entries()) {
    const first = sums.slice(0, k).find((y) => !firstOf.has(y) && agree(y, x))
    if (first !== undefined) firstOf.set(x, first)
  }
  if (firstOf.size === 0) return outputs
  const keptBy = new Map<Tensor, readonly Tensor[]>()
  for (const first of new Set(firstOf.values())) {
    const later = sums.filter((x) => firstOf.get(x) === first)
    keptBy.set(first, chosen(bodyOf(first), later.map(bodyOf)))
  }
  const stores = new Map<Tensor, Tensor>()
  const storing = (x: Tensor, inputs: readonly Tensor[], kept: readonly Tensor[]): Tensor => {
    const store = node(accumulateOp, inputs, { ...bodyOf(x), kept })
    stores.set(x, store)
    return store
  }
  const reading = (x: Tensor, inputs: readonly Tensor[], first: Tensor): Tensor => {
    const [store, kept] = [stores.get(first) as Tensor, keptBy.get(first) as readonly Tensor[]]
    const places = layoutOf(bodyOf(store)).places
    const placeholders = kept.map((y) => inputOf('kept', y.shape))
    const ends = substitute(bodyOf(x).outputs, new Map(kept.map((y, k) => [y, placeholders[k]])))
    const used = new Set(order(ends))
    const still = bodyOf(x).captured.flatMap((p, k) => (used.has(p) ? [k] : []))
    return node(accumulateOp, [inputs[0], ...still.map((k) => inputs[k + 1]), store], {
      ...bodyOf(x),
      outputs: ends,
      captured: still.map((k) => bodyOf(x).captured[k]),
      stored: placeholders.flatMap((placeholder, k) =>
        used.has(placeholder) ? [{ placeholder, at: places[k].at }] : [],
      ),
    })
  }
  return rewrite(outputs, (x, inputs) => {
    const [kept, first] = [keptBy.get(x), firstOf.get(x)]
    if (kept !== undefined && kept.length > 0) return storing(x, inputs, kept)
    if (first !== undefined && stores.has(first)) return reading(x, inputs, first)
    // What is kept lies behind the sums, so that parts of them are where they were.
    const parts =
      x.op === sliceOp
        ? inputs
        : inputs.map((y, k) => (stores.get(x.inputs[k]) === y ? slice(y, [0], x.inputs[k].shape) : y))
    return parts.every((y, k) => y === x.inputs[k]) ? x : { ...x, inputs: parts }
  })
}
