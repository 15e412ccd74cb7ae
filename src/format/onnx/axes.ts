import { type Shape, show, size } from '../../core/shape.ts'
import type { Operand } from '../../core/tensor.ts'
import { broadcastTo, concat, pad, reshape, slice, transpose } from '../../ops/index.ts'
import { concatenated, countOfRuns, expanded, type Run, taken, transposed, withShape } from './known.ts'
import { batched, type Extent, type Floats, type Import, type Known, type NodeView } from './values.ts'

/**
 * What the families share: axes as the file counts them, the batch among them, and the ops that only rearrange elements, on numbers
 * that are known as on values of a run.
 */

export const showExtents = (v: Floats | Known): string => show(v.shape as Shape)

export const axis = (s: NodeView, a: number, rank: number, what = 'axis'): number =>
  Number.isInteger(a) && a >= -rank && a < rank
    ? a < 0
      ? a + rank
      : a
    : s.fail(`${what} ${a} is not an axis of a tensor of rank ${rank}`)

export const axes = (s: NodeView, list: readonly number[], rank: number): readonly number[] => {
  const out = list.map((a) => axis(s, a, rank, 'axes:'))
  return new Set(out).size === out.length ? out.sort((a, b) => a - b) : s.fail(`axes [${list}] repeat an axis`)
}

/** Axes as an attribute (older opsets) or as input i. */
export const axesOf = (s: NodeView, i = 1): readonly number[] | undefined =>
  s.list('axes') ?? (s.has(i) ? s.numbers(i) : undefined)

// ---- the batch -----------------------------------------------------------------------------------------------------

/** What follows the batch in a value of a run. */
const image = (v: Floats): Shape => (v.batch === 'none' ? v.probe.shape : v.probe.shape.slice(1))

/**
 * The value with the batch of a run in front of all axes of the file, so that an op may do with any of them what it likes. Only where
 * the file has a batch of a known size.
 */
export const inFront = (s: NodeView, v: Floats, what: string): Floats => {
  if (v.batch !== 'first') return v
  if (s.batch === 'N') return s.fail(`it ${what} the batch axis of ${showExtents(v)}, which must stay the first`)
  return s.emit([v], ([x]) => reshape(x, [x.shape[0], 1, ...x.shape.slice(1)]), { batch: 'front' })
}

/** Whether the batch can be the first axis of the file: that axis has the extent 1 and others follow. */
const canBeFirst = (v: Floats): boolean =>
  v.batch === 'first' || (v.batch === 'front' && v.shape.length > 1 && v.shape[0] === 1)

const asFirst = (s: NodeView, v: Floats): Floats =>
  v.batch === 'first' ? v : s.emit([v], ([x]) => reshape(x, [x.shape[0], ...x.shape.slice(2)]), { batch: 'first' })

/** The value as a network gives it: `[n, ...]` with an axis or more behind the batch. */
export const asOutput = (s: NodeView, v: Floats): Floats =>
  canBeFirst(v) ? atLeastOne(s, asFirst(s, v)) : atLeastOne(s, v)

const atLeastOne = (s: NodeView, v: Floats): Floats =>
  v.probe.shape.length > 1 ? v : s.emit([v], ([x]) => reshape(x, [x.shape[0], 1]), { batch: 'front' })

/** A value, and axes of the file as axes of a run; where the batch is among them, it moves to the front. */
export const withAxes = (
  s: NodeView,
  v: Floats,
  list: readonly number[],
  what: string,
): { readonly x: Floats; readonly over: readonly number[] } => {
  const over = axes(s, list, v.shape.length)
  const x = over.includes(0) ? inFront(s, v, what) : v
  if (x.batch === 'repeat' && over.includes(0)) s.fail(`it ${what} the batch axis of ${showExtents(v)}`)
  return { x, over: x.batch === 'front' ? over.map((a) => a + 1) : over }
}

