import type { Semantics } from './bounds.ts'
import { decimal, ieee, Refused, refuse } from './exact.ts'
import { type Network, networkOf } from './network.ts'
import { type Line, type Outcome, type Query, replay } from './proof.ts'
import { classified, readProperty } from './property.ts'

/** What a proof says about itself in its first line (docs/proof.md). */
export interface Header {
  readonly format: 'mixtrain-proof'
  readonly version: 2
  readonly semantics: Semantics
  /** SHA-256 of the bytes of the ONNX file. */
  readonly network: string
  readonly claim: PropertyClaim | ImageClaim
}
/** The property has no counterexample, or the point is one. */
export interface PropertyClaim {
  readonly kind: 'property'
  /** SHA-256 of the bytes of the VNN-LIB file. */
  readonly property: string
}
/** Every input of the ball is classified as labelled. */
export interface ImageClaim {
  readonly kind: 'image'
  /** float32 numbers, little-endian, in hexadecimal. */
  readonly pixels: string
  /** As it was written, a decimal or a quotient. */
  readonly epsilon: string
  readonly range: readonly [string, string]
  readonly label: number
}

/** Files are told apart by their first bytes: gzip or not. */
const unpacked = async function* (bytes: Uint8Array, most: number): AsyncGenerator<Uint8Array> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) {
    yield bytes
    return
  }
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream('gzip'))
  let total = 0
  try {
    for await (const part of stream as unknown as AsyncIterable<Uint8Array>) {
      total += part.length
      if (total > most) refuse(`a file of more than ${most} bytes when unpacked`)
      yield part
    }
  } catch (e) {
    throw e instanceof Refused ? e : new Refused('a gzip file that is damaged')
  }
}
/** The whole content of a file, unpacked. */
const whole = async (bytes: Uint8Array, most = 2 ** 30): Promise<Uint8Array> => {
  const parts: Uint8Array[] = []
  for await (const part of unpacked(bytes, most)) parts.push(part)
  return parts.length === 1
    ? parts[0]
    : new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer())
}

/** Longest line of a proof. */
const LONGEST = 2 ** 24

/** Nothing that a proof says is deeper. Engines differ in how deep they read. */
const DEEPEST = 64

/** Whether a text has more open brackets somewhere, those in its strings counted too. */
const isDeep = (line: string): boolean => {
  let depth = 0
  for (let i = 0; i < line.length; i++) {
    // [ is 5b, { is 7b, ] is 5d, } is 7d
    const code = line.charCodeAt(i) & ~0x20
    if (code === 0x5b && ++depth > DEEPEST) return true
    if (code === 0x5d) depth--
  }
  return false
}

/** A line's content, and the one text of that content: readers differ in which of two members of one name they keep, and in how they take numbers. */
const read = (line: string, count: number): { readonly value: unknown; readonly again: string } => {
  if (isDeep(line)) refuse(`line ${count} of the proof is nested too deeply`)
  try {
    const value: unknown = JSON.parse(line)
    return { value, again: JSON.stringify(value) }
  } catch {
    return refuse(`line ${count} of the proof is no JSON`)
  }
}
/** A few characters of a text from where it differs from another. */
const around = (text: string, other: string): string => {
  let from = 0
  while (from < text.length && text[from] === other[from]) from++
  return text.slice(Math.max(0, from - 20), from + 20)
}

/** The lines of a proof, each JSON, one after the other: a proof may be larger than memory. */
async function* linesOf(bytes: Uint8Array): AsyncGenerator<unknown> {
  // A byte order mark is a difference that a lenient decoder would hide.
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  const decoded = (part: Uint8Array) => {
    try {
      return decoder.decode(part, { stream: true })
    } catch {
      return refuse('the proof is no text')
    }
  }
  let [rest, count] = ['', 0]
  const parsed = (line: string): unknown => {
    count++
    if (line.length > LONGEST) refuse(`line ${count} of the proof has more than ${LONGEST} characters`)
    const { value, again } = read(line, count)
    return again === line
      ? value
      : refuse(
          `line ${count} of the proof says "${around(line, again)}" where its content is written "${around(again, line)}"`,
        )
  }
  for await (const part of unpacked(bytes, 2 ** 36)) {
    const lines = (rest + decoded(part)).split('\n')
    rest = lines.pop() as string
    for (const line of lines) yield parsed(line)
    if (rest.length > LONGEST) refuse(`line ${count + 1} of the proof has more than ${LONGEST} characters`)
  }
  if (rest !== '') refuse('the proof is truncated: its last line does not end')
}

