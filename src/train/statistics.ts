import type { Backend, Buffer, Data } from '../compile/backend.ts'
import type { Compiled } from '../compile/run.ts'

/** Sets buffers of statistics to the mean, over batches in their order, of what `measure` computes of each; sums are doubles. */
export const measured = async (
  backend: Backend,
  measure: Compiled,
  resident: readonly Buffer[],
  input: Buffer,
  statistics: readonly Buffer[],
  batches: Iterable<Data>,
): Promise<void> => {
  const sums = statistics.map((b) => new Float64Array(b.length))
  let count = 0
  for (const x of batches) {
    backend.write(input, x)
    measure.run([...resident, input, ...statistics])
    for (const [i, b] of statistics.entries()) {
      const values = await backend.read(b)
      values.forEach((v, j) => {
        sums[i][j] += v
      })
    }
    count++
  }
  statistics.forEach((b, i) => {
    backend.write(
      b,
      Float32Array.from(sums[i], (v) => v / count),
    )
  })
}