/**
 * Operands whose axes meet at the last one, made such that they meet there in a run, too: all with the batch as the first axis where
 * nothing meets it but the batch, an extent of 1 or nothing, all with the batch in front otherwise.
 */
export const aligned = (s: NodeView, values: readonly Floats[]): readonly Floats[] => {
  if (!values.some(batched)) return values
  const rank = Math.max(...values.map((v) => v.shape.length))
  const first = values.every((v) =>
    batched(v) ? v.shape.length === rank && canBeFirst(v) : v.shape.length < rank || v.probe.shape[0] === 1,
  )
  if (first && values.some((v) => v.batch === 'first')) return values.map((v) => (batched(v) ? asFirst(s, v) : v))
  if (s.batch === 'N' && values.some((v) => v.batch === 'first'))
    s.fail(`operands ${values.map(showExtents).join(' and ')} do not leave the batch as the first axis`)
  return values.map((v) => {
    if (!batched(v)) return v
    const x = inFront(s, v, 'moves')
    const own = image(x)
    if (own.length === rank) return x
    return s.emit([x], ([y]) => reshape(y, [y.shape[0], ...Array(rank - own.length).fill(1), ...own]))
  })
}

/**
 * An import that takes images `[N, ...]` as input 0, on a value whose first axis is not the batch: row by row, each row an image, and
 * the results one below the other.
 */
const MAX_ROWS = 1024
export const eachImage =
  (f: Import): Import =>
  (s) => {
    const v = s.has(0) ? s.value(0) : undefined
    if (v?.kind !== 'floats' || v.batch !== 'front' || v.shape.length < 2) return f(s)
    const rows = v.shape[0] as number
    if (rows > MAX_ROWS) s.fail(`${rows} images in one value; at most ${MAX_ROWS} are supported`)
    const results = Array.from({ length: rows }, (_, i) => {
      const row = asFirst(s, takeFrom(s, v, 0, [{ start: i, step: 1, count: 1 }]))
      const pick = (j: number): Floats => (j === 0 ? row : s.floats(j))
      return f({ ...s, batch: 1, value: (j) => (j === 0 ? row : s.value(j)), floats: pick, either: pick })
    })
    const images = results.map((r) => (r.kind === 'floats' ? r : s.fail('it has more than one result')))
    return rows === 1 ? images[0] : join(s, images, 0)
  }

// ---- rearrangements ------------------------------------------------------------------------------------------------

const isKnown = (v: Known | Floats): v is Known => v.kind === 'known'
/** Numbers of a rearranged value, where those of the operand are known. */
const also = (v: Floats, f: (k: Known) => Known) => ({
  known:
    v.known &&
    (() => {
      const k = v.known?.()
      return k && f(k)
    }),
})

const numeric = (s: NodeView, shape: readonly Extent[], what: string): Shape =>
  shape.map((d) =>
    d === 'N' ? s.fail(`${what} ${show(shape as Shape)} moves or merges the batch axis, which must stay the first`) : d,
  )

/** The same elements under another shape of the file, `target`, without -1; the batch may be its first extent only. */
export const toShape = <V extends Known | Floats>(s: NodeView, v: V, target: readonly Extent[]): V =>
  (isKnown(v) ? withShape(v, numeric(s, target, 'the shape')) : floatsToShape(s, v, target)) as V

const floatsToShape = (s: NodeView, v: Floats, target: readonly Extent[]): Floats => {
  if (v.batch === 'none') {
    const shape = numeric(s, target, 'the shape')
    return s.emit(
      [v],
      ([x]) => reshape(x, shape),
      also(v, (k) => withShape(k, shape)),
    )
  }
  if (v.batch === 'repeat' || s.batch === 'N') {
    const rest = numeric(s, target[0] === 'N' ? target.slice(1) : target, 'the shape')
    if (target[0] !== 'N')
      s.fail(`the shape ${show(target as Shape)} moves or merges the batch axis, which must stay the first`)
    return s.emit([v], ([x]) => reshape(x, [x.shape[0], ...rest]))
  }
  const shape = numeric(s, target, 'the shape')
  const first = shape.length > 1 && shape[0] === 1
  const rest = first ? shape.slice(1) : shape
  return s.emit([v], ([x]) => reshape(x, [x.shape[0], ...rest]), { batch: first ? 'first' : 'front' })
}

