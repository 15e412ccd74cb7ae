import { reference } from '../backend/reference.ts'
import { linearBounds, type Method } from '../bounds/linear-bounds.ts'
import type { Data } from '../compile/backend.ts'
import { programOf } from '../compile/program.ts'
import { openRegion, type Region } from '../compile/region.ts'
import { vjp } from '../compile/vjp.ts'
import { MixtrainException, raise, show, usage } from '../core/error.ts'
import { fold, type Key, key, uniform } from '../core/key.ts'
import { type Affine, interval, type Op, type Relax } from '../core/op.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { abs, add, full, input, mul, sum } from '../ops/index.ts'

/** An operand of an example: its shape, and from where to where its elements go. */
export interface OperandRange {
  readonly shape: S.Shape
  readonly from: number
  readonly to: number
  /** Whether it stays a point where others are boxes, as weights do. Default: it is boxed. */
  readonly point?: boolean
}

/** The laws that an op has to keep. */
export const opLaws = ['gradient', 'inclusion', 'isotonicity', 'relaxation', 'walk'] as const
/** One of `opLaws`. */
export type OpLaw = (typeof opLaws)[number]

/** A law that was broken, with numbers that show it. */
export interface Violation {
  readonly law: OpLaw
  /** Of which example, from 0. */
  readonly example: number
  readonly message: string
}

/** What `checkOp` found. */
export interface OpCheck {
  /** The first violation of each law by each example; none: no sample spoke against the op, which is no proof. */
  readonly violations: readonly Violation[]
  /** How many comparisons of numbers were made for each law. */
  readonly compared: Readonly<Record<OpLaw, number>>
  /** Laws that nothing can be said about, and why: a rule that is missing on purpose. */
  readonly skipped: readonly { readonly law: OpLaw; readonly example: number; readonly reason: string }[]
}

/** How thoroughly `checkOp` tries an op. */
export interface OpCheckOptions {
  /** Boxes and points drawn for each example. Default: 100. */
  readonly samples?: number
  /** Of the random numbers. Default: 0. */
  readonly seed?: number
  /** Laws that are not asked for: `gradient` for an estimator whose gradient is none by intention. */
  readonly except?: readonly OpLaw[]
  /** Room for rounding, relative to the magnitudes that are compared. Default: 1e-9; differences have 1e-4. */
  readonly tolerance?: number
}

const METHODS: readonly Method[] = [
  { slope: 'same', hidden: 'own' },
  { slope: 'adaptive', hidden: 'own' },
  { slope: 'zero', hidden: 'own' },
]
const SLOPES = ['same', 'adaptive', 'zero'] as const
/** Widths of boxes as shares of an operand's range: kinks and curvature show in different ones. */
const WIDTHS = [0, 0.02, 0.2, 1]
/** Points tried in each box. */
const POINTS = 8
const STEP = 1e-5
const DIFFERENCE = 1e-4

/** Boxes of the operands, a box within each, and points. */
interface Drawn {
  readonly lower: readonly Float64Array[]
  readonly upper: readonly Float64Array[]
  readonly innerLower: readonly Float64Array[]
  readonly innerUpper: readonly Float64Array[]
  readonly points: readonly (readonly Float64Array[])[]
}

/** Uniform in [0, 1). */
const draws = (k: Key, n: number): Float64Array => Float64Array.from(uniform(k, n))

