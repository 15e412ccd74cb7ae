import type { Data } from '../compile/backend.ts'
import { order } from '../compile/tape.ts'
import { raise, usage } from '../core/error.ts'
import type { Tensor } from '../core/tensor.ts'
import { shareOf } from '../loss/loss.ts'
import { type BatchChoice, type Chosen, choiceOf, type Host } from '../ops/index.ts'

// Images that a loss chooses of a whole batch, where the batch is cut into micro-batches: which choices a graph has, and what each micro-batch gets of them.

/** Images and labels of one micro-batch: `[batch / M, ...shape]`, `[batch / M]`. */
export interface Images {
  readonly inputs: Data
  readonly labels: Data
}

/** The choices that graphs have images of, one for each name. @throws usage where two of one name differ */
export const choicesIn = (outputs: readonly Tensor[]): readonly BatchChoice[] => {
  const found = new Map<string, BatchChoice>()
  for (const x of order(outputs)) {
    const choice = choiceOf(x)
    if (choice === undefined) continue
    const before = found.get(choice.name)
    if (before !== undefined && before.k !== choice.k)
      raise(usage(`two choices are called ${choice.name}, of ${before.k} and of ${choice.k} images: give them names`))
    found.set(choice.name, before ?? choice)
  }
  return [...found.values()]
}

/** Which of k chosen images fall to a micro-batch: `[from, to)`. */
const slotsOf = (
  k: number,
  { count }: Pick<Host, 'count'>,
  { index, of }: NonNullable<Host['micro']>,
): readonly [number, number] => {
  const shares = Array.from({ length: index + 1 }, (_, i) => shareOf(k, { count, micro: { index: i, of } }, of))
  const to = shares.reduce((a, b) => a + b, 0)
  return [to - shares[index], to]
}

/** Images by their numbers in the batch, one after the other, out of micro-batches that are asked for as they are needed. */
const collected = (
  images: readonly number[],
  factors: readonly number[] | undefined,
  batch: (micro: number) => Images,
  perMicro: number,
): Chosen => {
  const of = images.map((image) => ({ ...batch(Math.floor(image / perMicro)), at: image % perMicro }))
  const size = of.length === 0 ? 0 : of[0].inputs.length / perMicro
  const inputs = new Float32Array(of.length * size)
  of.forEach((m, i) => {
    for (let j = 0; j < size; j++) inputs[i * size + j] = m.inputs[m.at * size + j]
  })
  return {
    inputs,
    labels: Float32Array.from(of, (m) => m.labels[m.at]),
    factors: Float32Array.from(images, (_, i) => factors?.[i] ?? 1),
  }
}

/** What choices come to, from the scores of the whole batch in the order of the choices: the images of each micro-batch. */
export const sharedOut = (
  choices: readonly BatchChoice[],
  scores: Float32Array,
  host: Host,
  {
    batch,
    perMicro,
    of,
  }: { readonly batch: (micro: number) => Images; readonly perMicro: number; readonly of: number },
): ((micro: number) => NonNullable<Host['chosen']>) => {
  const n = perMicro * of
  const picked = choices.map((c, i) => c.pick(scores.subarray(i * n, (i + 1) * n), host))
  return (index) =>
    Object.fromEntries(
      choices.map(({ name, k }, i) => {
        const { images, factors } = picked[i]
        const [from, to] = slotsOf(k, host, { index, of })
        return [name, collected(images.slice(from, to), factors?.slice(from, to), batch, perMicro)]
      }),
    )
}
