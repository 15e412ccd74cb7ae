import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { Device } from '../backend/device.ts'
import { summaryOf } from '../cluster/merge.ts'
import {
  decodeShard,
  difference,
  encodeManifest,
  encodeRecords,
  fileNameOf,
  type Record as ImageRecord,
  imagesOfShard,
  type Manifest,
  type Shard as Recorded,
  shardOf,
} from '../cluster/records.ts'
import type { Backend } from '../compile/backend.ts'
import { doublesOf, type Epsilon, readEpsilon } from '../core/epsilon.ts'
import { fileError, raise } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import type { Rounding } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import { type Dataset, hashOf, type nounOf } from '../data/dataset.ts'
import { exists, files, growing, makeDirectory, writeAtomic } from '../data/files.ts'
import { alphaCrown } from '../robust/alpha-crown.ts'
import { ALPHA, type Bounder, type MethodName, methods } from '../robust/bounds.ts'
import type { AttackOptions } from '../robust/search.ts'
import { type VerifyOptions, verifyEach } from '../train/verify.ts'
import { lock } from './lock.ts'
import type { Shard } from './options.ts'
import { percent, type Report, reportOf, table } from './report.ts'
import { get, type Shell } from './shell.ts'
import { codeHash, VERSION } from './version.ts'

/** What was asked about each image, as the options of `evaluate` say it. */
export interface Questions {
  readonly epsilon: Epsilon
  readonly norm: Norm
  readonly method: MethodName
  readonly alphaSteps: number | undefined
  readonly rounding: Rounding
  readonly attack: AttackOptions | undefined
  readonly complete: number | undefined
  readonly fastMath: boolean
}

/** The questions and the device as the flat settings of a manifest. */
const settingsOf = (q: Questions, device: string): Manifest['settings'] => ({
  epsilon: q.epsilon.written,
  norm: q.norm,
  method: q.method,
  alphaSteps: q.alphaSteps ?? null,
  rounding: q.rounding === 'none' ? 'none' : q.rounding.outward,
  complete: q.complete ?? null,
  device,
  fastMath: q.fastMath,
  attack: q.attack?.name ?? null,
  steps: q.attack?.steps ?? null,
  restarts: q.attack?.restarts ?? null,
  stepSize: q.attack?.stepSize ?? null,
  seed: q.attack?.seed ?? null,
  targetLoss: q.attack?.loss ?? null,
  targeted: q.attack?.targeted ?? null,
})

/** The questions of a manifest, as `settingsOf` wrote them. @throws a file error where they are no such settings. */
export const questionsOf = ({ settings: s }: Manifest, path: string): Questions => {
  const epsilon = readEpsilon(String(s.epsilon))
  const method = String(s.method) as MethodName
  if (epsilon === undefined || !Object.hasOwn(methods, method))
    return raise(fileError(path, 'its settings name no radius and method', 'line 1'))
  return {
    epsilon,
    method,
    norm: String(s.norm) as Norm,
    alphaSteps: typeof s.alphaSteps === 'number' ? s.alphaSteps : undefined,
    rounding: s.rounding === 'none' ? 'none' : { outward: s.rounding === 'deployed' ? 'deployed' : 'real' },
    complete: typeof s.complete === 'number' ? s.complete : undefined,
    fastMath: s.fastMath === true,
    attack:
      s.attack === null
        ? undefined
        : ({
            ...{ name: s.attack, steps: s.steps, restarts: s.restarts, stepSize: s.stepSize, seed: s.seed },
            ...{ loss: s.targetLoss, targeted: s.targeted },
          } as AttackOptions),
  }
}

export const bounderOf = ({ method, alphaSteps }: Questions): Bounder =>
  alphaSteps === undefined ? methods[method] : alphaCrown({ ...ALPHA, steps: alphaSteps })

export const manifestOf = async (
  of: {
    readonly file: string
    readonly bytes: Uint8Array
    readonly source: string
    readonly data: Dataset
    readonly shard: Shard
  },
  questions: Questions,
  device: Device,
): Promise<Manifest> => ({
  format: 'mixtrain-shard-1',
  version: VERSION,
  code: await codeHash(),
  model: { file: of.file, sha256: await sha256(of.bytes) },
  data: { source: of.source, name: of.data.name, sha256: await hashOf(of.data), count: of.data.count },
  shard: of.shard,
  settings: settingsOf(questions, device.backend.name),
})

export const readShard = async (path: string): Promise<Recorded> => {
  const decoded = await decodeShard(await get(files.read(path)), path)
  return E.isLeft(decoded) ? raise(decoded.left) : decoded.right
}

/** What an earlier call left of a shard; where there is nothing, its file is made, with the manifest. */
const begun = async (path: string, manifest: Manifest): Promise<Pick<Recorded, 'records' | 'seal' | 'length'>> => {
  if (!(await get(exists(path)))) {
    const { text, seal } = await encodeManifest(manifest)
    const bytes = new TextEncoder().encode(text)
    await get(writeAtomic(path, bytes))
    return { records: [], seal, length: bytes.length }
  }
  const found = await readShard(path)
  const differs = difference(found.manifest, manifest)
  if (differs !== undefined)
    raise(fileError(path, `it was begun otherwise, choose another --output; it differs in ${differs}`))
  return found
}

/** How often a shard that another process has is asked for again, ms. */
const WAIT = 1000