const sha256 = async (bytes: Uint8Array): Promise<string> => {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', Uint8Array.from(bytes)))
  return Array.from(digest, (b) => b.toString(16).padStart(2, '0')).join('')
}
const bytesOf = (hexadecimal: string): Uint8Array =>
  /^(?:[0-9a-f]{8})*$/.test(hexadecimal)
    ? Uint8Array.from({ length: hexadecimal.length / 2 }, (_, i) =>
        Number.parseInt(hexadecimal.slice(2 * i, 2 * i + 2), 16),
      )
    : refuse('the pixels of the proof are no float32 numbers in hexadecimal')

const isRecord = (x: unknown): x is Readonly<Record<string, unknown>> =>
  typeof x === 'object' && x !== null && !Array.isArray(x)

/** Members in the order in which they are written; what is not among them would be said and not checked. */
const MEMBERS = {
  header: ['format', 'version', 'semantics', 'network', 'claim'],
  property: ['kind', 'property'],
  image: ['kind', 'pixels', 'epsilon', 'range', 'label'],
} as const
const expectMembers = (x: Readonly<Record<string, unknown>>, kind: keyof typeof MEMBERS): void => {
  const expected = MEMBERS[kind].join(', ')
  const found = Object.keys(x).join(', ')
  if (found !== expected) refuse(`the header has the members ${found.slice(0, 200)} where ${expected} are expected`)
}

/** The header, member by member: a proof of unknown origin may hold anything. */
const headerOf = (x: unknown): Header => {
  if (!isRecord(x) || x.format !== 'mixtrain-proof') return refuse('this is no proof of mixtrain')
  if (x.version !== 2) return refuse('another version of the format than 2')
  const { semantics, network, claim } = x
  if (semantics !== 'real' && semantics !== 'deployed') return refuse('the semantics is neither real nor deployed')
  if (typeof network !== 'string' || !isRecord(claim)) return refuse('the header is not complete')
  expectMembers(x, 'header')
  if (claim.kind === 'property' || claim.kind === 'image') expectMembers(claim, claim.kind)
  if (claim.kind === 'property' && typeof claim.property === 'string') return x as unknown as Header
  const { pixels, epsilon, range, label } = claim
  const isRange = Array.isArray(range) && range.length === 2 && range.every((r) => typeof r === 'string')
  if (
    claim.kind === 'image' &&
    typeof pixels === 'string' &&
    typeof epsilon === 'string' &&
    isRange &&
    Number.isInteger(label)
  )
    return x as unknown as Header
  return refuse('the header is not complete')
}

/** What the header of a proof claims, about the files. @throws Refused where the files are others, or out of what is checked. */
export const queryOf = async ({ semantics, network, claim }: Header, files: Files): Promise<Query> => {
  const file = files.network
  const hash = file instanceof Uint8Array ? await sha256(file) : file.sha256
  if (hash !== network) refuse('the proof is about another network')
  const net = file instanceof Uint8Array ? networkOf(await whole(file)) : file.network
  const [inputs, outputs] = [net.nodes[0].size, net.nodes[net.output].size]
  if (claim.kind === 'image') {
    const image = ieee(bytesOf(claim.pixels), 4)
    if (image.n.length !== inputs) refuse(`the image has ${image.n.length} numbers, the network ${inputs} inputs`)
    if (claim.label < 0 || claim.label >= outputs) refuse(`the network has no class ${claim.label}`)
    const [low, high] = claim.range.map(decimal)
    return {
      network: net,
      semantics,
      groups: [classified(image, decimal(claim.epsilon), [low, high], claim.label, outputs)],
    }
  }
  if (files.property === undefined) return refuse('the proof is about a property, which is not given')
  if ((await sha256(files.property)) !== claim.property) refuse('the proof is about another property')
  const property = await whole(files.property)
  return { network: net, semantics, groups: readProperty(new TextDecoder().decode(property), inputs, outputs) }
}

/** A network file that was read, for many proofs about it. */
export interface NetworkFile {
  readonly sha256: string
  readonly network: Network
}

/** @throws Refused for what the checker does not read */
export const readNetwork = async (bytes: Uint8Array): Promise<NetworkFile> => ({
  sha256: await sha256(bytes),
  network: networkOf(await whole(bytes)),
})

export interface Files {
  /** The bytes of the ONNX file, or what `readNetwork` made of them. */
  readonly network: Uint8Array | NetworkFile
  readonly property?: Uint8Array
}

/** What was checked, and how. */
export interface Checked extends Outcome {
  readonly header: Header
}

/**
 * Checks a proof against the files that it is about. Exact: no claim rests on floating point. @throws Refused with the reason.
 *
 * @example await check(bytes, { network, property })    // { verdict: 'unsat', leaves: 512, header: { semantics: 'real', ... } }
 */
export const check = async (proof: Uint8Array, files: Files): Promise<Checked> => {
  const lines = linesOf(proof)
  const first = await lines.next()
  if (first.done === true) return refuse('the proof is empty')
  const header = headerOf(first.value)
  const outcome = await replay(await queryOf(header, files), lines as AsyncIterator<Line>)
  return { ...outcome, header }
}
