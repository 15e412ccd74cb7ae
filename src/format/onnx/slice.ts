import type { Shape } from '../../core/shape.ts'
import { show, size } from '../../core/shape.ts'
import type { Operand } from '../../core/tensor.ts'
import { add, full, pad, select } from '../../ops/index.ts'
import { axis, join, showExtents, takeFrom, toShape, withAxes } from './axes.ts'
import { concatenated, type Run, runsOf } from './known.ts'
import type { Extent, Floats, Import, Known, NodeView, Outputs } from './values.ts'
import { type Export, refuse } from './writer.ts'

/** Ops that take values apart, put them together, repeat them, or surround them. */

const extent = (s: NodeView, x: Known | Floats, at: number, what: string): number => {
  const d = x.shape[at]
  return d === 'N' ? s.fail(`it ${what} the batch axis of ${showExtents(x)}, which must stay the first`) : d
}

const concat: Import = (s) => {
  if (s.arity < 1) s.fail('expected an input')
  const parts = Array.from({ length: s.arity }, (_, i) => s.either(i))
  const rank = parts[0].shape.length
  const along = axis(s, s.int('axis', 0), rank)
  if (parts.some((p) => p.shape.length !== rank))
    s.fail(`values ${parts.map(showExtents).join(', ')} of different ranks are concatenated`)
  const known = parts.filter((p) => p.kind === 'known')
  if (known.length === parts.length) {
    if (parts.some((p) => p.shape.some((d, i) => i !== along && d !== parts[0].shape[i])))
      s.fail(`values ${parts.map(showExtents).join(', ')} differ along other axes than ${along}`)
    return concatenated(s, known, along)
  }
  const floats = parts.filter((p) => p.kind === 'floats')
  if (known.length > 0) s.fail('integers and floats are concatenated')
  if (floats.some((p) => p.shape[along] === 'N')) s.fail('it puts something beside the batch')
  return floats.length === 1 ? floats[0] : join(s, floats, along)
}

/** What a slice takes of an axis, as the standard clamps its ends. */
const sliceRun = (s: NodeView, extent: number, start: number, end: number, step: number): Run => {
  if (step === 0) s.fail('steps: 0 is not a step')
  const bounded = (v: number, low: number, high: number) => Math.min(Math.max(v < 0 ? v + extent : v, low), high)
  const from = bounded(start, 0, step > 0 ? extent : extent - 1)
  const to = step > 0 ? bounded(end, 0, extent) : bounded(end, -1, extent - 1)
  return { start: from, step, count: Math.max(0, Math.ceil((to - from) / step)) }
}

/** Attributes before opset 10, inputs since. */
const slice: Import = (s) => {
  const x = s.either(0)
  const rank = x.shape.length
  const list = (name: string, i: number): readonly number[] | undefined =>
    s.opset < 10 ? s.ends(name) : s.has(i) ? s.numbers(i) : undefined
  const starts = list('starts', 1) ?? s.fail('starts are missing')
  const ends = list('ends', 2) ?? s.fail('ends are missing')
  const over = (list('axes', 3) ?? [...starts.keys()]).map((a) => axis(s, a, rank, 'axes:'))
  const steps = (s.opset < 10 ? undefined : list('steps', 4)) ?? over.map(() => 1)
  if (new Set(over).size !== over.length) s.fail(`axes [${over}] repeat an axis`)
  if ([starts, ends, steps].some((l) => l.length !== over.length))
    s.fail(`starts, ends, axes and steps have ${[starts, ends, over, steps].map((l) => l.length)} numbers`)
  return over.reduce<Known | Floats>((v, a, i) => {
    const all = starts[i] === 0 && steps[i] === 1 && ends[i] >= 2 ** 31 - 1
    if (v.shape[a] === 'N' && all) return v
    return takeFrom(s, v, a, [sliceRun(s, extent(s, v, a, 'takes parts of'), starts[i], ends[i], steps[i])])
  }, x)
}