const drawn = (operands: readonly OperandRange[], k: Key, width: number): Drawn => {
  const boxes = operands.map(({ shape, from, to, point = false }, i) => {
    const n = S.size(shape)
    const own = fold(k, i)
    const [at, share] = [draws(fold(own, 'at'), n), point ? 0 : width]
    const lower = at.map((t) => from + t * (1 - share) * (to - from))
    const upper = lower.map((l) => Math.min(l + share * (to - from), to))
    const inside = (name: string, corners: boolean) => {
      const t = draws(fold(own, name), n)
      return lower.map((l, j) => Math.min(l + (corners ? Math.round(t[j]) : t[j]) * (upper[j] - l), upper[j]))
    }
    const [p, q] = [inside('inner', false), inside('other', false)]
    return {
      lower,
      upper,
      innerLower: p.map((v, j) => Math.min(v, q[j])),
      innerUpper: p.map((v, j) => Math.max(v, q[j])),
      // A fourth of the points are corners.
      points: Array.from({ length: POINTS }, (_, m) => inside(`point ${m}`, m % 4 === 0)),
    }
  })
  return {
    lower: boxes.map((b) => b.lower),
    upper: boxes.map((b) => b.upper),
    innerLower: boxes.map((b) => b.innerLower),
    innerUpper: boxes.map((b) => b.innerUpper),
    points: Array.from({ length: POINTS }, (_, m) => boxes.map((b) => b.points[m])),
  }
}

/** sum over operands of slopes[i] x_i + intercept in the shape of the result, and the same of the magnitudes. */
const lineAt = (
  f: Tensor,
  line: Affine,
  xs: readonly Tensor[],
  boxed: readonly number[],
): readonly [Tensor, Tensor] => {
  const { relax } = f.op as Op<unknown>
  const reduces = typeof relax === 'object' && 'lift' in relax
  const terms = boxed.map((k) => {
    const product = mul(line.slopes[k], xs[k]) as Tensor
    if (!reduces) return product
    const { axes, keep } = f.attrs as { readonly axes: readonly number[]; readonly keep: boolean }
    return sum(product, axes, keep)
  })
  const parts = [...terms, ...(line.intercept === undefined ? [] : [line.intercept])]
  const total = (all: readonly Tensor[]) => all.reduce<Tensor>((a, b) => add(a, b) as Tensor, full(f.shape, 0))
  return [total(parts), total(parts.map((x) => abs(x)))]
}

/** The relaxations of a record, by name: its own, and that of outward rounding. */
const relaxations = ({ relax, outward }: Op<unknown>): readonly (readonly [name: string, relax: Relax<unknown>])[] => [
  ...(typeof relax === 'function'
    ? [['relax', relax] as const]
    : typeof relax === 'object' && 'relax' in relax
      ? [['relax', relax.relax] as const]
      : typeof relax === 'object' && 'bilinear' in relax && typeof relax.bilinear === 'function'
        ? [['bilinear', relax.bilinear] as const]
        : []),
  ...(typeof outward?.relax === 'function' ? [['outward.relax', outward.relax] as const] : []),
]

/** The reason of an op that refuses, or its result; other exceptions are the caller's. */
const refusing = <A>(f: () => A): { readonly value: A } | { readonly reason: string } => {
  try {
    return { value: f() }
  } catch (cause) {
    if (cause instanceof MixtrainException && cause.error.kind === 'unsupported') return { reason: show(cause.error) }
    throw cause
  }
}

const numbers = (x: readonly Float64Array[], element?: number): string =>
  x
    .map((v) =>
      v.length > 4 && element !== undefined ? `...${v[element] ?? v[0]}...` : `[${Array.from(v).join(', ')}]`,
    )
    .join(', ')

/** An op on operands, as graphs: of points, and of boxes. */
interface Example {
  readonly op: (...inputs: readonly Operand[]) => Operand
  readonly region: Region
  readonly operands: readonly OperandRange[]
  readonly xs: readonly Tensor[]
  readonly ls: readonly Tensor[]
  readonly us: readonly Tensor[]
  /** Which operands are boxed, and the operands with those in boxes. */
  readonly boxed: readonly number[]
  readonly boxes: readonly Operand[]
  /** The op of points. */
  readonly f: Tensor
}

const exampleOf = (region: Region, op: Example['op'], operands: readonly OperandRange[]): Example => {
  const named = (prefix: string) => operands.map(({ shape }, i) => input(`${prefix}${i}`, shape))
  const [xs, ls, us] = [named('x'), named('l'), named('u')]
  const boxed = [...operands.keys()].filter((i) => operands[i].point !== true)
  const boxes = operands.map((_, i): Operand => (boxed.includes(i) ? interval(ls[i], us[i]) : ls[i]))
  return { op, region, operands, xs, ls, us, boxed, boxes, f: op(...xs) as Tensor }
}

