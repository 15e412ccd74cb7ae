import { reference } from '../backend/reference.ts'
import { linearBounds, type Method } from '../bounds/linear-bounds.ts'
import type { Buffer, Data } from '../compile/backend.ts'
import { openRegion, type Region } from '../compile/region.ts'
import { compileIn } from '../compile/run.ts'
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

/** A compiled function of the reference backend, whose numbers are doubles. */
const runner =
  (region: Region) =>
  async (
    outputs: readonly Tensor[],
    inputs: readonly Tensor[],
  ): Promise<(data: readonly Float64Array[]) => Promise<readonly Data[]>> => {
    const { run } = await compileIn(region)(outputs, inputs)
    const buffers: readonly Buffer[] = [...inputs, ...outputs].map((x) => region.alloc(S.size(x.shape)))
    return async (data) => {
      data.forEach((d, i) => {
        region.backend.write(buffers[i], d)
      })
      run(buffers)
      const results: Data[] = []
      for (const b of buffers.slice(inputs.length)) results.push(Float64Array.from(await region.backend.read(b)))
      return results
    }
  }

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
  const compared = Object.fromEntries(opLaws.map((law) => [law, 0])) as Record<OpLaw, number>
  for (const [example, operands] of examples.entries()) {
    const wrong = operands.find(({ from, to }) => !(Number.isFinite(from) && Number.isFinite(to) && from <= to))
    if (wrong !== undefined)
      raise(usage(`example ${example}: a range goes from a number up, not from ${wrong.from} to ${wrong.to}`))
    const { region, close } = openRegion(backend)
    try {
      const compiled = runner(region)
      const done = new Set<string>()
      const violated = (law: OpLaw, what: string, message: string): void => {
        if (done.has(`${law} ${what}`)) return
        done.add(`${law} ${what}`)
        violations.push({ law, example, message: what === '' ? message : `${what}: ${message}` })
      }
      const wanted = (law: OpLaw): boolean => !except.includes(law)
      const skip = (law: OpLaw, reason: string): void => {
        if (!skipped.some((s) => s.law === law && s.example === example)) skipped.push({ law, example, reason })
      }

      const named = (prefix: string) => operands.map(({ shape }, i) => input(`${prefix}${i}`, shape))
      const [xs, ls, us] = [named('x'), named('l'), named('u')]
      const boxed = [...operands.keys()].filter((i) => operands[i].point !== true)
      const boxes = operands.map((_, i): Operand => (boxed.includes(i) ? interval(ls[i], us[i]) : ls[i]))
      const f = op(...xs)
      const value = await compiled([f], xs)
      const slack = (...magnitudes: readonly number[]): number =>
        tolerance * magnitudes.reduce((a, b) => a + (Number.isFinite(b) ? Math.abs(b) : 0), 1)

      const ct = input('ct', f.shape)
      const directions = operands.map(({ shape }, i) => input(`v${i}`, shape))
      const differentiable = wanted('gradient')
      const weighted = await compiled([sum(mul(f, ct) as Tensor)], [...xs, ct])
      const along = differentiable
        ? await compiled(
            [
              vjp([f], [ct], xs)
                .map((g, i) => sum(mul(g, directions[i]) as Tensor))
                .reduce((a, b) => add(a, b) as Tensor),
            ],
            [...xs, ct, ...directions],
          )
        : undefined

      const box = refusing(() => (op as (...inputs: readonly Operand[]) => Operand)(...boxes) as Interval)
      if ('reason' in box)
        for (const law of ['inclusion', 'isotonicity'] as const) if (wanted(law)) skip(law, box.reason)
      const bounds = 'value' in box ? await compiled([box.value.lower, box.value.upper], [...ls, ...us]) : undefined

      const isRecord = f.inputs.length === xs.length && f.inputs.every((x, i) => x === xs[i])
      const relaxed = isRecord && wanted('relaxation') ? relaxations(f.op as Op<unknown>) : []
      if (relaxed.length === 0 && wanted('relaxation'))
        skip('relaxation', isRecord ? 'the record has no lines' : 'a composition has no lines of its own: see walk')
      const lines = await Promise.all(
        relaxed
          .filter(([name]) => name !== 'bilinear' || boxes.every(isInterval))
          .flatMap(([name, relax]) => SLOPES.map((slope) => ({ name: `${name}, slope ${slope}`, relax, slope })))
          .map(async ({ name, relax, slope }) => {
            const { lower, upper } = relax(boxes, f.attrs, slope)
            const outputs = [...lineAt(f, lower, xs, boxed), ...lineAt(f, upper, xs, boxed)]
            return { name, run: await compiled(outputs, [...ls, ...us, ...xs]) }
          }),
      )

      const walked = operands.map(({ shape }, i): Tensor => (boxed.includes(i) ? input(`w${i}`, shape) : ls[i]))
      const walks = await Promise.all(
        (wanted('walk') ? METHODS : []).map(async (method) => {
          const around = new Map(boxed.map((i) => [walked[i], boxes[i] as Interval]))
          const result = refusing(() => linearBounds(method)(op(...walked), around).output())
          if ('reason' in result) {
            skip('walk', result.reason)
            return undefined
          }
          return {
            name: `slope ${String(method.slope)}`,
            run: await compiled([result.value.lower, result.value.upper], [...ls, ...us]),
          }
        }),
      )

      for (let sample = 0; sample < samples; sample++) {
        const k = fold(fold(key(seed), example), sample)
        const d = drawn(operands, k, WIDTHS[sample % WIDTHS.length])
        const values = await Promise.all(d.points.map(async (p) => (await value(p))[0]))
        const contained = (law: OpLaw, what: string, l: Data, u: Data, v: Data, at: readonly Float64Array[]): void => {
          compared[law] += v.length
          for (let i = 0; i < v.length; i++) {
            // NaN ends say that nothing is known.
            if (Number.isNaN(l[i]) || Number.isNaN(u[i])) continue
            const room = slack(l[i], u[i], v[i])
            if (v[i] < l[i] - room || v[i] > u[i] + room)
              violated(
                law,
                what,
                `at ${numbers(at, i)} it is ${v[i]}, which is not in [${l[i]}, ${u[i]}], its bounds from ${numbers(d.lower, i)} to ${numbers(d.upper, i)}`,
              )
          }
        }

        if (along !== undefined) {
          const at = d.points[1]
          const v = operands.map(({ shape }, i) => draws(fold(k, `v${i}`), S.size(shape)).map((t) => 2 * t - 1))
          const weights = draws(fold(k, 'ct'), S.size(f.shape)).map((t) => 2 * t - 1)
          const [[slope]] = await along([...at, weights, ...v])
          const moved = async (h: number) =>
            (await weighted([...at.map((x, i) => x.map((e, j) => e + h * v[i][j])), weights]))[0][0]
          const scale = 1 + Math.max(0, ...at.map((x) => x.reduce((m, e) => Math.max(m, Math.abs(e)), 0)))
          const errorAt = async (h: number) => Math.abs(((await moved(h)) - (await moved(-h))) / (2 * h) - slope)
          const room = DIFFERENCE * (1 + Math.abs(slope))
          compared.gradient++
          // A kink between the two points is gone with a smaller step; a wrong gradient stays.
          if (!((await errorAt(STEP * scale)) <= room) && !((await errorAt((STEP * scale) / 64)) <= room)) {
            const h = STEP * scale
            const difference = ((await moved(h)) - (await moved(-h))) / (2 * h)
            violated(
              'gradient',
              '',
              `at ${numbers(at)} its derivative along ${numbers(v)} is ${difference} by differences, ${slope} by its vjp`,
            )
          }
        }

        if (bounds !== undefined) {
          const [l, u] = await bounds([...d.lower, ...d.upper])
          if (wanted('inclusion'))
            for (const [m, p] of d.points.entries()) contained('inclusion', '', l, u, values[m], p)
          if (wanted('isotonicity')) {
            const [il, iu] = await bounds([...d.innerLower, ...d.innerUpper])
            compared.isotonicity += 2 * l.length
            for (let i = 0; i < l.length; i++) {
              const room = slack(l[i], u[i], il[i], iu[i])
              if (il[i] < l[i] - room || iu[i] > u[i] + room)
                violated(
                  'isotonicity',
                  '',
                  `[${il[i]}, ${iu[i]}] from ${numbers(d.innerLower, i)} to ${numbers(d.innerUpper, i)} is not within [${l[i]}, ${u[i]}] of the wider box`,
                )
            }
          }
        }

        for (const { name, run } of lines)
          for (const [m, p] of d.points.entries()) {
            const [l, lm, u, um] = await run([...d.lower, ...d.upper, ...p])
            const v = values[m]
            compared.relaxation += 2 * v.length
            for (let i = 0; i < v.length; i++) {
              const side =
                l[i] > v[i] + slack(lm[i], v[i])
                  ? ['lower', l[i], 'above']
                  : u[i] < v[i] - slack(um[i], v[i])
                    ? ['upper', u[i], 'below']
                    : undefined
              if (side !== undefined)
                violated(
                  'relaxation',
                  name,
                  `on the box from ${numbers(d.lower, i)} to ${numbers(d.upper, i)}, at ${numbers(p, i)}, the ${side[0]} line is ${side[1]}, ${side[2]} the value ${v[i]}`,
                )
            }
          }

        for (const walk of walks)
          if (walk !== undefined) {
            const [l, u] = await walk.run([...d.lower, ...d.upper])
            for (const [m, p] of d.points.entries()) contained('walk', walk.name, l, u, values[m], p)
          }
      }
    } finally {
      close()
    }
  }
  backend.dispose()
  return { violations, compared, skipped }
}