/** Sizes given, or equal parts of which the last may be smaller. */
const split = (s: NodeView): Outputs => {
  const x = s.either(0)
  const at = axis(s, s.int('axis', 0), x.shape.length)
  const total = extent(s, x, at, 'splits')
  const given = s.list('split') ?? (s.has(1) ? s.numbers(1) : undefined)
  const parts = s.int('num_outputs', s.results)
  if (given === undefined && parts !== s.results)
    s.fail(`attribute num_outputs: ${parts}, but it has ${s.results} outputs`)
  const each = Math.ceil(total / s.results)
  const sizes = given ?? Array.from({ length: s.results }, (_, i) => Math.max(0, Math.min(each, total - i * each)))
  if (sizes.length !== s.results) s.fail(`it has ${s.results} outputs, but ${sizes.length} parts`)
  if (given === undefined && s.opset < 18 && total % parts !== 0)
    s.fail(`${total} does not split into ${parts} equal parts`)
  if (sizes.some((n) => n < 1) || sizes.reduce((a, b) => a + b, 0) !== total)
    s.fail(`the parts [${sizes}] do not make up the extent ${total}`)
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0))
  return {
    kind: 'outputs',
    values: sizes.map((count, i) => takeFrom(s, x, at, [{ start: starts[i], step: 1, count }])),
  }
}

/** Indices into an extent, those below 0 from its end. */
const indicesOf = (s: NodeView, index: Known, extent: number): readonly number[] =>
  index.data.map((i) => (i === 'N' ? s.fail('input 1 must not depend on the batch') : axis(s, i, extent, 'index')))

/** Elements at known indices along an axis; the axes of the indices take its place. */
const gather: Import = (s) => {
  const x = s.either(0)
  const at = axis(s, s.int('axis', 0), x.shape.length)
  const index = s.known(1)
  if (index.data.length === 0) s.fail('input 1 has no indices')
  const chosen = indicesOf(s, index, extent(s, x, at, 'takes parts of'))
  const flat = takeFrom(s, x, at, runsOf(chosen))
  return index.shape.length === 1
    ? flat
    : toShape(s, flat, [...x.shape.slice(0, at), ...index.shape, ...x.shape.slice(at + 1)])
}

/** Elements of a flattened value; only where the file has a batch of a known size can they come from all axes. */
const takeFlat = (s: NodeView, x: Known | Floats, indices: readonly number[], shape: Shape): Known | Floats => {
  const total = size(x.shape.map((d, i) => (d === 'N' ? extent(s, x, i, 'takes parts of') : d)))
  return toShape(s, takeFrom(s, toShape(s, x, [total]), 0, runsOf(indices)), shape)
}

/** Offsets of the blocks that rows of indices name, `[..., r] -> [...]`, and the shape of a block. */
const blocksOf = (s: NodeView, shape: readonly Extent[], index: Known) => {
  const depth = index.shape[index.shape.length - 1] ?? s.fail('the indices are a scalar')
  if (depth > shape.length) s.fail(`rows of ${depth} indices into a value of rank ${shape.length}`)
  const own = shape.map((d) => (d === 'N' ? s.fail('it takes parts of the batch axis, which must stay the first') : d))
  const block = own.slice(depth)
  const rows = size(index.shape.slice(0, -1))
  s.spend(rows * size(block))
  const starts = Array.from({ length: rows }, (_, r) =>
    own.slice(0, depth).reduce((offset, d, k) => {
      const i = index.data[r * depth + k]
      return offset * d + (i === 'N' ? s.fail('an index depends on the batch') : axis(s, i, d, 'index'))
    }, 0),
  )
  return { block, offsets: starts.flatMap((r) => Array.from({ length: size(block) }, (_, i) => r * size(block) + i)) }
}

const gatherND: Import = (s) => {
  if (s.int('batch_dims', 0) !== 0) s.fail('attribute batch_dims: only 0 is supported')
  const [x, index] = [s.either(0), s.known(1)]
  const { block, offsets } = blocksOf(s, x.shape, index)
  return takeFlat(s, x, offsets, [...index.shape.slice(0, -1), ...block])
}

