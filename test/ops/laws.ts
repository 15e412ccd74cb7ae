import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { linearBounds } from '../../src/bounds/linear-bounds.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { vjp } from '../../src/compile/vjp.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { apply, interval, node } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../../src/core/tensor.ts'
import { abs, add, input, mul, registry, reshape, scalar, sum } from '../../src/ops/index.ts'
import { boxed, boxings, includes, inputsOf, operandsOf } from './boxes.ts'
import { type Entry, type Example, entries } from './examples.ts'
import { boxesOf, type Call, leastSlope, sandwiches } from './maps.ts'
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

/** Two bounds of a call at a point, each with the magnitudes that it is made of. */
interface Claim {
  readonly label: string
  readonly isLine: boolean
  readonly below: { readonly value: Tensor; readonly size: Tensor }
  readonly above: { readonly value: Tensor; readonly size: Tensor }
}

/** A call with `set` boxed, at points, and what it is computed from: ends of the boxes, the points, and slopes of one's own. */
const callOf = (entry: Entry, example: Example, set: readonly number[]) => {
  const { inputs, operands } = operandsOf(example, set)
  const points = inputsOf(example.inputs)
  const shape = operands.reduce<S.Shape>((s, x) => (x.shape.length > s.length ? x.shape : s), [])
  const alpha: Tensor = input('alpha', shape)
  const call: Call = { entry, example, set, operands, points, value: node(entry.op, points, example.attrs) }
  return { call, alpha, inputs: [...inputs, ...points, alpha] }
}

/** below <= v <= above, where each bound is given with its magnitudes; one that is no number says nothing. */
const assertBetween = (
  [below, belowSize, above, aboveSize]: readonly ArrayLike<number>[],
  v: ArrayLike<number>,
  slack: number,
  what: string,
) => {
  for (let i = 0; i < v.length; i++) {
    const room = (size: number) => slack * (1 + Math.abs(v[i]) + (Number.isFinite(size) ? size : 0))
    if (below[i] > v[i] + room(belowSize[i]) || above[i] < v[i] - room(aboveSize[i]))
      throw new Error(`${what}: element ${i}, ${v[i]} is not between ${below[i]} and ${above[i]}`)
  }
}

