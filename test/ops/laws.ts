import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { linearBounds, type Method } from '../../src/bounds/linear-bounds.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { vjp } from '../../src/compile/vjp.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { type Affine, apply, interval, node, type Op, type Slope } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../../src/core/tensor.ts'
import { abs, add, concat, full, input, mul, registry, reshape, scalar, slice, sum } from '../../src/ops/index.ts'
import { type Entry, type Example, entries } from './examples.ts'
import { check, differences, numbers, type Prepared, prepare, type Spec, using, values } from './property.ts'

/** Adds the call to what a failure says. */
const inContext = async (context: string, f: () => Promise<void> | void): Promise<void> => {
  try {
    await f()
  } catch (e) {
    if (e instanceof Error) e.message = `${context}: ${e.message}`
    throw e
  }
}

const inputsOf = (specs: readonly Spec[], prefix = 'x'): readonly Tensor[] =>
  specs.map((s, i) => input(`${prefix}${i}`, s.shape))

/** Non-empty sets of operands that may be boxed: each alone and all together. */
const boxings = (e: Example): readonly (readonly number[])[] => {
  const boxable = [...e.inputs.keys()].filter((k) => e.inputs[k].box)
  return boxable.length > 1 ? [...boxable.map((k) => [k]), boxable] : boxable.map((k) => [k])
}

const includes = (sets: readonly (readonly number[])[], set: readonly number[]): boolean =>
  sets.some((s) => s.length === set.length && s.every((k) => set.includes(k)))

/** A box and points in it, for the boxed operands; a value for the others. */
interface Boxed {
  readonly lower: readonly Float64Array[]
  readonly upper: readonly Float64Array[]
  /** Another box inside it. */
  readonly innerLower: readonly Float64Array[]
  readonly innerUpper: readonly Float64Array[]
  readonly points: readonly (readonly Float64Array[])[]
}

const POINTS = 6
/** Widths of boxes: thin, small (most are stable), unstable, large. */
const WIDTHS = [0, 0.05, 1.5, 40]

/** Boxes of the operands in `set` with points in them. */
const boxed = (e: Example, set: readonly number[]): fc.Arbitrary<Boxed> =>
  fc
    .tuple(
      fc.tuple(...e.inputs.map(values)),
      fc.constantFrom(...WIDTHS),
      fc.tuple(...e.inputs.map((s) => numbers((2 * POINTS + 3) * S.size(s.shape), 0, 1))),
    )
    .map(([base, width, random]) => {
      const ends = e.inputs.map((s, k) => {
        const [l, u] = [base[k].slice(), base[k].slice()]
        const positive = s.low > 0
        const negative = s.high < 0
        if (set.includes(k))
          base[k].forEach((v, j) => {
            const w = width * random[k][j]
            // Boxes stay where the op is defined; elsewhere they grow to both sides.
            l[j] = positive ? v : v - (width > 2 || negative ? w : w / 2)
            u[j] = negative ? v : v + w
            if (positive && width > 0) l[j] = s.low + (v - s.low) * (1 - random[k][j])
          })
        return [l, u]
      })
      const inside = (t: (k: number, j: number) => number) =>
        ends.map(([l, u], k) => l.map((a, j) => Math.min(Math.max(a + t(k, j) * (u[j] - a), a), u[j])))
      const at = (p: number) => (k: number, j: number) => {
        const r = random[k][(p + 1) * base[k].length + j]
        // A third of the points sit on corners.
        return p % 3 === 0 ? Math.round(r) : r
      }
      const [p, q] = [inside(at(POINTS)), inside(at(POINTS + 1))]
      return {
        lower: ends.map(([l]) => l),
        upper: ends.map(([, u]) => u),
        innerLower: p.map((v, k) => v.map((x, j) => Math.min(x, q[k][j]))),
        innerUpper: p.map((v, k) => v.map((x, j) => Math.max(x, q[k][j]))),
        points: Array.from({ length: POINTS }, (_, i) => inside(at(i))),
      }
    })

