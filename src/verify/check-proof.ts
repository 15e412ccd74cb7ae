import { type Checked, check } from '../proof/file.ts'

/** What a proof is about: the bytes of the files. */
export interface ProofFiles {
  /** Of the ONNX file. */
  readonly network: Uint8Array
  /** Of the VNN-LIB file, where the proof is about a property. */
  readonly property?: Uint8Array
}

/**
 * Checks a proof (docs/proof.md) of a property or of an image against the files that it is about, in exact arithmetic and without a line of the code that wrote it. `unsat`: no
 * input of the claim's region violates it; `sat`: the proof's point does.
 * @throws Refused with the reason: another network or property, a damaged file, a network that is not read, a step that does not hold.
 * @example
 *   const { verdict, leaves, header } = await checkProof(proof, { network: onnxBytes })
 */
export const checkProof = (proof: Uint8Array, files: ProofFiles): Promise<Checked> => check(proof, files)