/** A sample of an example: boxes and points, and the values there. */
interface Sample {
  readonly key: Key
  readonly drawn: Drawn
  readonly values: readonly Data[]
}

/** What an example has come to. */
interface Report {
  readonly tolerance: number
  readonly compared: (law: OpLaw, count: number) => void
  /** The first message counts, for each law and whatever of it is checked. */
  readonly violated: (law: OpLaw, what: string, message: string) => void
  readonly skip: (law: OpLaw, reason: string) => void
}

/** A law, ready to be tried on samples of an example; undefined where nothing can be said. */
type Law = (example: Example, report: Report) => Promise<((sample: Sample) => Promise<void>) | undefined>

const slackOf = (tolerance: number, ...magnitudes: readonly number[]): number =>
  tolerance * magnitudes.reduce((a, b) => a + (Number.isFinite(b) ? Math.abs(b) : 0), 1)

/** Whether bounds of a box contain a value of a point in it. NaN ends say that nothing is known. */
const contained = (
  { compared, violated, tolerance }: Report,
  [law, what]: readonly [OpLaw, string],
  { lower, upper }: { readonly lower: Data; readonly upper: Data },
  { drawn, values }: Sample,
): void => {
  for (const [m, at] of drawn.points.entries()) {
    const v = values[m]
    compared(law, v.length)
    for (let i = 0; i < v.length; i++) {
      const [l, u] = [lower[i], upper[i]]
      if (Number.isNaN(l) || Number.isNaN(u)) continue
      const room = slackOf(tolerance, l, u, v[i])
      if (v[i] < l - room || v[i] > u + room) {
        const box = `its bounds from ${numbers(drawn.lower, i)} to ${numbers(drawn.upper, i)}`
        violated(law, what, `at ${numbers(at, i)} it is ${v[i]}, which is not in [${l}, ${u}], ${box}`)
      }
    }
  }
}

const gradientLaw: Law = async ({ operands, region, xs, f }, { compared, violated }) => {
  const ct = input('ct', f.shape)
  const vs = operands.map(({ shape }, i) => input(`v${i}`, shape))
  const weighted = await programOf({ xs, ct }, { y: sum(mul(f, ct) as Tensor) }).on(region)
  const slope = vjp([f], [ct], xs)
    .map((g, i) => sum(mul(g, vs[i]) as Tensor))
    .reduce((a, b) => add(a, b) as Tensor)
  const along = await programOf({ xs, ct, vs }, { slope }).on(region)
  return async ({ key: k, drawn }) => {
    const at = drawn.points[1]
    const v = operands.map(({ shape }, i) => draws(fold(k, `v${i}`), S.size(shape)).map((t) => 2 * t - 1))
    const weights = draws(fold(k, 'ct'), S.size(f.shape)).map((t) => 2 * t - 1)
    const [own] = (await along({ xs: at, ct: weights, vs: v })).slope
    const moved = async (h: number) =>
      (await weighted({ xs: at.map((x, i) => x.map((e, j) => e + h * v[i][j])), ct: weights })).y[0]
    const differenceAt = async (h: number) => ((await moved(h)) - (await moved(-h))) / (2 * h)
    const h = STEP * (1 + Math.max(0, ...at.map((x) => x.reduce((m, e) => Math.max(m, Math.abs(e)), 0))))
    const isClose = async (step: number) =>
      Math.abs((await differenceAt(step)) - own) <= DIFFERENCE * (1 + Math.abs(own))
    compared('gradient', 1)
    // A kink between the two points is gone with a smaller step; a wrong gradient stays.
    if ((await isClose(h)) || (await isClose(h / 64))) return
    const difference = await differenceAt(h)
    const derivative = `its derivative along ${numbers(v)} is ${difference} by differences, ${own} by its vjp`
    violated('gradient', '', `at ${numbers(at)} ${derivative}`)
  }
}

