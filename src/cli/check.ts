import { join } from 'node:path'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { reference } from '../backend/reference.ts'
import { type Epsilon, readEpsilon } from '../core/epsilon.ts'
import { fileError, raise, usage } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import { type Dataset, hashOf, labelsOf, pixels, select } from '../data/dataset.ts'
import { files, regularFiles } from '../data/files.ts'
import { unpacked } from '../data/gzip.ts'
import { decodeModel, type SavedModel } from '../format/model.ts'
import { Refused } from '../proof/exact.ts'
import { check, readNetwork } from '../proof/file.ts'
import { methods } from '../robust/bounds.ts'
import { type Certificate, decodeCertificate, MAX_BYTES, scopeOf, unproved } from '../robust/certificate.ts'
import { cheaperThan } from '../robust/cheaper.ts'
import { DEFAULT_MEMORY } from '../train/fit.ts'
import { verify } from '../train/verify.ts'
import type { Command } from './command.ts'
import { bytesOf, loadTest, matching, modelFile, sourceOf } from './open.ts'
import { count, text } from './options.ts'
import { json, table } from './report.ts'
import { attempt, get, type Shell } from './shell.ts'

const options = {
  model: {
    flags: '--model <FILE>',
    about: 'the model, if it is elsewhere than the certificate says; the ONNX file that a proof is about',
    read: text,
  },
  property: { flags: '--property <FILE>', about: 'the VNN-LIB file that a proof is about', read: text },
  data: {
    flags: '--data <digits|PATH>',
    about: 'the images, if they are elsewhere than the certificate says; those that a folder of proofs is about',
    read: text,
  },
  batchSize: {
    flags: '--batch-size <N>',
    about: 'images at once, fewer if the memory is too small (default: 8)',
    read: count,
  },
}

/** A certificate comes from others, and so do the names in it. */
const [forModels, forData] = [regularFiles(2 ** 30), regularFiles(2 ** 31)]

/** The model and the images that a certificate is about; raises what does not agree with it. */
const subjectsOf = async (
  c: Certificate,
  path: string,
  {
    model: file = c.model.file,
    data: source = c.data.source,
  }: { readonly model?: string | undefined; readonly data?: string | undefined },
): Promise<{ readonly model: SavedModel; readonly test: Dataset }> => {
  const refuse = (place: string, message: string) => raise(fileError(path, message, place))
  const bytes = await get(forModels.read(file))
  if ((await sha256(bytes)) !== c.model.sha256) refuse('model.sha256', `${file} is not the model that was certified`)
  const model = await get(TE.fromEither(decodeModel(await get(unpacked(bytes, file)), file)))
  const test = await get(TE.fromEither(matching(model, file, await get(loadTest(sourceOf(source), forData)))))
  if ((await hashOf(test)) !== c.data.sha256)
    refuse('data.sha256', `${test.name} are not the images that were certified`)
  if (c.ending !== model.ending)
    refuse(
      'ending',
      `${file} ${model.ending === undefined ? 'does not end in a softmax' : `ends in ${model.ending}, so that margins are those of logits`}: the certificate ${c.ending === undefined ? 'says nothing of an ending' : `is about the logits before ${c.ending}`}`,
    )
  if (c.count > test.count) refuse('count', `there are only ${test.count} images`)
  const labels = labelsOf(
    test,
    c.images.map(({ index }) => index),
  )
  c.images.forEach(({ label, margins }, i) => {
    if (label !== labels[i]) refuse(`images.${i}.label`, `the label is ${labels[i]}`)
    if (margins.length !== model.network.classes - 1)
      refuse(`images.${i}.margins`, `there are ${model.network.classes - 1} margins`)
  })
  return { model, test }
}

/** Lower bounds of the margins of the certified images, and whether each is classified as labelled, by the f64 reference backend. */
const boundsOf = async (
  { images, epsilon, box, method, semantics }: Certificate,
  { model, test }: { readonly model: SavedModel; readonly test: Dataset },
  o: { readonly batchSize: number | undefined; readonly memory: number | undefined },
  shell: Shell,
): Promise<{ readonly margins: ArrayLike<number>; readonly correct: ArrayLike<number> }> => {
  if (images.length === 0) return { margins: [], correct: [] }
  const backend = reference()
  try {
    return await verify({
      ...model,
      data: select(images.map(({ index }) => index))(test),
      epsilon: readEpsilon(epsilon) as Epsilon,
      range: box,
      method: methods[method],
      // The same bounds with fewer rows at once, but no others than those that the certificate names.
      cheaper: {
        ways: cheaperThan(method, bytesOf(o.memory).memory ?? DEFAULT_MEMORY).filter((w) => w.method === method),
        told: () => undefined,
      },
      rounding: { outward: semantics },
      batchSize: o.batchSize ?? 8,
      ...bytesOf(o.memory),
      progress: (done, total) => shell.progress('proving', done, total),
    })(backend)
  } finally {
    backend.dispose()
  }
}

