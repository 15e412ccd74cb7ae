import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Backend, Buffer, Executable } from '../compile/backend.ts'
import type { Plan } from '../compile/plan.ts'
import { deviceError, MixtrainException } from '../core/error.ts'
import * as S from '../core/shape.ts'

/**
 * f64, op by op, no fusion, no tricks: the oracle of every other backend, and the arithmetic that re-checks certificates. A buffer or plan that is
 * not live on it raises a device error.
 *
 * @example
 *   (await evaluate(reference())([constant([0.1], [1])]))[0] // [0.1]
 */
export const reference = (): Backend => {
  const buffers = new Map<number, Float64Array>()
  const plans = new Map<number, Plan>()
  let next = 1
  let bytes = 0
  let peak = 0
  const use = (n: number) => {
    bytes += n
    peak = Math.max(peak, bytes)
  }
  const data = (b: Buffer): Float64Array => {
    const d = buffers.get(b.id)
    if (d === undefined)
      throw new MixtrainException(
        deviceError('reference', `buffer ${b.id} is not live (freed already, or of another backend)`),
      )
    return d
  }
  return {
    name: 'reference',
    dtype: 'f64',
    description: 'f64 in JavaScript, one op at a time',
    threads: 1,
    rounds: true,
    alloc: (length) => {
      const id = next++
      buffers.set(id, new Float64Array(length))
      use(length * 8)
      return { id, length }
    },
    free: (b) => {
      use(-data(b).byteLength)
      buffers.delete(b.id)
    },
    write: (b, values, at = 0) => data(b).set(values, at),
    read: async (b, at = 0, length = b.length - at) => data(b).slice(at, at + length),
    compile: (plan) =>
      TE.fromIO(() => {
        const id = next++
        plans.set(id, plan)
        return { id, bytes: plan.calls.reduce((n, c) => n + S.size(c.outShape) * 8, 0) } satisfies Executable
      }),
    release: (e) => {
      plans.delete(e.id)
    },
    run: (e, args) => {
      const p = plans.get(e.id)
      if (p === undefined) throw new MixtrainException(deviceError('reference', `executable ${e.id} is not live`))
      run(p, args.map(data))
    },
    sync: async () => undefined,
    stats: () => ({ live: buffers.size, bytes, peak }),
    dispose: () => {
      buffers.clear()
      plans.clear()
      bytes = 0
    },
  }
}

const run = (p: Plan, args: readonly Float64Array[]): void => {
  const values = new Array<Float64Array | undefined>(p.values)
  const lastUse = new Map<number, number>()
  p.calls.forEach((c, t) => {
    for (const i of c.inputs) lastUse.set(i, t)
  })
  for (const id of p.outputIds) lastUse.set(id, Number.POSITIVE_INFINITY)
  p.inputs.forEach((_, i) => {
    values[i] = args[i]
  })
  for (const { id, data } of p.constantIds) values[id] = data
  p.calls.forEach((c, t) => {
    const out = new Float64Array(S.size(c.outShape))
    c.kernel(
      out,
      c.inputs.map((i) => values[i] as Float64Array),
      c.shapes,
      c.outShape,
      c.attrs,
    )
    values[c.output] = out
    for (const i of c.inputs) if (lastUse.get(i) === t && i >= p.inputs.length) values[i] = undefined
  })
  p.outputIds.forEach((id, k) => {
    args[p.inputs.length + k].set(values[id] as Float64Array)
  })
}