/** Bounds of the op by its interval rule, compiled; what a box of an op that has none comes to is skipped. */
const intervalRule = async ({ op, region, boxes, ls, us }: Example, { skip }: Report, law: OpLaw) => {
  const box = refusing(() => op(...boxes) as Interval)
  if ('value' in box) return programOf({ ls, us }, box.value).on(region)
  skip(law, box.reason)
  return undefined
}

const inclusionLaw: Law = async (example, report) => {
  const bounds = await intervalRule(example, report, 'inclusion')
  return (
    bounds &&
    (async (sample) =>
      contained(report, ['inclusion', ''], await bounds({ ls: sample.drawn.lower, us: sample.drawn.upper }), sample))
  )
}

const isotonicityLaw: Law = async (example, report) => {
  const bounds = await intervalRule(example, report, 'isotonicity')
  return (
    bounds &&
    (async ({ drawn }) => {
      const outer = await bounds({ ls: drawn.lower, us: drawn.upper })
      const inner = await bounds({ ls: drawn.innerLower, us: drawn.innerUpper })
      report.compared('isotonicity', 2 * outer.lower.length)
      for (let i = 0; i < outer.lower.length; i++) {
        const [l, u, il, iu] = [outer.lower[i], outer.upper[i], inner.lower[i], inner.upper[i]]
        const room = slackOf(report.tolerance, l, u, il, iu)
        if (!(il < l - room || iu > u + room)) continue
        const from = `from ${numbers(drawn.innerLower, i)} to ${numbers(drawn.innerUpper, i)}`
        report.violated('isotonicity', '', `[${il}, ${iu}] ${from} is not within [${l}, ${u}] of the wider box`)
      }
    })
  )
}

/** The lines of a record, by every choice of slopes. */
const linesOf = ({ xs, ls, us, boxed, boxes, f, region }: Example) =>
  Promise.all(
    relaxations(f.op as Op<unknown>)
      .filter(([name]) => name !== 'bilinear' || boxes.every(isInterval))
      .flatMap(([name, relax]) => SLOPES.map((slope) => ({ name: `${name}, slope ${slope}`, relax, slope })))
      .map(async ({ name, relax, slope }) => {
        const { lower, upper } = relax(boxes, f.attrs, slope)
        const [[l, lm], [u, um]] = [lineAt(f, lower, xs, boxed), lineAt(f, upper, xs, boxed)]
        return { name, run: await programOf({ ls, us, xs }, { l, lm, u, um }).on(region) }
      }),
  )

const relaxationLaw: Law = async (example, { skip, compared, violated, tolerance }) => {
  const { xs, f } = example
  const isRecord = f.inputs.length === xs.length && f.inputs.every((x, i) => x === xs[i])
  if (!isRecord || relaxations(f.op as Op<unknown>).length === 0) {
    skip('relaxation', isRecord ? 'the record has no lines' : 'a composition has no lines of its own: see walk')
    return undefined
  }
  const lines = await linesOf(example)
  return async ({ drawn, values }) => {
    for (const { name, run } of lines)
      for (const [m, p] of drawn.points.entries()) {
        const { l, lm, u, um } = await run({ ls: drawn.lower, us: drawn.upper, xs: p })
        const v = values[m]
        compared('relaxation', 2 * v.length)
        for (let i = 0; i < v.length; i++) {
          const isAbove = l[i] > v[i] + slackOf(tolerance, lm[i], v[i])
          if (!isAbove && !(u[i] < v[i] - slackOf(tolerance, um[i], v[i]))) continue
          const line = isAbove ? `lower line is ${l[i]}, above` : `upper line is ${u[i]}, below`
          const box = `on the box from ${numbers(drawn.lower, i)} to ${numbers(drawn.upper, i)}`
          violated('relaxation', name, `${box}, at ${numbers(p, i)}, the ${line} the value ${v[i]}`)
        }
      }
  }
}