/** One element for each index, along an axis. */
const gatherElements: Import = (s) => {
  const [x, index] = [s.either(0), s.known(1)]
  const at = axis(s, s.int('axis', 0), x.shape.length)
  if (index.shape.length !== x.shape.length) s.fail(`indices ${show(index.shape)} for a value ${showExtents(x)}`)
  const own = x.shape.map((_, i) => extent(s, x, i, 'takes parts of'))
  if (index.shape.some((d, i) => i !== at && d > own[i])) s.fail(`indices ${show(index.shape)} leave ${showExtents(x)}`)
  const chosen = indicesOf(s, index, own[at])
  s.spend(chosen.length)
  const flat = chosen.map((index1, i) =>
    own.reduce((offset, d, k) => {
      const here = Math.floor(i / size(index.shape.slice(k + 1))) % index.shape[k]
      return offset * d + (k === at ? index1 : here)
    }, 0),
  )
  return takeFlat(s, x, flat, index.shape)
}

/** The value with blocks at known places replaced by others. */
const scatterND: Import = (s) => {
  if (s.string('reduction', 'none') !== 'none') s.fail('attribute reduction: only none is supported')
  const [x, index, updates] = [s.either(0), s.known(1), s.either(2)]
  const { offsets } = blocksOf(s, x.shape, index)
  const total = size(x.shape as Shape)
  if (size(updates.shape as Shape) !== offsets.length)
    s.fail(`updates ${showExtents(updates)} do not fill ${offsets.length} places`)
  s.spend(total)
  const source = Array.from({ length: total }, (_, i) => i)
  offsets.forEach((place, i) => {
    source[place] = total + i
  })
  const [old, fresh] = [toShape(s, x, [total]), toShape(s, updates, [offsets.length])]
  if (old.kind === 'known' && fresh.kind === 'known')
    return toShape(s, takeFrom(s, concatenated(s, [old, fresh], 0), 0, runsOf(source)), x.shape)
  if (old.kind === 'known' || fresh.kind === 'known') return s.fail('inputs 0 and 2 are of different types')
  return toShape(s, takeFrom(s, join(s, [old, fresh], 0), 0, runsOf(source)), x.shape)
}

const tile: Import = (s) => {
  const x = s.either(0)
  const repeats = s.numbers(1)
  if (repeats.length !== x.shape.length) s.fail(`expected ${x.shape.length} repeats, found [${repeats}]`)
  if (!repeats.every((r) => Number.isInteger(r) && r >= 1 && r <= 4096))
    s.fail(`repeats: expected numbers from 1 to 4096, found [${repeats}]`)
  return repeats.reduce<Known | Floats>((v, r, a) => {
    if (r === 1) return v
    const count = extent(s, v, a, 'repeats')
    const once: Run = { start: 0, step: 1, count }
    return takeFrom(s, v, a, count === 1 ? [{ start: 0, step: 0, count: r }] : Array<Run>(r).fill(once))
  }, x)
}

// ---- padding -------------------------------------------------------------------------------------------------------

/** Which elements of an extent padding by copies puts around it. */
const BORDERS: Readonly<Record<string, (d: number, before: number, after: number) => readonly Run[]>> = {
  edge: (d, before, after) => [
    { start: 0, step: 0, count: before },
    { start: 0, step: 1, count: d },
    { start: d - 1, step: 0, count: after },
  ],
  reflect: (d, before, after) => [
    { start: before, step: -1, count: before },
    { start: 0, step: 1, count: d },
    { start: d - 2, step: -1, count: after },
  ],
  wrap: (d, before, after) => [
    { start: d - before, step: 1, count: before },
    { start: 0, step: 1, count: d },
    { start: 0, step: 1, count: after },
  ],
}

/** How far such copies reach. */
const REACH: Readonly<Record<string, (d: number) => number>> = {
  edge: () => 2 ** 31,
  reflect: (d) => d - 1,
  wrap: (d) => d,
}

