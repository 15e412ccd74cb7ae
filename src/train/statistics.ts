import type { Backend, Buffer, Data } from '../compile/backend.ts'
import type { Compiled } from '../compile/run.ts'

/** Batches of images, `[batch, ...shape]` each, that are made as they are asked for. */
export interface Batches {
  readonly count: number
  readonly at: (i: number) => Data
}

/** Sums, as doubles, of what `measure` computes of the batches `[from, to)` in their order, one for each buffer of `statistics`. */
export const summed = async (
  backend: Backend,
  measure: Compiled,
  resident: readonly Buffer[],
  input: Buffer,
  statistics: readonly Buffer[],
  { at }: Batches,
  [from, to]: readonly [number, number],
): Promise<readonly Float64Array[]> => {
  const sums = statistics.map((b) => new Float64Array(b.length))
  for (let k = from; k < to; k++) {
    backend.write(input, at(k))
    measure.run([...resident, input, ...statistics])
    for (const [i, b] of statistics.entries()) {
      const values = await backend.read(b)
      values.forEach((v, j) => {
        sums[i][j] += v
      })
    }
  }
  return sums
}
