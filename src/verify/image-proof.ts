import { hexadecimal } from '../core/hash.ts'
import { Refused, refuse } from '../proof/exact.ts'
import { type Header, queryOf, readNetwork } from '../proof/file.ts'
import type { Line } from '../proof/proof.ts'
import { type Pack, proofFile, prove } from './prove.ts'
import type { SearchNode, SearchTree } from './trace.ts'

/** An image that keeps its label, as a proof claims it: pixels that float32 holds, the radius and the range as they are written. */
export interface ImageClaim {
  readonly pixels: Float32Array
  readonly label: number
  /** A decimal or a quotient, such as 8/255. */
  readonly epsilon: string
  readonly range: readonly [string, string]
}

/** Leaves of the proof of one image at most, where bounds alone verified it, and where branch and bound did: some, and some for each leaf of its search. */
const LEAVES = { bounds: 1000, search: [64, 4] } as const
const leavesOf = (node: SearchNode): number =>
  node.children === undefined ? 1 : node.children.reduce<number>((n, child) => n + leavesOf(child), 0)
const mostLeaves = (trees: readonly SearchTree[] | undefined): number => {
  const [some, each] = LEAVES.search
  return trees === undefined ? LEAVES.bounds : trees.reduce<number>((n, { root }) => n + each * leavesOf(root), some)
}

/** float32 numbers, little-endian. */
const bytesOf = (pixels: Float32Array): Uint8Array => {
  const view = new DataView(new ArrayBuffer(4 * pixels.length))
  pixels.forEach((p, i) => {
    view.setFloat32(4 * i, p, true)
  })
  return new Uint8Array(view.buffer)
}

/** What an evaluation found about an image. */
export interface ImageFindings {
  /** Lower bounds of its margins, rounded outward, by a method that the checker follows, too. */
  readonly bounds?: { readonly method: Follow; readonly margins: Float64Array } | undefined
  /** What branch and bound did, where it was needed. */
  readonly trees?: readonly SearchTree[] | undefined
}

/** Methods whose walks the checker makes again: the lines of a tree that is one leaf. */
const FOLLOWED = {
  symbolic: ['symbolic', 'same'],
  crown: ['crown', 'adaptive'],
} as const
export type Follow = keyof typeof FOLLOWED
export const isFollowed = (method: string): method is Follow => Object.hasOwn(FOLLOWED, method)

/** The least margin of an image, as a share of its largest, from which on bounds by the same walks need no other check: they differ by roundings alone. */
const CLEAR = 1 / 64

async function* leafOf(method: Follow, cases: number): AsyncGenerator<Line> {
  const [bounds, slope] = FOLLOWED[method]
  yield [bounds]
  yield ['leaf', ...Array.from({ length: cases }, () => ({ slope }))]
}

/**
 * Writes proofs (docs/proof.md) that images keep their labels, about one ONNX file: its bytes in, then a claim and what was found about it, to the bytes of a proof.
 * Where margins are clear, the proof has the walks made again that found them, and nothing is computed here; else every leaf is before it is written.
 * @throws Refused where the checker does not read the network; from a claim, where no proof of it is found
 * @example
 *   const prove = await imageProver(onnxBytes, 'real')
 *   const written = await prove({ pixels: pixels(test, [0]), label: test.labels[0], epsilon: '0.1', range: ['0', '1'] })
 */
export const imageProver = async (network: Uint8Array, semantics: 'real' | 'deployed', pack?: Pack) => {
  const file = await readNetwork(network)
  if (semantics === 'deployed' && file.network.realOnly !== undefined)
    refuse(`float32 executions are not covered: ${file.network.realOnly}`)
  return async (
    { pixels, label, epsilon, range }: ImageClaim,
    { bounds, trees }: ImageFindings = {},
    leaves = mostLeaves(trees),
  ): Promise<Uint8Array> => {
    const header: Header = {
      format: 'mixtrain-proof',
      version: 2,
      semantics,
      network: file.sha256,
      claim: { kind: 'image', pixels: hexadecimal(bytesOf(pixels)), epsilon, range, label },
    }
    const isClear = bounds !== undefined && Math.min(...bounds.margins) > CLEAR * Math.max(0, ...bounds.margins)
    return proofFile(
      header,
      isClear
        ? leafOf(bounds.method, bounds.margins.length)
        : prove(await queryOf(header, { network: file }), { leaves, trees }),
      pack,
    )
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
