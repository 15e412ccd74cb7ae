import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { difference, imagesOfShard, type Manifest, type Record, type Shard } from './records.ts'

/** An evaluation put together. */
export interface Merged {
  /** Of the first shard. */
  readonly manifest: Manifest
  /** One for each image, ascending. */
  readonly records: readonly Record[]
}

const listed = (numbers: readonly number[]): string =>
  `${numbers.slice(0, 8).join(', ')}${numbers.length > 8 ? ` and ${numbers.length - 8} more` : ''}`

/** Puts shards together: all of them, each once, whole, of one model, data set, version and settings. Left: what is not so, by file. */
export const merge = (folder: string, shards: readonly Shard[]): E.Either<MixtrainError, Merged> => {
  const [first] = shards
  if (first === undefined) return E.left(fileError(folder, 'there are no shards (shard-I-of-N.jsonl) in this folder'))
  const { manifest } = first
  const byIndex = new Map<number, Shard>()
  for (const shard of shards) {
    const { index } = shard.manifest.shard
    const other = byIndex.get(index)
    const differs = difference(manifest, shard.manifest)
    if (differs !== undefined) return E.left(fileError(shard.path, `it differs from ${first.path} in ${differs}`))
    if (other !== undefined) return E.left(fileError(shard.path, `${other.path} is shard ${index}, too`))
    if (shard.torn)
      return E.left(fileError(shard.path, 'its last line was not finished: run that shard again, it goes on there'))
    byIndex.set(index, shard)
  }
  const { of } = manifest.shard
  const absent = Array.from({ length: of }, (_, i) => i + 1).filter((i) => !byIndex.has(i))
  if (absent.length > 0)
    return E.left(fileError(folder, `of ${of} shards, ${absent.length} are missing: ${listed(absent)}`))
  for (const { path, manifest: own, records } of shards) {
    const there = new Set(records.map((r) => r.image))
    const gaps = imagesOfShard(own).filter((i) => !there.has(i))
    if (gaps.length > 0)
      return E.left(
        fileError(path, `${gaps.length} of its images are not decided yet (${listed(gaps)}): run that shard again`),
      )
  }
  return E.right({ manifest, records: shards.flatMap((s) => s.records).sort((a, b) => a.image - b.image) })
}

/** What records come to, as `verify` has it: fractions, and counts. */
export interface Summary {
  readonly count: number
  readonly acc: number
  readonly era: number | null
  readonly vra: number
  /** Images that are neither proved nor broken: the robust accuracy lies in [vra, vra + open / count]. */
  readonly open: number
  readonly decided: { readonly unsat: number; readonly sat: number; readonly unknown: number; readonly timeout: number }
  /** Of images that bounds verified and the attack broke. */
  readonly refuted: number
  readonly robust: Uint8Array | undefined
  readonly strongest: readonly (string | undefined)[] | undefined
  readonly withoutGradient: { readonly margin: number; readonly none: number } | undefined
}

/** Whether nothing is known of the robustness of an image that is classified correctly. */
const isOpen = (r: Record): boolean => r.correct === 1 && r.robust !== 0 && r.verified === 0 && r.decided !== 'sat'

export const summaryOf = (records: readonly Record[]): Summary => {
  const count = records.length
  const number = (holds: (r: Record) => boolean) => records.filter(holds).length
  const attacked = records.some((r) => r.robust !== null)
  return {
    count,
    acc: number((r) => r.correct === 1) / count,
    era: attacked ? number((r) => r.robust === 1) / count : null,
    vra: number((r) => r.verified === 1) / count,
    open: number(isOpen),
    decided: {
      unsat: number((r) => r.decided === 'unsat'),
      sat: number((r) => r.decided === 'sat'),
      unknown: number((r) => r.decided === 'unknown'),
      timeout: number((r) => r.decided === 'timeout'),
    },
    refuted: number((r) => r.bounded === 1 && r.robust === 0 && r.verified === 0),
    robust: attacked ? Uint8Array.from(records, (r) => r.robust ?? 0) : undefined,
    strongest: attacked ? records.map((r) => r.strongest ?? undefined) : undefined,
    withoutGradient: attacked
      ? { margin: number((r) => r.gradient === 'margin'), none: number((r) => r.gradient === 'none') }
      : undefined,
  }
}

/** What a second look at an image contradicts, in words; undefined where it proves the record again. */
export const contradiction = (claim: Record, found: Record): string | undefined => {
  const fields = ['label', 'correct', 'bounded', 'decided', 'robust', 'verified'] as const
  // What a limit of time left open may be decided now.
  const compared = claim.decided === 'timeout' || claim.decided === 'unknown' ? fields.slice(0, 3) : fields
  const field = compared.find((f) => claim[f] !== found[f])
  return field === undefined
    ? undefined
    : `image ${claim.image}: ${field} is recorded as ${claim[field]}, and was found to be ${found[field]}`
}
