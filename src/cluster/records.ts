import * as E from 'fp-ts/lib/Either.js'
import { z } from 'zod'
import { fileError, type MixtrainError } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import { problemOf } from '../core/problem.ts'
import { gradients } from '../robust/search.ts'

/**
 * The file of a shard of an evaluation: a line with its manifest, then a line for each image, as it was decided. Lines are JSON. Each record carries a seal, the
 * beginning of the SHA-256 of the seal before it (the SHA-256 of the manifest for the first) and of its own text without the seal: a line that was edited, taken
 * away or moved is seen, and a last line that was not finished too. (Whoever edits and seals anew is found out by proving images again.)
 */

const hash = z.string().regex(/^[0-9a-f]{64}$/, 'expected a SHA-256 in hexadecimal')
const natural = z.int().min(0)

export const Manifest = z.strictObject({
  format: z.literal('mixtrain-shard-1'),
  /** Version of this package, and hash of its code. */
  version: z.string(),
  code: hash,
  /** Where they were is no part of what they are: only the hashes have to agree. */
  model: z.strictObject({ file: z.string(), sha256: hash }),
  /** `hashOf` the images that all shards share, and how many these are. */
  data: z.strictObject({ source: z.string(), name: z.string(), sha256: hash, count: z.int().min(1) }),
  /** This shard has the images i with i mod `of` = index - 1. */
  shard: z.strictObject({ index: z.int().min(1), of: z.int().min(1) }),
  /** Everything else that decides a verdict. */
  settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
})
export type Manifest = z.infer<typeof Manifest>

const bit = z.union([z.literal(0), z.literal(1)])
export const Record = z.strictObject({
  image: natural,
  label: natural,
  correct: bit,
  robust: bit.nullable(),
  verified: bit,
  bounded: bit,
  margin: z.number().nullable(),
  strongest: z.string().nullable(),
  gradient: z.enum(gradients).nullable(),
  decided: z.enum(['unsat', 'sat', 'unknown', 'timeout']).nullable(),
})
/** What `verifyEach` says of an image, field by field. */
export type Record = z.infer<typeof Record>

/** The shard that has an image. */
export const shardOf = (image: number, of: number): number => (image % of) + 1

/** The images of a shard, ascending. */
export const imagesOfShard = ({ data, shard }: Pick<Manifest, 'data' | 'shard'>): readonly number[] =>
  Array.from({ length: Math.ceil((data.count - shard.index + 1) / shard.of) }, (_, i) => shard.index - 1 + i * shard.of)

/** `shard-03-of-64.jsonl` */
export const fileNameOf = ({ index, of }: Manifest['shard']): string =>
  `shard-${String(index).padStart(String(of).length, '0')}-of-${of}.jsonl`
export const SHARD_FILE = /^shard-(\d{1,6})-of-(\d{1,6})\.jsonl$/

const SEAL = 32

const sealOf = async (before: string, text: string): Promise<string> =>
  (await sha256(new TextEncoder().encode(`${before}\n${text}`))).slice(0, SEAL)

export interface Lines {
  readonly text: string
  /** Of the last line. */
  readonly seal: string
}

export const encodeManifest = async (manifest: Manifest): Promise<Lines> => {
  const text = JSON.stringify(manifest)
  return { text: `${text}\n`, seal: await sha256(new TextEncoder().encode(text)) }
}

/** Lines that follow one with a seal. */
export const encodeRecords = async (records: readonly Record[], after: string): Promise<Lines> => {
  let [text, seal] = ['', after]
  for (const record of records) {
    const line = JSON.stringify(record)
    seal = await sealOf(seal, line)
    text += `${line.slice(0, -1)},"seal":"${seal}"}\n`
  }
  return { text, seal }
}

/** A shard as far as it was written. */
export interface Shard {
  readonly path: string
  readonly manifest: Manifest
  readonly records: readonly Record[]
  readonly seal: string
  /** Bytes of the lines that are whole. */
  readonly length: number
  /** Whether something follows them: a last line that was not finished. */
  readonly torn: boolean
}

const SEALED = new RegExp(`^(\\{.*),"seal":"([0-9a-f]{${SEAL}})"\\}$`)

const parsed = <A>(schema: z.ZodType<A>, text: string): E.Either<string, A> => {
  try {
    const json: unknown = JSON.parse(text)
    const result = schema.safeParse(json)
    if (result.success) return E.right(result.data)
    const { place, message } = problemOf(result.error, json)
    return E.left(place === undefined ? message : `${place}: ${message}`)
  } catch {
    return E.left('expected JSON')
  }
}

/** Reads a shard. Left: a line that is not as it was written, by its number. */
export const decodeShard = async (bytes: Uint8Array, path: string): Promise<E.Either<MixtrainError, Shard>> => {
  const refuse = (line: number, message: string) => E.left(fileError(path, message, `line ${line}`))
  const length = bytes.lastIndexOf(10) + 1
  const [first, ...rest] = new TextDecoder().decode(bytes.subarray(0, length)).split('\n').slice(0, -1)
  if (first === undefined) return refuse(1, 'expected the manifest of a shard, found no whole line')
  const manifest = parsed(Manifest, first)
  if (E.isLeft(manifest)) return refuse(1, `this is no manifest of a shard: ${manifest.left}`)
  const [records, seen] = [[] as Record[], new Set<number>()]
  let { seal } = await encodeManifest(manifest.right)
  if (seal !== (await sha256(new TextEncoder().encode(first)))) return refuse(1, 'the manifest was edited')
  for (const [i, line] of rest.entries()) {
    const [, body, found] = SEALED.exec(line) ?? []
    if (body === undefined) return refuse(i + 2, 'expected a record with its seal')
    seal = await sealOf(seal, `${body}}`)
    if (seal !== found)
      return refuse(i + 2, 'this record was edited, or one before it was taken away: its seal does not fit')
    const record = parsed(Record, `${body}}`)
    if (E.isLeft(record)) return refuse(i + 2, record.left)
    const { image } = record.right
    const { shard, data } = manifest.right
    if (image >= data.count || shardOf(image, shard.of) !== shard.index)
      return refuse(i + 2, `image ${image} is none of shard ${shard.index}/${shard.of}`)
    if (seen.has(image)) return refuse(i + 2, `image ${image} is there a second time`)
    seen.add(image)
    records.push(record.right)
  }
  return E.right({ path, manifest: manifest.right, records, seal, length, torn: length < bytes.length })
}

/** What differs between two manifests that should agree, in words; undefined where nothing does. */
export const difference = (a: Manifest, b: Manifest): string | undefined => {
  const about = ({ version, code, model, data, shard, settings }: Manifest) => ({
    version,
    code,
    model: model.sha256,
    'images (SHA-256)': data.sha256,
    images: data.count,
    shards: shard.of,
    ...Object.fromEntries(Object.entries(settings).map(([k, v]) => [`setting ${k}`, v])),
  })
  const [x, y]: readonly { readonly [name: string]: unknown }[] = [about(a), about(b)]
  const name = [...new Set([...Object.keys(x), ...Object.keys(y)])].find((k) => x[k] !== y[k])
  return name === undefined
    ? undefined
    : `${name}: ${JSON.stringify(x[name] ?? null)} and ${JSON.stringify(y[name] ?? null)}`
}