/** A proof tells itself from a certificate by its first bytes. */
const isProof = (bytes: Uint8Array): boolean =>
  (bytes[0] === 0x1f && bytes[1] === 0x8b) ||
  new TextDecoder().decode(bytes.subarray(0, 40)).startsWith('{"format":"mixtrain-proof"')

/** The region of an image claim: the radius and the range, either of which may be what makes it small. */
const regionText = ({ epsilon, range }: { readonly epsilon: string; readonly range: readonly [string, string] }) =>
  `epsilon ${epsilon} in [${range.join(', ')}]`

/** What an image claim is about, as one text. */
const claimText = (pixels: string, label: number): string => `${label} ${pixels}`

/** The images of a data set as claims have them. */
const claimable = (data: Dataset): ReadonlySet<string> =>
  new Set(
    Array.from(data.labels, (label, i) => claimText(Buffer.from(pixels(data, [i]).buffer).toString('hex'), label)),
  )

/** Replays the proofs of a folder, one after the other; the first that does not hold ends it. */
const checkFolder = async (
  folder: string,
  names: readonly string[],
  o: { readonly model: string | undefined; readonly data: string | undefined; readonly json: boolean },
  shell: Shell,
): Promise<void> => {
  const begun = performance.now()
  const proofs = names.filter((name) => name.endsWith('.proof.gz'))
  if (proofs.length === 0)
    return raise(
      fileError(folder, 'expected a regular file or a folder with proofs (*.proof.gz), found a folder without'),
    )
  if (o.model === undefined) return raise(usage('proofs are checked against their network: add --model FILE'))
  const model = o.model
  const network = await readNetwork(await get(forModels.read(model))).catch((e: unknown) =>
    e instanceof Refused ? raise(fileError(model, e.message, 'network')) : Promise.reject(e),
  )
  const test = o.data === undefined ? undefined : await get(loadTest(sourceOf(o.data), forData))
  const known = test && claimable(test)
  const images = new Set<string>()
  const claims = new Set<string>()
  let leaves = 0
  for (const [done, name] of proofs.entries()) {
    await shell.progress('replaying', done, proofs.length)
    const path = join(folder, name)
    const { header, ...found } = await check(await get(regularFiles(MAX_BYTES).read(path)), { network }).catch(
      (e: unknown) => (e instanceof Refused ? raise(fileError(path, e.message, 'proof')) : Promise.reject(e)),
    )
    const { claim, semantics } = header
    if (claim.kind !== 'image') return raise(fileError(path, 'it is about a property, not about an image', 'claim'))
    const image = claimText(claim.pixels, claim.label)
    if (known !== undefined && !known.has(image))
      return raise(fileError(path, `it is about an image that ${test?.name} does not have`, 'claim'))
    images.add(image)
    claims.add(`${regionText(claim)}, ${semantics}`)
    leaves += found.leaves
  }
  shell.clear()
  const seconds = (performance.now() - begun) / 1000
  const about = { valid: true, proofs: proofs.length, images: images.size, claims: [...claims], leaves, seconds }
  if (o.json) return shell.print(json({ ...about, count: test?.count ?? null }))
  shell.print(
    table([
      ['valid', `${proofs.length} proofs, in exact arithmetic`],
      ['images', test === undefined ? `${images.size}` : `${images.size} of the ${test.count} of ${test.name}`],
      ...[...claims].map((claim, i) => [i === 0 ? 'claims' : '', claim]),
      ['leaves', `${leaves}`],
      ['time', `${seconds.toFixed(1)} s`],
    ]),
  )
}