/** The operands of a call: intervals for those in `set`. */
const operandsOf = (e: Example, set: readonly number[]) => {
  const lower = inputsOf(e.inputs, 'l')
  const upper = inputsOf(e.inputs, 'u')
  const operands = lower.map((l, k): Operand => (set.includes(k) ? interval(l, upper[k]) : l))
  return { inputs: [...lower, ...upper], operands }
}

/** v in [l, u] up to `slack` times the magnitudes, or a bound that says nothing is known. */
const contains = (l: number, u: number, v: number, slack: number): boolean => {
  if (Number.isNaN(l) || Number.isNaN(u)) return true
  const room =
    slack * (1 + Math.abs(v) + (Number.isFinite(l) ? Math.abs(l) : 0) + (Number.isFinite(u) ? Math.abs(u) : 0))
  return v >= l - room && v <= u + room
}

const assertContains = (
  l: ArrayLike<number>,
  u: ArrayLike<number>,
  v: ArrayLike<number>,
  slack: number,
  what: string,
) => {
  for (let i = 0; i < v.length; i++)
    if (!contains(l[i], u[i], v[i], slack))
      throw new Error(`${what}: element ${i}, ${v[i]} is not in [${l[i]}, ${u[i]}]`)
}

const raises = (f: () => unknown): MixtrainException => {
  try {
    f()
  } catch (e) {
    if (e instanceof MixtrainException) return e
    throw e
  }
  throw new Error('nothing was raised')
}

/** The slopes to try: the fixed choices, and lower slopes of one's own (alpha-CROWN). */
const SLOPES: readonly (Slope | 'own')[] = ['same', 'adaptive', 'zero', 'own']
const METHODS: readonly Method[] = [
  { slope: 'same', hidden: 'own' },
  { slope: 'adaptive', hidden: 'ibp' },
  { slope: 'zero', hidden: 'own' },
]

type Lines = { readonly lower: Affine; readonly upper: Affine }

/** The relaxation of an elementwise op, a reduction, or a product of two boxes, if it has one. */
const linesOf = (op: Op<unknown>, e: Example, operands: readonly Operand[], slope: Slope): Lines | undefined => {
  const { relax } = op
  if (relax === 'linear') return undefined
  if (typeof relax === 'function') return relax(operands, e.attrs, slope)
  if ('unsupported' in relax) return undefined
  if ('bilinear' in relax)
    return typeof relax.bilinear === 'function' && operands.every(isInterval)
      ? relax.bilinear(operands, e.attrs, slope)
      : undefined
  return 'definition' in relax ? undefined : relax.relax(operands, e.attrs, slope)
}

/** sum of slopes[i] x_i + intercept over the boxed operands, in the shape of the output, and the same of magnitudes. */
const lineAt = (op: Op<unknown>, e: Example, line: Affine, set: readonly number[], xs: readonly Tensor[]) => {
  const out = node(op, xs, e.attrs).shape
  const reduction = typeof op.relax === 'object' && 'lift' in op.relax
  const terms = set.map((k) => {
    const product = mul(line.slopes[k], xs[k]) as Tensor
    if (!reduction) return product
    const { axes, keep } = e.attrs as { axes: readonly number[]; keep: boolean }
    return sum(product, axes, keep)
  })
  const all = [...terms, ...(line.intercept === undefined ? [] : [line.intercept])]
  const total = (parts: readonly Tensor[]) => parts.reduce<Tensor>((a, b) => add(a, b) as Tensor, full(out, 0))
  return [total(all), total(all.map((x) => abs(x)))]
}

/** lower(x) <= f(x) <= upper(x), where each line is given with its magnitudes; a NaN line says nothing. */
const assertSandwich = (lines: readonly ArrayLike<number>[], v: ArrayLike<number>, slack: number, what: string) => {
  const [l, lm, u, um] = lines
  for (let i = 0; i < v.length; i++) {
    const room = (m: number) => slack * (1 + Math.abs(v[i]) + (Number.isFinite(m) ? m : 0))
    if (l[i] > v[i] + room(lm[i]) || u[i] < v[i] - room(um[i]))
      throw new Error(`${what}: element ${i}, ${v[i]} is not between ${l[i]} and ${u[i]}`)
  }
}

