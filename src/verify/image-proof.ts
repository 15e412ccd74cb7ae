import { Refused } from '../proof/exact.ts'
import { type Header, queryOf, readNetwork } from '../proof/file.ts'
import { proofFile, prove } from './prove.ts'
import type { SearchTree } from './trace.ts'

/** An image that keeps its label, as a proof claims it: pixels that float32 holds, the radius and the range as they are written. */
export interface ImageClaim {
  readonly pixels: Float32Array
  readonly label: number
  /** A decimal or a quotient, such as 8/255. */
  readonly epsilon: string
  readonly range: readonly [string, string]
}

/** Leaves of the proof of one image at most. */
const LEAVES = 100_000

const hexadecimal = (pixels: Float32Array): string => {
  const view = new DataView(new ArrayBuffer(4 * pixels.length))
  pixels.forEach((p, i) => {
    view.setFloat32(4 * i, p, true)
  })
  return Array.from(new Uint8Array(view.buffer), (b) => b.toString(16).padStart(2, '0')).join('')
}

/**
 * Writes proofs (docs/proof.md) that images keep their labels, about one ONNX file: its bytes in, then a claim and what a search found about it, if there was one, to the bytes
 * of a proof. Every leaf is computed exactly before it is written.
 * @throws Refused where the checker does not read the network; from a claim, where no proof of it is found
 * @example
 *   const prove = await imageProver(onnxBytes, 'real')
 *   const written = await prove({ pixels: pixels(test, [0]), label: test.labels[0], epsilon: '0.1', range: ['0', '1'] })
 */
export const imageProver = async (network: Uint8Array, semantics: 'real' | 'deployed') => {
  const file = await readNetwork(network)
  return async (
    { pixels, label, epsilon, range }: ImageClaim,
    trees?: readonly SearchTree[],
    leaves = LEAVES,
  ): Promise<Uint8Array> => {
    const header: Header = {
      format: 'mixtrain-proof',
      version: 2,
      semantics,
      network: file.sha256,
      claim: { kind: 'image', pixels: hexadecimal(pixels), epsilon, range, label },
    }
    return proofFile(header, prove(await queryOf(header, { network: file }), { leaves, trees }))
  }
}

/** What an effect gives, or why it was refused. */
export const orRefusal = async <A>(effect: () => Promise<A>): Promise<A | { readonly refused: string }> => {
  try {
    return await effect()
  } catch (e) {
    if (!(e instanceof Refused)) throw e
    return { refused: e.message }
  }
}
