import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { z } from 'zod'
import { readEpsilon } from '../core/epsilon.ts'
import { fileError, type MixtrainError } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import { problemOf } from '../core/problem.ts'
import type { Semantics } from '../core/rounding.ts'
import { ENDINGS, type Ending } from '../nn/networks.ts'
import { type MethodName, methods } from './bounds.ts'

/**
 * A certificate: for some test images, lower bounds of all margins over the l-inf ball, each a theorem about the network (core/rounding.ts), with
 * what is needed to prove them again: hashes of model and data, the radius as it was written, the pixel range, the method.
 */
export interface Certificate {
  /** Version of this package. */
  readonly version: string
  readonly model: { readonly file: string; readonly sha256: string }
  /** `digits` or a folder; the hash of all its test images and labels. */
  readonly data: { readonly source: string; readonly sha256: string }
  /** l-inf radius in units of inputs from 0 to 1, a decimal or a quotient of two, exactly as meant; bounds are taken at the next float32 above. */
  readonly epsilon: string
  /** The pixel range, which the ball is cut to. */
  readonly box: readonly [number, number]
  readonly method: MethodName
  readonly rounding: 'outward'
  readonly semantics: Semantics
  /** The op that the file ends in, where margins are those of the logits before it. */
  readonly ending?: Ending | undefined
  /** Test images looked at: the first `count`. */
  readonly count: number
  /** The verified ones among them, ascending. */
  readonly images: readonly Claim[]
}

/** z_y - z_j >= margins[j] everywhere in the ball, for the label y and j != y ascending; all are above 0. */
export interface Claim {
  readonly index: number
  readonly label: number
  readonly margins: readonly number[]
}

/** What a certificate is about, and what it leaves out; part of the document. */
export const scopeOf = (
  semantics: Semantics,
  ending?: Ending,
): { readonly covers: readonly string[]; readonly excludes: readonly string[] } => ({
  covers: [
    'every real point of the box, with the weights and pixels as float32 numbers and the network in real arithmetic',
    ...(semantics === 'real'
      ? []
      : [
          'every float32 execution, rounded to nearest, that sums each layer with its scales and biases in any order, fused or not, constants folded or not, and rounds each other operation once',
        ]),
    ...(ending === undefined
      ? []
      : [`the logits before the ${ending} that the file ends in, which keeps their order in real arithmetic`]),
  ],
  excludes: [
    ...(semantics === 'real' ? ['float32 executions, which may differ from real arithmetic'] : []),
    ...(ending === undefined || semantics === 'real'
      ? []
      : [`float32 executions of the ${ending} itself, which may round two outputs to one number`]),
    ...(semantics === 'real'
      ? []
      : [
          'layer norm by another formula than that of ONNX, such as the mean of squares less the square of the mean, or a quotient by the root',
        ]),
    'Winograd and FFT convolutions, TF32, float16 and bfloat16 arithmetic, subnormals flushed to zero',
    'batch normalization that was folded in after the certificate, quantisation, and how pixels were made',
  ],
})

// ---- stated margins --------------------------------------------------------------------------------------------------

/** Room that a stated margin leaves for the arithmetic of the check, as a share of 1 + |margin|. */
const ROOM = 2 ** -12

/** The margin that is stated for a bound: less by 2^-12 (1 + |bound|), and down to four decimals. */
export const stated = (bound: number): number => Math.floor((bound - ROOM * (1 + Math.abs(bound))) * 1e4) / 1e4

/**
 * Claims for the images that `standing` has 1 for and whose stated margins are all above 0. `bounds`: lower bounds of margins,
 * `[count, classes - 1]`. `standing`: 0 for an image that was seen to be classified otherwise, at itself or by an attack. A bound that says the
 * opposite of what was seen is wrong, and is not passed on as a theorem.
 *
 * @example
 *   claimsOf([0.5, 0.25, 0.5, -1], [1, 0], 3, [1, 1]) // [{ index: 0, label: 1, margins: [0.4996, 0.2496] }]
 */