export const permuted = <V extends Known | Floats>(s: NodeView, v: V, permutation: readonly number[]): V =>
  (isKnown(v) ? transposed(s, v, permutation) : floatsPermuted(s, v, permutation)) as V

const floatsPermuted = (s: NodeView, v: Floats, permutation: readonly number[]): Floats => {
  const moves = permutation[0] !== 0
  if (v.batch === 'repeat' && moves) s.fail('it moves the batch axis')
  const x = moves ? inFront(s, v, 'moves') : v
  const own = x.batch === 'front' ? [0, ...permutation.map((p) => p + 1)] : permutation
  return s.emit(
    [x],
    ([y]) => transpose(y, own),
    also(v, (k) => transposed(s, k, permutation)),
  )
}

/** Pieces of one value, more than any export of a network asks for. */
const MAX_PIECES = 4096

/** A run of steps above 1 along axis 1 of `[b, d, a]`: every `step`-th of a block that is filled up with zeros to whole steps. */
const strided = (x: Operand, at: number, { start, step, count }: Run): Operand => {
  const { shape } = x
  const lead = shape.slice(0, at)
  const extent = Math.min(shape[at] - start, count * step)
  const part = (y: Operand, from: number, n: number) =>
    slice(
      y,
      y.shape.map((_, i) => (i === at ? from : 0)),
      y.shape.map((d, i) => (i === at ? n : d)),
    )
  const missing = only(shape, at, count * step - extent)
  const whole = pad(part(x, start, extent), only(shape, at, 0), missing)
  const split = reshape(whole, [...lead, count, step, ...shape.slice(at + 1)])
  const one = slice(
    split,
    split.shape.map(() => 0),
    split.shape.map((d, i) => (i === at + 1 ? 1 : d)),
  )
  return reshape(one, [...lead, count, ...shape.slice(at + 1)])
}
/** Zeros, but `n` at one axis. */
const only = (shape: Shape, at: number, n: number): readonly number[] => shape.map((_, i) => (i === at ? n : 0))

/** The elements that runs of indices name along an axis of a run. */
const takeRuns = (x: Operand, at: number, runs: readonly Run[]): Operand => {
  const { shape } = x
  // With the axes around it merged, no value has more than 5 axes.
  const [head, middle] = at === 0 ? [[], []] : [[shape[0]], [size(shape.slice(1, at))]]
  const flat = reshape(x, [...head, ...middle, shape[at], size(shape.slice(at + 1))])
  const here = head.length + middle.length
  const block = (start: number, count: number): Operand =>
    slice(
      flat,
      flat.shape.map((_, i) => (i === here ? start : 0)),
      flat.shape.map((d, i) => (i === here ? count : d)),
    )
  const pieces = runs.flatMap((run): readonly Operand[] => {
    const { start, step, count } = run
    if (count === 1 || step === 1) return [block(start, count)]
    if (step === 0)
      return [
        broadcastTo(
          block(start, 1),
          flat.shape.map((d, i) => (i === here ? count : d)),
        ),
      ]
    if (step > 1) return [strided(flat, here, run)]
    return Array.from({ length: count }, (_, i) => block(start + i * step, 1))
  })
  return reshape(
    concat(pieces, here),
    shape.map((d, i) => (i === at ? countOfRuns(runs) : d)),
  )
}