/** Values that one element of a boxed operand might have when a bound of it is unknown. */
const WILD = [-50, -3, -1, -0.25, 0, 0.25, 1, 3, 50]

/**
 * The laws of every record of the registry, on one backend. Gradients are compared with differences on f64 only; backends of f32
 * are held to the reference bit by bit elsewhere.
 */
export const suite = (name: string, makeBackend: () => Promise<Backend>, runs = 6): void => {
  let backend: Backend
  let live = 0
  test(`${name}: starts`, async () => {
    backend = await makeBackend()
    live = backend.stats().live
  })

  const law = (what: string, body: (entry: Entry, e: Example) => Promise<void> | void) => {
    for (const entry of entries)
      test(`${name} ${entry.op.name}: ${what}`, async () => {
        for (const e of entry.examples) await inContext(e.label, () => body(entry, e))
      })
  }
  const slack = () => (backend.dtype === 'f64' ? 1e-10 : 2e-4)

  test(`${name}: every record of the registry has examples`, () => {
    for (const op of registry)
      assert.ok(
        entries.some((e) => e.op === op && e.examples.length > 0),
        `${op.name} has no examples`,
      )
    assert.is(new Set(entries.map((e) => e.op)).size, entries.length)
    assert.is(entries.length, registry.length)
  })

  // ---- shapes --------------------------------------------------------------------------------------------------------

  law('the kernel fills the declared shape', ({ op }, e) => {
    const { kernel } = op
    if ('expand' in kernel) {
      const xs = inputsOf(e.inputs)
      assert.equal(kernel.expand(xs, e.attrs).shape, node(op, xs, e.attrs).shape)
      return
    }
    return check(2, fc.tuple(...e.inputs.map(values)), (data) => {
      const { shape } = node(op, inputsOf(e.inputs), e.attrs)
      const shapes = e.inputs.map((s) => s.shape)
      const [a, b] = [0, 12345].map((junk) => {
        const out = new Float64Array(S.size(shape)).fill(junk)
        kernel.reference(out, data, shapes, shape, e.attrs)
        return out
      })
      assert.equal(a, b, 'the result depends on what was in the output before')
    })
  })

  for (const { op, wrong } of entries)
    test(`${name} ${op.name}: wrong shapes raise an error that names the op and the shapes`, () => {
      for (const { shapes, attrs } of wrong) {
        const call = `${op.name}(${shapes.map(S.show).join(', ')})`
        let message: string
        try {
          message = raises(() =>
            node(
              op,
              shapes.map((s, i) => input(`x${i}`, s)),
              attrs,
            ),
          ).message
        } catch (e) {
          throw new Error(`${call} ${JSON.stringify(attrs)}: ${(e as Error).message}`)
        }
        assert.ok(message.includes(call), `${message} does not name ${call}`)
      }
    })

  // ---- gradients -----------------------------------------------------------------------------------------------------

  law('vjp, and the vjp of the vjp, agree with central differences', async ({ op }, e) => {
    // A stopped gradient is 0 by declaration.
    if (backend.dtype !== 'f64' || op.name === 'stopGradient') return
    const xs = inputsOf(e.inputs)
    const y = node(op, xs, e.attrs)
    const ct = input('ct', y.shape)
    const own = [...xs.keys()].filter((k) => !e.inputs[k].integer)
    const all = [...own, xs.length]
    const first = vjp(
      [y],
      [ct],
      own.map((k) => xs[k]),
    )
    first.forEach((g, m) => assert.equal(g.shape, xs[own[m]].shape))
    const directions = own.map((k) => input(`v${k}`, xs[k].shape))
    const value = sum(mul(y, ct) as Tensor)
    const along = first
      .map((g, m) => sum(mul(g, directions[m]) as Tensor))
      .reduce((a, b) => add(a, b) as Tensor, scalar(0))
    const second = vjp([along], [scalar(1)], [...own.map((k) => xs[k]), ct])
    const args = [...xs, ct, ...directions]
    const opened: Prepared[] = []
    const open = async (outputs: readonly Tensor[]) => {
      const p = await prepare(backend, outputs, args)
      opened.push(p)
      return p.run
    }
    try {
      const [f, df, g, dg] = [await open([value]), await open(first), await open([along]), await open(second)]
      const specs: readonly Spec[] = [ct, ...directions].map(({ shape }) => ({ shape, low: -2, high: 2, box: false }))
      // Kinks of the gradient (a select at exactly 0) are where an element meets another: the grid keeps them apart.
      await check(Math.max(2, runs >> 1), fc.tuple(...[...e.inputs, ...specs].map(values)), async (data) => {
        await differences(f, df, data, own)
        await inContext('second derivative', () => differences(g, dg, data, all))
      })
    } finally {
      for (const p of opened) p.close()
    }
  })

  law('linear rules carry leading row axes', async ({ op }, e) => {
    const { relax } = op
    const bilinear = typeof relax === 'object' && 'bilinear' in relax
    if (relax !== 'linear' && !bilinear) return
    const xs = inputsOf(e.inputs)
    const y = node(op, xs, e.attrs)
    for (const lead of [[3], [2, 2]]) {
      const rows = S.size(lead)
      const ct = input('ct', [...lead, ...y.shape])
      const flat = reshape(ct, [rows, ...y.shape])
      const together = op.vjp(ct, xs, y, e.attrs)
      const apart = Array.from({ length: rows }, (_, r) => {
        const row = reshape(slice(flat, [r, ...y.shape.map(() => 0)], [1, ...y.shape]), y.shape)
        return op.vjp(row, xs, y, e.attrs)
      })
      const pairs = xs.flatMap((x, k) => {
        const a = together[k]
        // A bilinear rule may serve the operands only that can be boxed.
        if (a === undefined) {
          assert.ok(bilinear && together.some((r) => r !== undefined), `no rows for operand ${k}`)
          return []
        }
        assert.equal(a.shape, [...lead, ...x.shape])
        return [
          [
            reshape(a, [rows, ...x.shape]),
            concat(
              apart.map((row) => reshape(row[k] as Tensor, [1, ...x.shape])),
              0,
            ),
          ],
        ]
      })
      await using(backend, pairs.flat(), [...xs, ct], (run) =>
        check(
          2,
          fc.tuple(...[...e.inputs, { shape: ct.shape, low: -2, high: 2, box: false }].map(values)),
          async (data) => {
            const out = await run(data)
            for (let i = 0; i < out.length; i += 2)
              assertContains(out[i], out[i], out[i + 1], slack(), `lead [${lead}]`)
          },
        ),
      )
    }
  })

  // ---- intervals -----------------------------------------------------------------------------------------------------

  law('interval: inclusion, isotonicity, thin boxes', async (entry, e) => {
    const { op } = entry
    if ('unsupported' in op.interval) {
      const reason = op.interval.unsupported
      const xs = inputsOf(e.inputs)
      for (const k of xs.keys()) {
        const operands = xs.map((x, i): Operand => (i === k ? interval(x, x) : x))
        const { message } = raises(() => apply(op, operands, e.attrs))
        assert.ok(message.includes(op.name) && message.includes(reason), message)
      }
      return
    }
    for (const set of boxings(e)) {
      const { inputs, operands } = operandsOf(e, set)
      const box = apply(op, operands, e.attrs) as Interval
      assert.ok(isInterval(box))
      const xs = inputsOf(e.inputs)
      const f = node(op, xs, e.attrs)
      assert.equal(box.shape, f.shape)
      await using(backend, [box.lower, box.upper], inputs, (bound) =>
        using(backend, [f], xs, (value) =>
          check(runs * 2, boxed(e, set), async (b) => {
            const [lower, upper] = await bound([...b.lower, ...b.upper])
            for (const p of b.points) assertContains(lower, upper, (await value(p))[0], slack(), `inclusion [${set}]`)
            // Operands outside the set must be the same points in the inner call.
            const inner = await bound(
              [...b.innerLower, ...b.innerUpper].map((v, i) =>
                set.includes(i % xs.length) ? v : b.lower[i % xs.length],
              ),
            )
            assertContains(lower, upper, inner[0], slack(), `isotonicity [${set}], lower`)
            assertContains(lower, upper, inner[1], slack(), `isotonicity [${set}], upper`)
            const [thinLower, thinUpper] = await bound([...b.points[1], ...b.points[1]])
            const [exact] = await value(b.points[1])
            const ulps = (entry.thinUlps ?? 0) * (backend.dtype === 'f64' ? 2 ** -52 : 2 ** -23)
            exact.forEach((v, i) => {
              for (const end of [thinLower[i], thinUpper[i]])
                assert.ok(
                  v === end || Math.abs(v - end) <= ulps * Math.abs(v) || (Number.isNaN(v) && Number.isNaN(end)),
                  `thin box [${set}]: element ${i} is ${v}, the bound ${end}`,
                )
            })
          }),
        ),
      )
    }
  })

  law('a NaN or infinite bound is never lost', async ({ op }, e) => {
    if (e.inputs.some((s) => S.size(s.shape) === 0)) return
    for (const set of boxings(e)) {
      const { inputs, operands } = operandsOf(e, set)
      const xs = inputsOf(e.inputs)
      const f = node(op, xs, e.attrs)
      const outputs: Tensor[] = []
      const labels: string[] = []
      if (!('unsupported' in op.interval)) {
        const box = apply(op, operands, e.attrs) as Interval
        outputs.push(box.lower, box.upper)
        labels.push('interval')
      }
      // Lines are evaluated at the sampled point itself, so that a NaN of the box can only come from the relaxation.
      for (const slope of ['same', 'adaptive', 'zero'] as const) {
        const lines = linesOf(op, e, operands, slope)
        if (lines === undefined) continue
        outputs.push(...lineAt(op, e, lines.lower, set, xs), ...lineAt(op, e, lines.upper, set, xs))
        labels.push(`lines ${slope}`)
      }
      if (outputs.length === 0) continue
      const place = fc.record({
        which: fc.constantFrom(...set),
        element: fc.nat(),
        ends: fc.constantFrom<readonly [number | undefined, number | undefined]>(
          [Number.NaN, undefined],
          [undefined, Number.NaN],
          [Number.NaN, Number.NaN],
          [Number.NEGATIVE_INFINITY, undefined],
          [undefined, Number.POSITIVE_INFINITY],
          [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
        ),
      })
      await using(backend, outputs, [...inputs, ...xs], (bound) =>
        using(backend, [f], xs, (value) =>
          check(runs * 3, fc.tuple(boxed(e, set), place), async ([b, { which, element, ends }]) => {
            const j = element % b.lower[which].length
            const [low, high] = [ends[0] ?? b.lower[which][j], ends[1] ?? b.upper[which][j]]
            const replaced = (v: readonly Float64Array[], x: number) =>
              v.map((a, k) => (k === which ? a.map((y, i) => (i === j ? x : y)) : a))
            const positive = e.inputs[which].low > 0
            for (const wild of WILD) {
              if (wild < low || wild > high || (positive && wild <= 0)) continue
              const p = replaced(b.points[0], wild)
              const [v] = await value(p)
              const out = await bound([...replaced(b.lower, low), ...replaced(b.upper, high), ...p])
              let at = 0
              for (const label of labels) {
                const where = `${label} [${set}], operand ${which} element ${j} in [${low}, ${high}] is ${wild}`
                if (label === 'interval') assertContains(out[at++], out[at++], v, slack(), where)
                else {
                  assertSandwich(out.slice(at, at + 4), v, slack(), where)
                  at += 4
                }
              }
            }
          }),
        ),
      )
    }
  })

  // ---- relaxations ---------------------------------------------------------------------------------------------------

  law('relaxation: lower(x) <= f(x) <= upper(x)', async ({ op }, e) => {
    for (const set of boxings(e)) {
      const { inputs, operands } = operandsOf(e, set)
      for (const choice of SLOPES) {
        const shape = operands.reduce<S.Shape>((s, x) => (x.shape.length > s.length ? x.shape : s), [])
        const alpha = input('alpha', shape)
        // Slopes of one's own go to operators of one relu-like kink, where all in [slope, 1] are sound.
        if (choice === 'own' && !['relu', 'leakyRelu', 'abs'].includes(op.name)) continue
        const lines = linesOf(op, e, operands, choice === 'own' ? alpha : choice)
        if (lines === undefined) continue
        const xs = inputsOf(e.inputs)
        const f = node(op, xs, e.attrs)
        const both = [lines.lower, lines.upper].flatMap((line) => lineAt(op, e, line, set, xs))
        for (const line of both) assert.equal(line.shape, f.shape)
        const least = (e.attrs as { slope?: number } | undefined)?.slope ?? 0
        await using(backend, [...both, f], [...inputs, ...xs, alpha], (run) =>
          check(runs * 2, fc.tuple(boxed(e, set), numbers(S.size(shape), least, 1)), async ([b, a]) => {
            for (const p of b.points) {
              const out = await run([...b.lower, ...b.upper, ...p, a])
              const where = `${choice} [${set}]`
              // Lines over finite boxes are numbers.
              for (const line of out) assert.ok(!line.some(Number.isNaN), `${where}: NaN`)
              assertSandwich(out, out[4], slack(), where)
            }
          }),
        )
      }
    }
  })

  law('bound walk: contains what the op computes, or refuses', async ({ op }, e) => {
    if (e.inputs.some((s) => S.size(s.shape) === 0)) return
    for (const set of boxings(e)) {
      const { inputs, operands } = operandsOf(e, set)
      const xs = operands.map((x, k) => (isInterval(x) ? input(`x${k}`, e.inputs[k].shape) : x))
      const f = node(op, xs, e.attrs)
      const boxes = new Map(set.map((k) => [xs[k], operands[k] as Interval]))
      for (const method of METHODS) {
        const where = `${JSON.stringify(method)} [${set}]`
        let bounds: Interval
        try {
          bounds = linearBounds(method)(f, boxes).output()
        } catch (error) {
          if (!(error instanceof MixtrainException)) throw error
          assert.not.ok(includes(e.walks, set), `${where}: ${error.message}`)
          continue
        }
        await inContext(where, () =>
          using(backend, [bounds.lower, bounds.upper], inputs, (run) =>
            using(backend, [f], xs, (value) =>
              check(runs, boxed(e, set), async (b) => {
                const [l, u] = await run([...b.lower, ...b.upper])
                for (const p of b.points) {
                  const [v] = await value(p)
                  assert.is(l.length, v.length)
                  assertContains(l, u, v, slack(), 'walk')
                }
              }),
            ),
          ),
        )
      }
    }
  })

  test(`${name}: a relaxation missing on purpose raises an error that names the op`, () => {
    let missing = 0
    for (const { op, examples } of entries) {
      const { relax } = op
      if (typeof relax !== 'object' || !('unsupported' in relax)) continue
      missing++
      const xs = inputsOf(examples[0].inputs)
      const boxes = new Map([[xs[0], interval(xs[0], xs[0])]])
      const { message } = raises(() => linearBounds(METHODS[0])(node(op, xs, examples[0].attrs), boxes).output())
      assert.ok(message.includes(op.name) && message.includes(relax.unsupported), message)
    }
    assert.ok(missing > 0)
  })

  test(`${name}: no buffer is left`, () => {
    assert.is(backend.stats().live, live)
    backend.dispose()
  })
}
