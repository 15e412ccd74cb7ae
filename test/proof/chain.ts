import * as assert from 'uvu/assert'
import type { Backend } from '../../src/compile/backend.ts'
import { decodeOnnx, parameterConstants } from '../../src/format/onnx/index.ts'
import { decodeVnnlib } from '../../src/format/vnnlib.ts'
import { query } from '../../src/proof/proof.ts'
import { verifyProperty } from '../../src/verify/branch-and-bound.ts'
import type { SearchNode } from '../../src/verify/trace.ts'
import { right } from '../shared.ts'
import { oneInput, proofOf, property, refused, replayed } from './one-input.ts'

const leavesOf = ({ children }: SearchNode): number =>
  children === undefined ? 1 : leavesOf(children[0]) + leavesOf(children[1])

/**
 * A random network whose values are reshaped after each ReLU, decided by splits of ReLUs.
 * @returns how many leaves the search and the proof have
 */
export const followed = async (backend: Backend, seed: number): Promise<readonly [search: number, proof: number]> => {
  const { bytes, most } = oneInput(seed, [5, 5, 4], true)
  const model = right(decodeOnnx(bytes, 'network.onnx'))
  const text = property(`(>= Y_0 ${(Number(most.v.n) / Number(most.v.d) + 0.01).toFixed(6)})`)
  const { verdict, trees = [] } = await verifyProperty({
    network: model.network(parameterConstants(model)),
    input: model.input.shape,
    outputs: 1,
    property: right(decodeVnnlib(text, 'property.vnnlib')),
    rounding: { outward: 'real' },
    split: 'relus',
    trace: true,
  })(backend)
  assert.is(verdict, 'unsat')
  const q = query(bytes, text, 'real')
  const lines = await proofOf(q, { leaves: 500, trees })
  const outcome = await replayed(q, lines)
  if (refused(outcome)) throw new Error(outcome)
  return [trees.reduce((n, { root }) => n + leavesOf(root), 0), outcome.leaves]
}

/**
 * A random network, claims about its exact optima, from the search to the check: what is true by a hair and was decided has a proof that checks; what is false by less is
 * neither decided nor has a tree that checks. @returns whether the true claim was decided
 */
export const wholeChain = async (backend: Backend, seed: number): Promise<boolean> => {
  const { bytes, most } = oneInput(seed, [[6], [5, 4], [4, 4, 3]][seed % 3])
  const model = right(decodeOnnx(bytes, 'network.onnx'))
  const subject = { network: model.network(parameterConstants(model)), input: model.input.shape, outputs: 1 }
  const searched = async (text: string) =>
    verifyProperty({
      ...subject,
      property: right(decodeVnnlib(text, 'property.vnnlib')),
      rounding: { outward: 'real' },
      trace: true,
      timeout: 20,
    })(backend)
  /** The exact optimum to eight decimals, rounded down, plus so many units of the last. */
  const near = (units: bigint): string => {
    const scaled = (most.v.n * 10n ** 8n) / most.v.d - (most.v.n < 0n ? 1n : 0n) + units
    const digits = `${scaled < 0n ? -scaled : scaled}`.padStart(9, '0')
    return `${scaled < 0n ? '-' : ''}${digits.slice(0, -8)}.${digits.slice(-8)}`
  }
  const [truth, lie] = [property(`(>= Y_0 ${near(20_000n)})`), property(`(>= Y_0 ${near(0n)})`)]
  const [found, wrong] = [await searched(truth), await searched(lie)]
  assert.is.not(wrong.verdict, 'unsat', `seed ${seed}: a false claim was decided`)
  const [q, p] = [truth, lie].map((text) => query(bytes, text, 'real'))
  const lines = await proofOf(q, { leaves: 5000, trees: found.trees })
  const outcome = await replayed(q, lines)
  if (found.verdict === 'unsat') assert.not(refused(outcome), `seed ${seed}: ${JSON.stringify(outcome)}`)
  // The tree of the true claim, the best that a search for the false one left behind, and one looked for without it.
  for (const tree of [lines, await proofOf(p, { leaves: 40, trees: wrong.trees }), await proofOf(p, { leaves: 40 })])
    assert.ok(refused(await replayed(p, tree)), `seed ${seed}: a false claim has a proof`)
  return found.verdict === 'unsat'
}