/** Elements added to the extents of some axes, or taken from them where the count is below 0. */
const padding: Import = (s) => {
  const x = s.floats(0)
  const rank = x.shape.length
  const mode = s.string('mode', 'constant')
  const pads = s.list('pads') ?? s.numbers(1)
  const value = s.has(2) ? s.number(2) : s.float('value', 0)
  const over = s.has(3) ? s.numbers(3).map((a) => axis(s, a, rank, 'axes:')) : [...x.shape.keys()]
  if (pads.length !== 2 * over.length || new Set(over).size !== over.length)
    s.fail(`pads: expected ${2 * over.length} numbers, one axis each, found [${pads}]`)
  if (!pads.every(Number.isSafeInteger)) s.fail(`pads: [${pads}] are out of range`)
  const side = (from: number) => x.shape.map((_, i) => (over.includes(i) ? pads[from + over.indexOf(i)] : 0))
  const [before, after] = [side(0), side(over.length)]
  if (x.shape[0] === 'N' && (before[0] !== 0 || after[0] !== 0)) s.fail('it pads the batch axis')
  const cut = x.shape.reduce<Floats>((v, _, a) => {
    const [less, more] = [Math.max(0, -before[a]), Math.max(0, -after[a])]
    if (less + more === 0) return v
    return takeFrom(s, v, a, [{ start: less, step: 1, count: extent(s, v, a, 'pads') - less - more }])
  }, x)
  const [b, e] = [before.map((p) => Math.max(0, p)), after.map((p) => Math.max(0, p))]
  if ([...b, ...e].every((p) => p === 0)) return cut
  if (mode === 'constant') return surrounded(s, cut, b, e, value)
  if (!Object.hasOwn(BORDERS, mode)) s.fail(`attribute mode: ${JSON.stringify(mode.slice(0, 80))} is not supported`)
  return cut.shape.reduce<Floats>((v, _, a) => {
    if (b[a] + e[a] === 0) return v
    const d = extent(s, v, a, 'pads')
    if (Math.max(b[a], e[a]) > REACH[mode](d)) s.fail(`pads: [${pads}] reach beyond an extent of ${d}`)
    return takeFrom(
      s,
      v,
      a,
      BORDERS[mode](d, b[a], e[a]).filter((r) => r.count > 0),
    )
  }, cut)
}

/** The value with copies of one number around it. */
const surrounded = (s: NodeView, v: Floats, before: Shape, after: Shape, value: number): Floats => {
  if (!Number.isFinite(value)) s.fail(`the value ${value} is not finite`)
  const padded = [...v.shape.keys()].filter((i) => before[i] + after[i] > 0)
  const { x } = withAxes(s, v, padded, 'pads')
  const skip = x.batch === 'none' ? 0 : 1
  // The counts for what follows the batch in a run.
  const counts = (side: Shape): Shape => (x.batch === 'front' || skip === 0 ? side : side.slice(1))
  const [b, e] = [counts(before), counts(after)]
  const lead = Array<number>(skip).fill(0)
  const around = (y: Operand) => pad(y, [...lead, ...b], [...lead, ...e])
  if (value === 0) return s.emit([x], ([y]) => around(y))
  const inside = (shape: Shape) => pad(full(shape.slice(skip), 1), b, e)
  return s.emit([x], ([y]) => add(around(y), select(inside(y.shape), 0, value)) as Operand)
}

export const imports: Readonly<Record<string, Import>> = {
  Concat: concat,
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherND,
  Pad: padding,
  ScatterND: scatterND,
  Slice: slice,
  Split: split,
  Tile: tile,
}

export const exports: Readonly<Record<string, Export>> = {
  pad: (x, w) => {
    const { before, after } = x.attrs as { readonly before: readonly number[]; readonly after: readonly number[] }
    if (w.moving(x) && before[0] + after[0] > 0) refuse(x, 'it pads the batch axis')
    w.emit(x, 'Pad', [w.ref(x.inputs[0]), w.ints([...before, ...after])], { mode: { string: 'constant' } })
  },
}
