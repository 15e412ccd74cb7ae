import type { Shape } from '../../core/shape.ts'
import type { Operand } from '../../core/tensor.ts'
import { add, full, pad, select } from '../../ops/index.ts'
import { axis } from './axes.ts'
import { type Import, ints } from './values.ts'
import { type Export, refuse } from './writer.ts'

/** Constant padding; pads, value and axes are attributes before opset 11, inputs since. */
const padding: Import = (s) => {
  const x = s.floats(0)
  const rank = x.probe.shape.length
  const mode = s.string('mode', 'constant')
  if (mode !== 'constant') s.fail(`attribute mode: ${JSON.stringify(mode.slice(0, 80))} is not supported`)
  const pads = s.list('pads') ?? s.numbers(1)
  const value = s.has(2) ? s.number(2) : s.float('value', 0)
  const over = s.has(3) ? s.numbers(3).map((a) => axis(s, a, rank, 'axes:')) : [...x.probe.shape.keys()]
  if (pads.length !== 2 * over.length || new Set(over).size !== over.length)
    s.fail(`pads: expected ${2 * over.length} numbers, one axis each, found [${pads}]`)
  if (!pads.every((p) => Number.isSafeInteger(p) && p >= 0)) s.fail(`pads: [${pads}] must be >= 0`)
  if (!Number.isFinite(value)) s.fail(`the value ${value} is not finite`)
  const side = (from: number) => x.probe.shape.map((_, i) => (over.includes(i) ? pads[from + over.indexOf(i)] : 0))
  const [before, after] = [side(0), side(over.length)]
  if (x.batched && (before[0] !== 0 || after[0] !== 0)) s.fail('it pads the batch axis')
  if (value === 0 || [...before, ...after].every((p) => p === 0)) return s.emit([x], ([v]) => pad(v, before, after))
  const skip = x.batched ? 1 : 0
  const inside = (shape: Shape) => pad(full(shape.slice(skip), 1), before.slice(skip), after.slice(skip))
  return s.emit([x], ([v]) => add(pad(v, before, after), select(inside(v.shape), 0, value)) as Operand)
}
const gather: Import = (s) => {
  const data = s.either(0)
  if (data.kind !== 'ints' || data.rank !== 1) return s.fail('only elements of a shape are gathered')
  axis(s, s.int('axis', 0), 1)
  const at = s.ints(1)
  return ints(
    s.numbers(1).map((i) => data.data[axis(s, i, data.data.length, 'index')]),
    at.rank,
  )
}

const concat: Import = (s) => {
  axis(s, s.int('axis', 0), 1)
  const parts = Array.from({ length: s.arity }, (_, i) => {
    const v = s.either(i)
    return v.kind === 'ints' && v.rank === 1 ? v.data : s.fail('only shapes are concatenated')
  })
  if (parts.reduce((n, p) => n + p.length, 0) > 64) s.fail('a shape of more than 64 extents')
  return ints(parts.flat())
}

const slice: Import = (s) => {
  const data = s.either(0)
  if (data.kind !== 'ints' || data.rank !== 1) return s.fail('only shapes are sliced')
  const one = (name: string, i: number, otherwise: number): number => {
    const v = s.list(name) ?? (s.has(i) ? s.numbers(i) : [otherwise])
    return v.length === 1 ? v[0] : s.fail(`${name}: expected one number, found [${v}]`)
  }
  const n = data.data.length
  const bound = (v: number) => Math.min(Math.max(v < 0 ? v + n : v, 0), n)
  axis(s, one('axes', 3, 0), 1)
  if (one('steps', 4, 1) !== 1) s.fail('steps: only 1 is supported')
  return ints(data.data.slice(bound(one('starts', 1, 0)), bound(one('ends', 2, n))))
}

export const imports: Readonly<Record<string, Import>> = { Concat: concat, Gather: gather, Pad: padding, Slice: slice }

export const exports: Readonly<Record<string, Export>> = {
  pad: (x, w) => {
    const { before, after } = x.attrs as { readonly before: readonly number[]; readonly after: readonly number[] }
    if (w.moving(x) && before[0] + after[0] > 0) refuse(x, 'it pads the batch axis')
    w.emit(x, 'Pad', [w.ref(x.inputs[0]), w.ints([...before, ...after])], { mode: { string: 'constant' } })
  },
}
