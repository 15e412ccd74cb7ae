import fc from 'fast-check'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { compile } from '../../src/compile/run.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'

/** Runs are the same every time; MIXTRAIN_SEED varies them. */
export const SEED = Number(process.env.MIXTRAIN_SEED ?? 20181102)

/** Checks an async property on `runs` examples drawn from SEED; a failure says what was found, shortly. */
export const check = async <A>(
  runs: number,
  arbitrary: fc.Arbitrary<A>,
  body: (a: A) => Promise<void> | void,
): Promise<void> => {
  const result = await fc.check(
    fc.asyncProperty(arbitrary, async (a) => body(a)),
    { seed: SEED, numRuns: runs },
  )
  if (!result.failed) return
  const reason = result.errorInstance instanceof Error ? result.errorInstance.message : String(result.errorInstance)
  const example = fc.stringify(result.counterexample)
  throw new Error(`${reason}\n    seed ${SEED}, after ${result.numRuns} runs, on ${example.slice(0, 1000)}`, {
    cause: result.errorInstance,
  })
}

/** Grid points of one operand: distinct elements of one operand differ by at least a step, of two operands by a quarter. */
const GRID = 4096
const OFFSETS = [0.5, 0.75, 0.25]

/** What a generator needs to know of an operand. */
export interface Spec {
  readonly shape: S.Shape
  readonly low: number
  readonly high: number
  /** Whole numbers low..high-1, with repetitions; not differentiated. */
  readonly integer?: boolean
  /** Whether the operand may be an interval. */
  readonly box: boolean
}

/** Elements of operand number `k`: off the grid's points, so never at a kink at 0 or at a tie with another operand. */
export const values = (spec: Spec, k: number): fc.Arbitrary<Float64Array> => {
  const n = S.size(spec.shape)
  const { low, high } = spec
  return spec.integer
    ? fc.array(fc.integer({ min: low, max: high - 1 }), { minLength: n, maxLength: n }).map((a) => Float64Array.from(a))
    : fc
        .uniqueArray(fc.integer({ min: 0, max: GRID - 1 }), { minLength: n, maxLength: n })
        .map((a) => Float64Array.from(a, (i) => low + ((high - low) * (i + OFFSETS[k % 3])) / GRID))
}

/** n numbers in [low, high] on a grid of thousandths. */
export const numbers = (n: number, low: number, high: number): fc.Arbitrary<Float64Array> =>
  fc
    .array(fc.integer({ min: 0, max: 1000 }), { minLength: n, maxLength: n })
    .map((a) => Float64Array.from(a, (i) => low + ((high - low) * i) / 1000))

/** A compiled function of arrays that keeps its buffers between calls. */
export interface Prepared {
  readonly run: (args: readonly Data[]) => Promise<readonly Data[]>
  readonly close: () => void
}

export const prepare = async (
  backend: Backend,
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
): Promise<Prepared> => {
  const f = await compile(backend)(outputs, inputs)
  const args = [...inputs, ...outputs].map((x) => backend.alloc(S.size(x.shape)))
  return {
    run: async (data) => {
      data.forEach((d, i) => backend.write(args[i], d))
      f.run(args)
      const results: Data[] = []
      for (const b of args.slice(inputs.length)) results.push(await backend.read(b))
      return results
    },
    close: () => {
      for (const b of args) backend.free(b)
      f.release()
    },
  }
}

/** Compiles, uses, and frees whatever happens. */
export const using = async (
  backend: Backend,
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  use: (run: Prepared['run']) => Promise<void>,
): Promise<void> => {
  const p = await prepare(backend, outputs, inputs)
  try {
    await use(p.run)
  } finally {
    p.close()
  }
}

/**
 * Compares gradients with central differences: `value` computes a scalar of the arguments, `gradient` its derivatives with respect to
 * the arguments `wrt`, on f64.
 */
export const differences = async (
  value: Prepared['run'],
  gradient: Prepared['run'],
  args: readonly Float64Array[],
  wrt: readonly number[],
  step = 1e-5,
  tolerance = 2e-6,
  only: (argument: number, element: number) => boolean = () => true,
): Promise<void> => {
  const g = await gradient(args)
  for (const [m, k] of wrt.entries())
    for (let j = 0; j < args[k].length; j++) {
      if (!only(k, j)) continue
      const central = async (h: number) => {
        const [up, down] = [h, -h].map((d) => {
          const moved = args.map((a) => a)
          moved[k] = Float64Array.from(args[k])
          moved[k][j] += d
          return moved
        })
        return ((await value(up))[0][0] - (await value(down))[0][0]) / (2 * h)
      }
      const agrees = (numeric: number) => Math.abs(numeric - g[m][j]) <= tolerance * (1 + Math.abs(numeric))
      const numeric = await central(step)
      // A kink or a jump may lie within the step: then it does not lie within a shorter one.
      if (agrees(numeric) || agrees(await central(step / 16))) continue
      throw new Error(`argument ${k} element ${j}: differences give ${numeric}, the vjp ${g[m][j]}`)
    }
}
