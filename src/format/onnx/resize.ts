import { type Shape, show } from '../../core/shape.ts'
import { upsample2d } from '../../ops/index.ts'
import { showExtents, takeFrom } from './axes.ts'
import { runsOf, settled } from './known.ts'
import type { Extent, Floats, Import, NodeView } from './values.ts'

/** Resizing by the nearest neighbour, along any axes but the batch. */

/** The longest axis of a result, as places of it are listed. */
const MAX_EXTENT = 2 ** 16

/** Rounds what is computed on the way to a place: to float32 as runtimes do, or to float64. */
type Round = (x: number) => number
type Where = (x: number, scale: number, from: number, to: number, r: Round) => number

/** Where a place of the result lies in the operand, by the names of the standard. */
const COORDINATES: Readonly<Record<string, Where>> = {
  align_corners: (x, _, from, to, r) => (to === 1 ? 0 : r((x * (from - 1)) / (to - 1))),
  asymmetric: (x, scale, _, __, r) => r(x / scale),
  half_pixel: (x, scale, _, __, r) => r(r((x + 0.5) / scale) - 0.5),
  half_pixel_symmetric: (x, scale, from, to, r) => {
    const offset = r((from / 2) * r(1 - r(to / r(scale * from))))
    return r(r(offset + r((x + 0.5) / scale)) - 0.5)
  },
  pytorch_half_pixel: (x, scale, _, to, r) => (to > 1 ? r(r((x + 0.5) / scale) - 0.5) : 0),
}

/** Which of two neighbours a place between them takes. */
const NEAREST: Readonly<Record<string, (x: number) => number>> = {
  ceil: Math.ceil,
  floor: Math.floor,
  round_prefer_ceil: (x) => Math.floor(x + 0.5),
  round_prefer_floor: (x) => Math.ceil(x - 0.5),
}

const one = <A>(s: NodeView, name: string, otherwise: string, of: Readonly<Record<string, A>>): A => {
  const v = s.string(name, otherwise)
  return Object.hasOwn(of, v)
    ? of[v]
    : s.fail(`attribute ${name}: expected ${Object.keys(of).join(', ')}, found ${JSON.stringify(v.slice(0, 80))}`)
}

/** Numbers of input i, one for each axis. */
const perAxis = (s: NodeView, i: number, rank: number): readonly number[] => {
  const { data } = settled(s, s.known(i))
  const numbers = data.map((d) => (d === 'N' ? s.fail(`input ${i} must not depend on the size of the batch`) : d))
  return numbers.length === rank && numbers.every((v) => Number.isFinite(v) && v > 0)
    ? numbers
    : s.fail(`input ${i}: expected ${rank} numbers above 0, found [${numbers}]`)
}

interface Target {
  readonly to: number
  readonly scale: number
}

/** The result along one axis: how long it is, and by which factor. */
const targets = (x: Floats, scales: readonly number[] | undefined, sizes: readonly number[] | undefined) =>
  x.shape.map((from: Extent, i): Target => {
    const fixed = from === 'N' ? 1 : from
    if (scales !== undefined) return { to: Math.floor(fixed * scales[i]), scale: scales[i] }
    const to = (sizes as readonly number[])[i]
    return { to, scale: to / fixed }
  })