const walkLaw: Law = async ({ op, operands, region, ls, us, boxed, boxes }, report) => {
  const walked = operands.map(({ shape }, i): Tensor => (boxed.includes(i) ? input(`w${i}`, shape) : ls[i]))
  const around = new Map(boxed.map((i) => [walked[i], boxes[i] as Interval]))
  const walks = await Promise.all(
    METHODS.map(async (method) => {
      const found = refusing(() => linearBounds(method)(op(...walked) as Tensor, around).output())
      if ('value' in found)
        return [{ name: `slope ${String(method.slope)}`, run: await programOf({ ls, us }, found.value).on(region) }]
      report.skip('walk', found.reason)
      return []
    }),
  )
  return async (sample) => {
    const { lower: l, upper: u } = sample.drawn
    for (const { name, run } of walks.flat()) contained(report, ['walk', name], await run({ ls: l, us: u }), sample)
  }
}

const LAWS: Readonly<Record<OpLaw, Law>> = {
  gradient: gradientLaw,
  inclusion: inclusionLaw,
  isotonicity: isotonicityLaw,
  relaxation: relaxationLaw,
  walk: walkLaw,
}

/**
 * Tries an op on samples: whether its gradient is that of its values (central differences), whether its interval rule contains its values and grows
 * with the box, whether both lines of its relaxation sandwich it (also those for outward rounding), and whether linear bounds through it contain it. What an op of
 * one's own (`custom`) gets wrong there makes bounds unsound without a word; a violation comes with the numbers that show it. Everything is computed in doubles.
 *
 * @param op of operands of one kind, giving their kind: what `custom` returns, or any composition
 * @param examples ranges of the operands, one list for each way to call the op; the first axis is the images of a batch, as everywhere
 * @throws a usage error for a range that is none, and what the op raises for these shapes.
 * @example
 *   const { violations } = await checkOp(softplus, [[{ shape: [2, 3], from: -5, to: 5 }]])
 *   for (const { law, message } of violations) console.log(law, message)
 */
export const checkOp = async (
  op: <T extends Operand>(...inputs: readonly T[]) => T,
  examples: readonly (readonly OperandRange[])[],
  { samples = 100, seed = 0, except = [], tolerance = 1e-9 }: OpCheckOptions = {},
): Promise<OpCheck> => {
  const backend = reference()
  const violations: Violation[] = []
  const skipped: OpCheck['skipped'][number][] = []
  const counts = Object.fromEntries(opLaws.map((law) => [law, 0])) as Record<OpLaw, number>
  const reportOf = (example: number): Report => {
    const done = new Set<string>()
    return {
      tolerance,
      compared: (law, count) => {
        counts[law] += count
      },
      violated: (law, what, message) => {
        if (done.has(`${law} ${what}`)) return
        done.add(`${law} ${what}`)
        violations.push({ law, example, message: what === '' ? message : `${what}: ${message}` })
      },
      skip: (law, reason) => {
        if (!skipped.some((s) => s.law === law && s.example === example)) skipped.push({ law, example, reason })
      },
    }
  }
  for (const [example, operands] of examples.entries()) {
    const wrong = operands.find(({ from, to }) => !(Number.isFinite(from) && Number.isFinite(to) && from <= to))
    if (wrong !== undefined)
      raise(usage(`example ${example}: a range goes from a number up, not from ${wrong.from} to ${wrong.to}`))
    const { region, close } = openRegion(backend)
    try {
      const made = exampleOf(region, op as Example['op'], operands)
      const report = reportOf(example)
      const value = await programOf({ xs: made.xs }, { y: made.f }).on(region)
      const tries = []
      for (const law of opLaws) if (!except.includes(law)) tries.push(await LAWS[law](made, report))
      for (let n = 0; n < samples; n++) {
        const k = fold(fold(key(seed), example), n)
        const d = drawn(operands, k, WIDTHS[n % WIDTHS.length])
        const values: Data[] = []
        for (const xs of d.points) values.push((await value({ xs })).y)
        for (const attempt of tries) await attempt?.({ key: k, drawn: d, values })
      }
    } finally {
      close()
    }
  }
  backend.dispose()
  return { violations, compared: counts, skipped }
}