/** Replays a proof. No file is opened but those that the command line names. */
const checkProof = async (
  path: string,
  bytes: Uint8Array,
  o: { readonly model: string | undefined; readonly property: string | undefined; readonly json: boolean },
  shell: Shell,
): Promise<void> => {
  const begun = performance.now()
  if (o.model === undefined) return raise(usage('a proof is checked against its network: add --model FILE'))
  const network = await get(forModels.read(o.model))
  const property = o.property === undefined ? {} : { property: await get(forModels.read(o.property)) }
  const { header, verdict, leaves } = await check(bytes, { network, ...property }).catch((e: unknown) =>
    e instanceof Refused ? raise(fileError(path, e.message, 'proof')) : Promise.reject(e),
  )
  const seconds = (performance.now() - begun) / 1000
  const { semantics, claim } = header
  const said = claim.kind === 'image' ? `label ${claim.label} within ${regionText(claim)}` : verdict
  if (o.json) return shell.print(json({ valid: true, claim: claim.kind, verdict: said, semantics, leaves, seconds }))
  shell.print(
    table([
      ['valid', `${said}, in exact arithmetic`],
      ['semantics', semantics],
      ['leaves', `${leaves}`],
      ['time', `${seconds.toFixed(1)} s`],
    ]),
  )
}

/** `mixtrain check`: proves a certificate again. */
export const checkCommand: Command<typeof options, 'CERTIFICATE'> = {
  name: 'check',
  summary: 'prove a certificate again, or replay a proof',
  description:
    'Proves every margin that a certificate states, from the model and the images alone, by the float64 reference backend, whatever device made the certificate. A certificate that was edited, another model and other images are refused with exit code 1, as is a margin that the bounds computed here do not reach. A proof that verify --proof or evaluate --proof wrote is replayed in exact arithmetic by code that shares nothing with the search, against the files that are named.',
  takes: {
    CERTIFICATE: 'a file that evaluate --certificate or verify --proof wrote, or the folder of evaluate --proof',
  },
  options,
  examples: [
    'mixtrain check certificate.json',
    'mixtrain check proof.gz --model network.onnx --property property.vnnlib',
    'mixtrain check proofs/ --model model.onnx --data mnist/',
    'mixtrain check certificate.json --model elsewhere/model.safetensors --data mnist/ --json',
  ],
  run: ({ CERTIFICATE: path }, o, shell) =>
    attempt(() =>
      shell.interruptible(async () => {
        const begun = performance.now()
        const names = await files.list(path)()
        const proved = async () => (o.model === undefined ? undefined : get(modelFile(o.model, 'onnx')))
        if (names._tag === 'Right')
          return checkFolder(path, names.right, { model: await proved(), data: o.data, json: o.json === true }, shell)
        const bytes = await get(regularFiles(MAX_BYTES).read(path))
        if (isProof(bytes))
          return checkProof(path, bytes, { model: await proved(), property: o.property, json: o.json === true }, shell)
        const c = await get(decodeCertificate(bytes, path))
        const subjects = await subjectsOf(c, path, {
          ...{ data: o.data, model: o.model === undefined ? undefined : await get(modelFile(o.model)) },
        })
        const { margins, correct } = await boundsOf(c, subjects, o, shell)
        shell.clear()
        // Bounds that say the opposite of what is seen at the image itself are wrong, and prove nothing.
        const misclassified = c.images.find((_, i) => correct[i] !== 1)
        if (misclassified !== undefined)
          raise(fileError(path, 'the network classifies the image itself otherwise', `image ${misclassified.index}`))
        const [failed, ...others] = unproved(c.images, margins, subjects.model.network.classes)
        if (failed !== undefined)
          raise(
            fileError(
              path,
              `its margins are not reached by the bounds computed here${others.length === 0 ? '' : `, nor are those of ${others.length} other images`}`,
              `image ${failed.index}`,
            ),
          )
        const { method, semantics, ending, epsilon, count: looked, images } = c
        const { covers, excludes } = scopeOf(semantics, ending)
        const seconds = (performance.now() - begun) / 1000
        const about = {
          valid: true,
          verified: images.length,
          count: looked,
          epsilon,
          method,
          semantics,
          ...(ending === undefined ? {} : { ending }),
        }
        if (o.json) return shell.print(json({ ...about, covers, excludes, seconds }))
        shell.print(
          table([
            [
              'valid',
              `${images.length} of the first ${looked} test images are verified, epsilon ${epsilon}, ${method} bounds`,
            ],
            ...covers.map((line, i) => [i === 0 ? 'covers' : '', line]),
            ...excludes.map((line, i) => [i === 0 ? 'excludes' : '', line]),
            ['time', `${seconds.toFixed(1)} s`],
          ]),
        )
      }),
    ),
}