/** The lock of a shard, once whoever has it is done or dead: a job that is queued again finds that of its own predecessor. */
const held = async (path: string, folder: string, shell: Shell): Promise<{ readonly release: () => void }> => {
  for (let tries = 0; ; tries++) {
    const taken = lock(`${path}.lock`, folder)
    if (E.isRight(taken)) return taken.right
    if (taken.left.kind !== 'file' || !taken.left.message.startsWith('another run')) return raise(taken.left)
    if (tries === 0) shell.note(`${path}: ${taken.left.message}; waiting`)
    await shell.progress('waiting', 0, 1)
    await new Promise((resolve) => setTimeout(resolve, WAIT))
  }
}

/** A shard that this process has, until it is closed. */
interface Held {
  readonly manifest: Manifest
  readonly records: ImageRecord[]
  /** Images without a record. */
  readonly left: readonly number[]
  readonly append: (some: readonly ImageRecord[]) => Promise<void>
  readonly close: () => Promise<void>
}

const open = async (folder: string, manifest: Manifest, shell: Shell): Promise<Held> => {
  const path = join(folder, fileNameOf(manifest.shard))
  const { release } = await held(path, folder, shell)
  try {
    const before = await begun(path, manifest)
    const known = new Set(before.records.map((r) => r.image))
    const left = imagesOfShard(manifest).filter((i) => !known.has(i))
    const records = [...before.records]
    let { seal } = before
    const file = await get(growing(path, before.length))
    if (known.size > 0) shell.note(`${path}: ${known.size} images are decided, ${left.length} are left`)
    return {
      ...{ manifest, records, left },
      append: async (some) => {
        const lines = await encodeRecords(some, seal)
        await get(file.append(new TextEncoder().encode(lines.text)))
        seal = lines.seal
        records.push(...some)
      },
      close: async () => {
        try {
          await get(file.close)
        } finally {
          release()
        }
      },
    }
  } catch (cause) {
    release()
    throw cause
  }
}

/**
 * Judges the images of some shards, ascending, that have no record yet, and writes each as it is decided; all their records. Shards of one call share its plans, and each has a file of its
 * own, as if a call had judged it alone.
 */
export const recorded = async (
  folder: string,
  manifests: readonly Manifest[],
  asked: VerifyOptions,
  shell: Shell,
  backend: Backend,
): Promise<readonly ImageRecord[]> => {
  await get(makeDirectory(folder))
  const shards: Held[] = []
  try {
    for (const manifest of manifests) shards.push(await open(folder, manifest, shell))
    // One shard after the other, so that few files are written to for each chunk.
    const images = shards.flatMap(({ left }) => left)
    if (images.length > 0)
      for await (const some of verifyEach({ ...asked, images })(backend))
        for (const { manifest, append } of shards) {
          const own = some.filter(({ image }) => shardOf(image, manifest.shard.of) === manifest.shard.index)
          if (own.length > 0) await append(own)
        }
    return shards.flatMap(({ records }) => records)
  } finally {
    for (const { close } of shards) await close()
  }
}

/** What records come to, beside how they were made. */
export type RecordsReport = Omit<Report, 'device' | 'threads' | 'seconds'> & {
  readonly device: string
  readonly shard: string
  /** Images neither proved nor broken, and the robust accuracy that they leave possible. */
  readonly open: number
  readonly robustAccuracy: readonly [number, number]
}

export const recordsReport = (
  manifests: readonly Manifest[],
  path: string,
  records: readonly ImageRecord[],
): RecordsReport => {
  const [manifest, last] = [manifests[0], manifests[manifests.length - 1]]
  const q = questionsOf(manifest, path)
  const summary = summaryOf(records)
  const {
    device: _,
    threads: __,
    seconds: ___,
    ...report
  } = reportOf(
    {
      ...{ model: manifest.model.file, count: summary.count, epsilon: doublesOf(q.epsilon).nearest, norm: q.norm },
      ...{ attack: q.attack, method: q.method, complete: q.complete, rounding: q.rounding },
      ...{ device: { backend: { name: 'wasm', threads: 0 } }, seconds: 0 },
    },
    { ...summary, ...(q.complete === undefined ? {} : { decided: summary.decided }) },
  )
  const { index, of } = manifest.shard
  const { open, vra, count } = summary
  return {
    ...report,
    device: String(manifest.settings.device),
    shard: `${manifests.length === 1 ? index : `${index}-${last.shard.index}`}/${of}`,
    open,
    robustAccuracy: [vra, vra + open / count],
  }
}

export const recordsTable = (
  r: Omit<RecordsReport, 'shard'>,
  of: string,
  noun: ReturnType<typeof nounOf> = 'image',
): string =>
  table(
    [
      ['ACC', percent(r.acc), `clean ${noun}s`],
      ['ERA', percent(r.era), r.attack === null ? 'not measured' : `${r.attack.name}, ${r.attack.steps} steps`],
      [
        'VRA',
        percent(r.vra),
        `${r.method}${r.complete === undefined ? '' : ', then branch and bound'}, epsilon ${r.epsilon}`,
      ],
      ['open', String(r.open), `${noun}s neither proved nor broken`],
      ['robust', r.robustAccuracy.map(percent).join(' to '), `what the open ${noun}s leave possible`],
      [`${noun}s`, String(r.count), of],
    ],
    ['', '', 'how'],
  )