/** The elements along an axis of the file that runs of indices name, one after the other. */
export const takeFrom = <V extends Known | Floats>(s: NodeView, v: V, along: number, runs: readonly Run[]): V => {
  const count = countOfRuns(runs)
  if (isKnown(v)) return taken(s, v, along, runs) as V
  const [run] = runs
  if (runs.length === 1 && run.start === 0 && run.step === 1 && count === v.shape[along]) return v
  if (count < 1) return s.fail('it leaves no elements')
  const { x, over } = withAxes(s, v, [along], 'takes parts of')
  const pieces = runs.reduce((n, r) => n + (r.step < 0 ? r.count : 1), 0)
  if (pieces > MAX_PIECES) s.fail(`it takes ${pieces} separate pieces of a value; at most ${MAX_PIECES} are supported`)
  return s.emit(
    [x],
    ([y]) => takeRuns(y, over[0], runs),
    also(v, (k) => taken(s, k, along, runs)),
  ) as V
}

/** Values one after the other along an axis of the file. */
export const join = (s: NodeView, values: readonly Floats[], along: number): Floats => {
  const rank = values[0].shape.length
  if (values.some((v) => v.shape.length !== rank))
    s.fail(`values ${values.map(showExtents).join(', ')} of different ranks are concatenated`)
  if (!values.some((v) => v.batch !== 'none')) {
    const numbers = values.map((v) => v.known)
    const all = numbers.every((k) => k !== undefined)
    return s.emit(values, (xs) => concat(xs, along), {
      known: all
        ? () => {
            const ks = numbers.map((k) => k?.())
            return ks.every((k) => k !== undefined) ? concatenated(s, ks, along) : undefined
          }
        : undefined,
    })
  }
  const first = along > 0 && values.every((v) => (batched(v) ? canBeFirst(v) : v.probe.shape[0] === 1))
  if (!first && values.some((v) => v.batch === 'repeat')) s.fail('it puts something beside the batch')
  const xs = values.map((v) => (!batched(v) ? v : first ? asFirst(s, v) : inFront(s, v, 'puts something beside')))
  if (!xs.some(batched)) return s.emit(xs, (ys) => concat(ys, along))
  const at = first ? along : along + 1
  return s.emit(xs, (ys) => {
    const n = (ys.find((_, i) => batched(xs[i])) as Operand).shape[0]
    const lifted = ys.map((y, i) =>
      batched(xs[i]) ? y : broadcastTo(y, first ? [n, ...y.shape.slice(1)] : [n, ...y.shape]),
    )
    return concat(lifted, at)
  })
}

/** The value repeated along axes of extent 1 or in front, until it has the given shape of the file. */
export const spread = <V extends Known | Floats>(s: NodeView, v: V, shape: readonly Extent[]): V => {
  if (isKnown(v)) return expanded(s, v, numeric(s, shape, 'the shape')) as V
  const same = shape.length === v.shape.length && shape.every((d, i) => d === v.shape[i])
  if (same) return v
  return floatsSpread(s, v, shape) as Floats as V
}

const floatsSpread = (s: NodeView, v: Floats, shape: readonly Extent[]): Floats => {
  if (!batched(v)) {
    const repeat = shape[0] === 'N'
    const own = numeric(s, repeat ? [1, ...shape.slice(1)] : shape, 'the shape')
    if (v.batch === 'repeat' && !repeat) s.fail(`the shape ${show(shape as Shape)} removes the batch axis`)
    return s.emit([v], ([x]) => broadcastTo(x, own), {
      batch: repeat ? 'repeat' : 'none',
      ...also(v, (k) => expanded(s, k, own)),
    })
  }
  const stays = v.batch === 'first' && shape.length === v.shape.length && shape[0] === v.shape[0]
  const x = stays ? v : inFront(s, v, 'repeats')
  const rest = numeric(s, stays ? shape.slice(1) : shape, 'the shape')
  const own = image(x)
  const lifted = [...Array(rest.length - own.length).fill(1), ...own]
  return s.emit([x], ([y]) => broadcastTo(reshape(y, [y.shape[0], ...lifted]), [y.shape[0], ...rest]))
}
