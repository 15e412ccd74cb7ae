import * as O from 'fp-ts/lib/Option.js'
import { z } from 'zod'
import { digestOfPieces, sha256 } from '../core/hash.ts'
import { type Data, dataset } from './dataset.ts'

/**
 * Decoded images in one file: magic (16 bytes), digest of all that follows (32), length of the header (uint32, little-endian), header
 * (JSON), then labels and pixels of the training images, labels and pixels of the test images, one byte each.
 */
const MAGIC = new TextEncoder().encode('mixtrain images1')
const DIGEST = 32
const START = MAGIC.length + DIGEST

const count = z.int().nonnegative()
const channels = z.array(z.number())

/** What a cache is about: everything but labels and pixels. */
export interface About {
  /** What the images were decoded from: another source makes a cache stale. */
  readonly source: string
  readonly name: string
  readonly licence?: string | undefined
  /** Channels, height, width. */
  readonly shape: [number, number, number]
  readonly classes: number
  readonly normalization: { readonly mean: number[]; readonly std: number[] }
  readonly variants: { readonly crop: number; readonly mirror: boolean }
  readonly train: number
  readonly test: number
}

/** Caches of older versions say `normalisation`. */
const named = (header: unknown): unknown => {
  if (typeof header !== 'object' || header === null || !('normalisation' in header)) return header
  const { normalisation: normalization, ...rest } = header
  return { ...rest, normalization }
}

const Header: z.ZodType<About> = z.strictObject({
  source: z.string(),
  name: z.string(),
  licence: z.string().optional(),
  shape: z.tuple([count, count, count]),
  classes: z.int().min(1).max(256),
  normalization: z.strictObject({ mean: channels, std: channels }),
  variants: z.strictObject({ crop: count, mirror: z.boolean() }),
  train: count,
  test: count,
})

/** SHA-256 of texts in hexadecimal digits. */
export const fingerprint = (texts: readonly string[]): Promise<string> =>
  sha256(new TextEncoder().encode(JSON.stringify(texts)))

/** The data sets whose labels and pixels lie in the bytes from `at` on: views, not checked. */
const views = ({ source: _, train, test, ...about }: About, bytes: Uint8Array, at: number) => {
  const size = about.shape[0] * about.shape[1] * about.shape[2]
  const part = (from: number, n: number) => ({
    labels: bytes.subarray(from, from + n),
    inputs: bytes.subarray(from + n, from + n * (1 + size)),
  })
  const split = at + train * (1 + size)
  return { about, train: part(at, train), test: part(split, test), length: split + test * (1 + size) }
}

/** Room for a cache: `train` and `test` are views of `bytes`, to be filled. */
export const room = (header: About) => {
  const text = new TextEncoder().encode(JSON.stringify(header))
  const at = START + 4 + text.length
  const bytes = new Uint8Array(views(header, new Uint8Array(), at).length)
  bytes.set(MAGIC)
  new DataView(bytes.buffer).setUint32(START, text.length, true)
  bytes.set(text, START + 4)
  return { bytes, ...views(header, bytes, at) }
}

/** Writes the digest into a cache that has been filled. */
export const seal = async (bytes: Uint8Array): Promise<void> =>
  bytes.set(await digestOfPieces(bytes.subarray(START)), MAGIC.length)

/** The data sets of a filled room. */
export const dataOf = ({ about: { licence, ...about }, train, test }: ReturnType<typeof views>): Data => {
  const rest = licence === undefined ? about : { ...about, licence }
  return { train: dataset({ ...rest, ...train }), test: dataset({ ...rest, ...test }) }
}

/** The images of a cache; none if it is not one, was made from another source, or any bit of it has changed. */
export const openCache = async (bytes: Uint8Array, source: string): Promise<O.Option<Data>> => {
  if (bytes.length < START + 4 || !MAGIC.every((b, i) => bytes[i] === b)) return O.none
  const found = await digestOfPieces(bytes.subarray(START))
  if (!found.every((b, i) => bytes[MAGIC.length + i] === b)) return O.none
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(START, true)
  const at = START + 4 + length
  const header = Header.safeParse(named(JSON.parse(new TextDecoder().decode(bytes.subarray(START + 4, at)))))
  if (!header.success || header.data.source !== source) return O.none
  const parts = views(header.data, bytes, at)
  return parts.length === bytes.length ? O.some(dataOf(parts)) : O.none
}