export const claimsOf = (
  bounds: ArrayLike<number>,
  labels: ArrayLike<number>,
  classes: number,
  standing: ArrayLike<number>,
): readonly Claim[] =>
  Array.from({ length: labels.length }, (_, index) => ({
    index,
    label: labels[index],
    margins: Array.from({ length: classes - 1 }, (__, j) => stated(bounds[index * (classes - 1) + j])),
  })).filter(({ index, margins }) => standing[index] === 1 && margins.every((m) => m > 0 && Number.isFinite(m)))

/**
 * Claims that bounds computed again do not prove; NaN and infinity prove nothing. `bounds`: `[claims, classes - 1]`.
 *
 * @example
 *   unproved([{ index: 0, label: 1, margins: [0.3, 0.2] }], [0.31, 0.15], 3) // [{ index: 0, label: 1, margins: [0.3, 0.2] }]
 */
export const unproved = (claims: readonly Claim[], bounds: ArrayLike<number>, classes: number): readonly Claim[] =>
  claims.filter(
    ({ margins }, i) =>
      !margins.every((m, j) => {
        const bound = bounds[i * (classes - 1) + j]
        return bound >= m && Number.isFinite(bound)
      }),
  )

// ---- the document ----------------------------------------------------------------------------------------------------

const FORMAT = 'mixtrain-certificate'
const FORMAT_VERSION = 1

/** Bytes of the longest document: a check reads those of strangers. */
export const MAX_BYTES = 2 ** 26

/** Nothing else in a document goes unproved but this and two paths, so that it must not be prose that a reader takes for a claim. */
const Version = z
  .string()
  .max(40)
  .regex(/^\d+\.\d+\.\d+(-[\dA-Za-z.-]+)?$/, 'expected a version such as 1.2.3')

const Hash = z.string().regex(/^[0-9a-f]{64}$/, 'expected a SHA-256 in hexadecimal')

/** Members in the order in which they are hashed. */
const Document = z.strictObject({
  format: z.literal(FORMAT),
  formatVersion: z.literal(FORMAT_VERSION),
  version: Version,
  model: z.strictObject({ file: z.string().max(4096), sha256: Hash }),
  data: z.strictObject({ source: z.string().max(4096), sha256: Hash }),
  epsilon: z.string().max(40),
  box: z.tuple([z.number(), z.number()]),
  method: z.enum(Object.keys(methods) as [MethodName, ...MethodName[]]),
  rounding: z.literal('outward'),
  semantics: z.enum(['real', 'deployed']),
  ending: z.enum(ENDINGS).optional(),
  covers: z.array(z.string()),
  excludes: z.array(z.string()),
  count: z.int().min(1),
  images: z.array(
    z.strictObject({
      index: z.int().min(0),
      label: z.int().min(0),
      margins: z.array(z.number().positive()).min(1).max(65535),
    }),
  ),
  sha256: Hash,
})
type Document = z.infer<typeof Document>

const documentOf = (c: Certificate): Omit<Document, 'sha256'> => ({
  format: FORMAT,
  formatVersion: FORMAT_VERSION,
  version: c.version,
  model: { file: c.model.file, sha256: c.model.sha256 },
  data: { source: c.data.source, sha256: c.data.sha256 },
  epsilon: c.epsilon,
  box: [c.box[0], c.box[1]],
  method: c.method,
  rounding: c.rounding,
  semantics: c.semantics,
  ...(c.ending === undefined ? {} : { ending: c.ending }),
  covers: [...scopeOf(c.semantics, c.ending).covers],
  excludes: [...scopeOf(c.semantics, c.ending).excludes],
  count: c.count,
  images: c.images.map(({ index, label, margins }) => ({ index, label, margins: [...margins] })),
})

const utf8 = new TextEncoder()
const digest = (content: Omit<Document, 'sha256'>): Promise<string> => sha256(utf8.encode(JSON.stringify(content)))

/**
 * The document as JSON, one image a line.
 *
 * @example
 *   await writeFile('certificate.json', await encodeCertificate(certificate))
 */
