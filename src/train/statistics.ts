import type { Data } from '../compile/backend.ts'
import { programOf } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import * as S from '../core/shape.ts'
import type { Named } from '../nn/layers.ts'
import { mapNamed } from './optimizer.ts'
import type { lossGraph, residentIn } from './resident.ts'

/** Batches of images, `[batch, ...shape]` each, that are made as they are asked for. */
export interface Batches {
  readonly count: number
  readonly at: (i: number) => Data
}

/** Sums, as doubles, of the statistics of the batches `[from, to)` in their order, by the parameters that an evaluation takes. */
export type Summing = (batches: Batches, range: readonly [from: number, to: number]) => Promise<Named<Float64Array>>

/** `Summing`, its program compiled when it is first needed. */
export const summingIn = (
  region: Region,
  { parameters, inputs, statistics }: Pick<ReturnType<typeof lossGraph>, 'parameters' | 'inputs' | 'statistics'>,
  { evaluated }: Pick<ReturnType<typeof residentIn>, 'evaluated'>,
): Summing => {
  const measuring = programOf({ parameters, inputs }, { statistics })
  let running: ReturnType<typeof measuring.on> | undefined
  return async ({ at }, [from, to]) => {
    running ??= measuring.on(region)
    const measure = await running
    const sums = mapNamed(statistics, ({ shape }) => new Float64Array(S.size(shape)))
    for (let k = from; k < to; k++) {
      const found = await measure({ parameters: evaluated(), inputs: at(k) })
      for (const [name, sum] of Object.entries(sums))
        found.statistics[name].forEach((v, j) => {
          sum[j] += v
        })
    }
    return sums
  }
}
