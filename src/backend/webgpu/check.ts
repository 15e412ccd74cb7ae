import * as E from 'fp-ts/lib/Either.js'
import type { Backend, Buffer } from '../../compile/backend.ts'
import type { Plan } from '../../compile/plan.ts'
import { show } from '../../core/error.ts'
import { Combine, LoopMode, Micro } from '../../core/lowering.ts'

const SIZE = 24
const N = SIZE * SIZE

/** out = row sums of max(a b - 2, 0), all integers small enough to be exact. */
const known: Plan = {
  inputs: [[N], [N]],
  outputs: [[SIZE]],
  instructions: [
    {
      kind: 'matmul',
      work: N * SIZE,
      a: 0,
      b: 1,
      out: 3,
      m: SIZE,
      k: SIZE,
      n: SIZE,
      transA: false,
      transB: true,
      batch: 1,
      strideA: 0,
      strideB: 0,
      strideOut: 0,
      end: undefined,
    },
    {
      kind: 'loop',
      work: 3 * N,
      mode: LoopMode.inner,
      combine: Combine.sum,
      kept: 1,
      dims: [SIZE, SIZE],
      out: { slot: 2, offset: 0, strides: [1, 0] },
      inputs: [
        { slot: 3, offset: 0, strides: [SIZE, 1] },
        { slot: 4, offset: 0, strides: [0, 0] },
      ],
      registers: 3,
      ops: [
        { micro: Micro.sub, dst: 2, args: [0, 1] },
        { micro: Micro.relu, dst: 2, args: [2] },
      ],
      stored: [],
    },
  ],
  slots: [
    { at: 'input', index: 0, length: N },
    { at: 'input', index: 1, length: N },
    { at: 'output', index: 0, length: SIZE },
    { at: 'arena', offset: 0, length: N },
    { at: 'constant', offset: 0, length: 1 },
  ],
  constants: Float64Array.of(2),
  arena: N,
  calls: [],
  values: 0,
  constantIds: [],
  outputIds: [],
}

/** Whether a backend computes a small known result; if not, what is wrong. (Some adapters accept everything and compute nothing.) */
export const wrongResult = async (backend: Backend): Promise<string | undefined> => {
  const compiled = await backend.compile(known)()
  if (E.isLeft(compiled)) return show(compiled.left)
  const a = Float32Array.from({ length: N }, (_, i) => ((i * 7) % 11) - 5)
  const b = Float32Array.from({ length: N }, (_, i) => ((i * 5) % 13) - 6)
  const buffers: Buffer[] = []
  try {
    for (const n of [N, N, SIZE]) buffers.push(backend.alloc(n))
    backend.write(buffers[0], a)
    backend.write(buffers[1], b)
    backend.run(compiled.right, buffers)
    const got = await backend.read(buffers[2])
    for (let i = 0; i < SIZE; i++) {
      let want = 0
      for (let j = 0; j < SIZE; j++) {
        let s = -2
        for (let k = 0; k < SIZE; k++) s += a[i * SIZE + k] * b[j * SIZE + k]
        want += Math.max(s, 0)
      }
      if (got[i] !== want) return `a small matrix product came back as ${got[i]} instead of ${want}`
    }
    return undefined
  } catch (e) {
    return e instanceof Error ? e.message : String(e)
  } finally {
    for (const x of buffers) backend.free(x)
    backend.release(compiled.right)
  }
}
