// A worker that writes proofs and checks them in exact arithmetic; the checker shares no code with what bounded the image.
import { checkProof, imageProver } from 'mixtrain'
import type { FromProver, ToProver } from './protocol.ts'

/** Boxes that one proof may take. */
const LEAVES = 64

const scope = self as unknown as {
  postMessage: (message: FromProver) => void
  onmessage: ((event: MessageEvent<ToProver>) => void) | null
}

const answer = async (m: ToProver): Promise<FromProver> => {
  try {
    if (m.type === 'prove') {
      const prove = await imageProver(m.network, 'real')
      const { pixels, label, epsilon } = m
      return {
        type: 'proved',
        proof: Uint8Array.from(await prove({ pixels, label, epsilon, range: ['0', '1'] }, undefined, LEAVES)),
      }
    }
    const begun = performance.now()
    const { verdict, leaves, header } = await checkProof(m.proof, { network: m.network })
    const { claim } = header
    const [label, epsilon] = claim.kind === 'image' ? [claim.label, claim.epsilon] : [undefined, undefined]
    return { type: 'checked', verdict, leaves, label, epsilon, seconds: (performance.now() - begun) / 1000 }
  } catch (e) {
    return { type: 'refused', reason: e instanceof Error ? e.message : String(e) }
  }
}

scope.onmessage = async ({ data }) => scope.postMessage(await answer(data))