export const encodeCertificate = async (c: Certificate): Promise<string> => {
  const content = documentOf(c)
  const { images, ...head } = content
  const lines = Object.entries(head).map(([k, v]) => `  ${JSON.stringify(k)}: ${JSON.stringify(v)},`)
  const claims = images.map((i) => `    ${JSON.stringify(i)}`).join(',\n')
  return `{\n${lines.join('\n')}\n  "images": [\n${claims}\n  ],\n  "sha256": "${await digest(content)}"\n}\n`
}

const parsed = (bytes: Uint8Array, path: string): E.Either<MixtrainError, { text: string; value: Document }> =>
  pipe(
    E.tryCatch(
      // A byte order mark and bytes that are no UTF-8 are differences that a lenient decoder would hide.
      () => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes),
      () => fileError(path, 'it is not JSON in UTF-8'),
    ),
    E.bindTo('text'),
    E.bind('json', ({ text }) =>
      E.tryCatch(
        () => JSON.parse(text) as unknown,
        () => fileError(path, 'it is not JSON'),
      ),
    ),
    E.chain(({ text, json }) => {
      const result = Document.safeParse(json)
      if (result.success) return E.right({ text, value: result.data })
      // Another document of ours, such as report.json, is named as a whole: which member it lacks first says nothing.
      if ((json as { readonly format?: unknown } | null)?.format !== FORMAT)
        return E.left(
          fileError(path, `expected a certificate or a proof, found JSON whose "format" is not "${FORMAT}"`),
        )
      const { place, message } = problemOf(result.error, json)
      return E.left(fileError(path, message, place))
    }),
  )

const same = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((x, i) => x === b[i])

/** What is wrong with a document that has the right form. */
const wrong = (d: Document, own: string): readonly [place: string, message: string] | undefined => {
  if (d.sha256 !== own) return ['sha256', 'the certificate was edited: its hash is that of another content']
  const { covers, excludes } = scopeOf(d.semantics, d.ending)
  if (!same(d.covers, covers)) return ['covers', `a ${d.semantics} certificate covers something else`]
  if (!same(d.excludes, excludes)) return ['excludes', `a ${d.semantics} certificate excludes something else`]
  if (readEpsilon(d.epsilon) === undefined) return ['epsilon', 'expected a decimal, or a quotient of two']
  // A claim about a range without the image would be one about nothing.
  if (d.box[0] !== 0 || d.box[1] !== 1) return ['box', 'expected [0,1], the range of pixels']
  const at = d.images.findIndex(({ index }, i) => index >= d.count || (i > 0 && index <= d.images[i - 1].index))
  return at < 0 ? undefined : [`images.${at}`, 'images are numbered upward and below the count']
}

/**
 * Where a document is not written as `encodeCertificate` writes its content. JSON.parse keeps the last of two members of one name and forgets
 * how numbers and strings were spelled, and other readers do otherwise: only one text of each content is a certificate.
 */
const respelled = (text: string, canonical: string): readonly [place: string, message: string] | undefined => {
  if (text === canonical) return undefined
  const [lines, expected] = [text.split('\n'), canonical.split('\n')]
  const at = lines.findIndex((line, i) => line !== expected[i])
  return [
    `line ${(at < 0 ? lines.length : at) + 1}`,
    'the certificate was edited: its content is written there in another way than evaluate --certificate writes it',
  ]
}

/**
 * Reads a certificate. An edited one is refused, whatever was edited: the bytes are those that `encodeCertificate` makes of what they say. It is
 * proved nowhere here: `check` does that.
 *
 * @example
 *   const certificate = await orThrow(decodeCertificate(await readFile('certificate.json'), 'certificate.json'))
 */
export const decodeCertificate = (bytes: Uint8Array, path: string): TE.TaskEither<MixtrainError, Certificate> =>
  pipe(
    TE.fromEither(parsed(bytes, path)),
    TE.chain(({ text, value: { sha256: hash, ...content } }) => async () => {
      const { format: _, formatVersion: __, covers: ___, excludes: ____, ...certificate } = content
      const problem =
        wrong({ ...content, sha256: hash }, await digest(content)) ??
        respelled(text, await encodeCertificate(certificate))
      return problem === undefined ? E.right(certificate) : E.left(fileError(path, problem[1], problem[0]))
    }),
  )