/** An element of an operand in `set`, and what its box says of it: nothing on one side or on both. */
const unknown = (set: readonly number[]) =>
  fc.record({
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

  // ---- intervals -----------------------------------------------------------------------------------------------------

  law('interval: isotonicity, thin boxes', async (entry, e) => {
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

  // ---- bounds --------------------------------------------------------------------------------------------------------

  law('below <= f <= above: intervals, lines and walks, on boxes with unknown ends too', async (entry, e) => {
    if (e.inputs.some((s) => S.size(s.shape) === 0)) return
    for (const set of boxings(e)) {
      const { call, inputs, alpha } = callOf(entry, e, set)
      const claims: Claim[] = sandwiches(call, alpha).map(([label, { below, above }]) => ({
        label,
        isLine: true,
        below,
        above,
      }))
      for (const [label, box] of boxesOf(call)) {
        if (box instanceof MixtrainException) {
          assert.not.ok(includes(e.walks, set), `${label} [${set}]: ${box.message}`)
          continue
        }
        const end = (value: Tensor) => ({ value, size: abs(value) as Tensor })
        claims.push({ label, isLine: false, below: end(box.lower), above: end(box.upper) })
      }
      const outputs = claims.flatMap(({ below, above }) => [below.value, below.size, above.value, above.size])
      for (const x of outputs) assert.equal(x.shape, call.value.shape)
      const holds = (out: readonly ArrayLike<number>[], where: string, isKnown: boolean) =>
        claims.forEach(({ label, isLine }, i) => {
          const ends = out.slice(1 + 4 * i, 5 + 4 * i)
          if (isKnown && isLine)
            assert.not.ok(
              ends.some((end) => Array.from(end).some(Number.isNaN)),
              `${label} ${where}: a line over a finite box is no number`,
            )
          assertBetween(ends, out[0], slack(), `${label} ${where}`)
        })
      await using(backend, [call.value, ...outputs], inputs, async (run) => {
        const least = leastSlope(call) ?? 0
        const samples = fc.tuple(boxed(e, set), numbers(S.size(alpha.shape), least, 1), fc.nat())
        await check(runs * 3, samples, async ([b, a, choice]) =>
          holds(await run([...b.lower, ...b.upper, ...b.points[choice % b.points.length], a]), `[${set}]`, true),
        )
        // Ends that are not known: the operand may be anything there.
        await check(runs * 3, fc.tuple(samples, unknown(set)), async ([[b, a, choice], { which, element, ends }]) => {
          const j = element % b.lower[which].length
          const [low, high] = [ends[0] ?? b.lower[which][j], ends[1] ?? b.upper[which][j]]
          const inside = WILD.filter((w) => !(w < low || w > high || (e.inputs[which].low > 0 && w <= 0)))
          const wild = inside[choice % inside.length]
          if (wild === undefined) return
          const replaced = (v: readonly Float64Array[], x: number) =>
            v.map((u, k) => (k === which ? u.map((y, i) => (i === j ? x : y)) : u))
          const p = replaced(b.points[0], wild)
          const out = await run([...replaced(b.lower, low), ...replaced(b.upper, high), ...p, a])
          holds(out, `[${set}], operand ${which} element ${j} in [${low}, ${high}] is ${wild}`, false)
        })
      })
    }
  })

  law('<adjoint(a), x> + <a, offset> = <a, map(x)>, for rows a with any leading axes', async (entry, e) => {
    for (const set of boxings(e)) {
      const { call, inputs, alpha } = callOf(entry, e, set)
      // Which slopes lines have is all the same here.
      const found = sandwiches(call, alpha).filter(([label]) => ['affine', 'centred', 'adaptive'].includes(label))
      for (const lead of [[3], [2, 2]]) {
        const a = input('a', [...lead, ...call.value.shape])
        const rows = S.size(lead)
        const flat = (x: Tensor): Tensor => reshape(x, [rows, S.size(x.shape) / rows])
        const dot = (p: Tensor, q: Tensor): Tensor => sum(mul(flat(p), reshape(q, [S.size(q.shape)])), 1)
        const sides = found.flatMap(([label, { below, above }]) =>
          (below === above ? [below] : [below, above]).flatMap(({ adjoint, offset, value }) => {
            const carried = adjoint(a)
            if (carried.includes(undefined)) {
              // A product may have rows for the operand only that can be boxed.
              assert.not.ok(includes(e.walks, set), `${label}: no rows for a boxed operand`)
              return []
            }
            const terms = set.map((k, i): readonly [Tensor, Tensor] => {
              assert.equal((carried[i] as Tensor).shape, [...lead, ...call.points[k].shape], `${label}, operand ${k}`)
              return [carried[i] as Tensor, call.points[k]]
            })
            const left = [...terms, [a, offset] as const]
            const all = (f: (x: Tensor) => Tensor) => left.map(([p, q]) => dot(f(p), f(q))).reduce((s, t) => add(s, t))
            return [all((x) => x), all(abs), dot(a, value)]
          }),
        )
        if (sides.length === 0) continue
        await using(backend, sides, [...inputs, a], (run) =>
          check(
            runs,
            fc.tuple(boxed(e, set), numbers(S.size(alpha.shape), 0, 1), numbers(S.size(a.shape), -2, 2)),
            async ([b, s, coefficients]) => {
              const out = await run([...b.lower, ...b.upper, ...b.points[0], s, coefficients])
              for (let i = 0; i < out.length; i += 3)
                for (let r = 0; r < rows; r++)
                  assert.ok(
                    Math.abs(out[i][r] - out[i + 2][r]) <= slack() * (1 + out[i + 1][r]),
                    `[${set}] lead [${lead}], row ${r}: ${out[i][r]} is not ${out[i + 2][r]}`,
                  )
            },
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
      const { message } = raises(() =>
        linearBounds({ slope: 'same', hidden: 'own' })(node(op, xs, examples[0].attrs), boxes).output(),
      )
      assert.ok(message.includes(op.name) && message.includes(relax.unsupported), message)
    }
    assert.ok(missing > 0)
  })

  test(`${name}: no buffer is left`, () => {
    assert.is(backend.stats().live, live)
    backend.dispose()
  })
}