const resized = (
  s: NodeView,
  x: Floats,
  all: readonly Target[],
  where: Where,
  nearest: (scale: number) => (x: number) => number,
) => {
  const extents = x.shape.map((d) => (d === 'N' ? 1 : d))
  if (x.shape[0] === 'N' && (all[0].to !== 1 || all[0].scale !== 1))
    s.fail(`it resizes the batch axis of ${showExtents(x)} by ${all[0].scale}`)
  if (all.some(({ to }) => !(to <= MAX_EXTENT))) s.fail(`the result is longer than ${MAX_EXTENT} along an axis`)
  if (all.some(({ to }) => to < 1)) s.fail(`the result ${show(all.map((t) => t.to) as Shape)} has no elements`)
  const index = (k: number, { to, scale }: Target, from: number, r: Round) =>
    Math.min(Math.max(nearest(scale)(where(k, scale, from, to, r)), 0), from - 1)
  const indices = all.map((target, i) =>
    Array.from({ length: target.to }, (_, k) => {
      const [single, double] = [Math.fround, (v: number) => v].map((r) => index(k, target, extents[i], r))
      return single === double
        ? single
        : s.fail(
            `element ${k} of axis ${i} is nearest to ${single} in float32 and to ${double} in exact arithmetic, and runtimes differ: choose a scale or nearest_mode without such ties`,
          )
    }),
  )
  // Whole factors of maps repeat rows and columns at once.
  const whole = indices.map((list, i) =>
    list.every((v, k) => v === Math.floor((k * extents[i]) / list.length)) ? list.length / extents[i] : 0,
  )
  if (
    x.batch === 'first' &&
    indices.length === 4 &&
    whole.every((f, i) => Number.isInteger(f) && (i > 1 ? f >= 1 : f === 1))
  )
    return s.emit([x], ([v]) => upsample2d(v, [whole[2], whole[3]]))
  // The batch stays what it is.
  return indices.reduce((v, list, i) => (x.shape[i] === 'N' ? v : takeFrom(s, v, i, runsOf(list))), x)
}

const nearestOnly = (s: NodeView): void => {
  const mode = s.string('mode', 'nearest')
  if (mode !== 'nearest')
    s.fail(`attribute mode: only "nearest" is supported, found ${JSON.stringify(mode.slice(0, 80))}`)
}

/** Resize: scales, or sizes, of all axes; before opset 11 as Upsample has it. */
const resize: Import = (s) => {
  nearestOnly(s)
  const x = s.floats(0)
  const rank = x.shape.length
  if (s.opset < 11) return before11(s, x, perAxis(s, 1, rank))
  if (s.given('axes')) s.fail('attribute axes: only all axes are supported')
  if (s.string('keep_aspect_ratio_policy', 'stretch') !== 'stretch')
    s.fail('attribute keep_aspect_ratio_policy: only "stretch" is supported')
  // What these say concerns other modes.
  s.float('cubic_coeff_a', -0.75)
  s.float('extrapolation_value', 0)
  s.int('exclude_outside', 0)
  s.int('antialias', 0)
  const where = one(s, 'coordinate_transformation_mode', 'half_pixel', COORDINATES)
  const nearest = one(s, 'nearest_mode', 'round_prefer_floor', NEAREST)
  const scaled = s.has(2) && s.known(2).data.length > 0
  if (!scaled && !s.has(3)) s.fail('scales or sizes are missing')
  const all = scaled ? targets(x, perAxis(s, 2, rank), undefined) : targets(x, undefined, perAxis(s, 3, rank))
  return resized(s, x, all, where, () => nearest)
}

/** What a place takes before opset 11: the standard says for larger maps alone, and onnxruntime rounds up for smaller ones. */
const before11 = (s: NodeView, x: Floats, scales: readonly number[]): Floats => {
  const floor = (scale: number) => (v: number) =>
    scale < 1 && !Number.isInteger(v)
      ? s.fail(
          `a scale of ${scale}: before opset 11 runtimes choose elements of smaller maps differently; export with a later one`,
        )
      : Math.floor(v)
  return resized(s, x, targets(x, scales, undefined), COORDINATES.asymmetric, floor)
}

/** Upsample: scales as input 1 (opset 9). */
const upsample: Import = (s) => {
  nearestOnly(s)
  if (s.given('scales')) s.fail('attribute scales: it is read as an input, since opset 9')
  const x = s.floats(0)
  return before11(s, x, perAxis(s, 1, x.shape.length))
}

export const imports: Readonly<Record<string, Import>> = { Resize: resize, Upsample: upsample }
