import { join } from 'node:path'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { contradiction, type Merged, merge } from '../cluster/merge.ts'
import { SHARD_FILE } from '../cluster/records.ts'
import { fileError, type MixtrainError, raise, usage } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import { choose, fold, key as keyOf } from '../core/key.ts'
import { counted } from '../core/number.ts'
import { hashOf, take } from '../data/dataset.ts'
import { files } from '../data/files.ts'
import { unpacked } from '../data/gzip.ts'
import { decodeModel } from '../format/model.ts'
import { verifyEach } from '../train/verify.ts'
import type { Command } from './command.ts'
import { decodeInstances, decodeOutcomes, isWrong, nameOf, type Outcome, talliesOf } from './instances.ts'
import { bytesOf, loadTest, matching, modelFile, sourceOf, withDevice } from './open.ts'
import { count, integer, text } from './options.ts'
import { bounderOf, questionsOf, readShard, recordsReport, recordsTable } from './records.ts'
import { json } from './report.ts'
import { attempt, get, type Shell } from './shell.ts'
import { talliesTable } from './tallies.ts'

const options = {
  audit: {
    flags: '--audit <N>',
    about: 'prove N of the images again, drawn by a key, and compare all that was recorded of them',
    read: count,
  },
  key: { flags: '--key <N>', about: 'of the draw (default: a random one, which is told)', read: integer },
  model: { flags: '--model <FILE>', about: 'the model, if it is elsewhere than the manifest says', read: text },
  data: {
    flags: '--data <digits|FOLDER>',
    about: 'the images, if they are elsewhere than the manifest says',
    read: text,
  },
  list: {
    flags: '--list <CSV>',
    about: 'the folder has tables of benchmark --shard: the list of instances that they are about',
    read: text,
  },
}

type Given = Parameters<Command<typeof options, 'DIR'>['run']>[1]

/** Proves some images again; raises what contradicts their records. */
const audited = async (folder: string, { manifest, records }: Merged, o: Given, shell: Shell, wanted: number) => {
  const q = questionsOf(manifest, folder)
  const source = o.data ?? manifest.data.source
  const file = o.model === undefined ? manifest.model.file : await get(modelFile(o.model))
  const bytes = await get(files.read(file))
  if ((await sha256(bytes)) !== manifest.model.sha256)
    raise(fileError(file, 'this is not the model that was evaluated'))
  const model = await get(TE.fromEither(decodeModel(await get(unpacked(bytes, file)), file)))
  const all = await get(TE.fromEither(matching(model, file, await get(loadTest(sourceOf(source))))))
  const data = take(manifest.data.count)(all)
  if ((await hashOf(data)) !== manifest.data.sha256)
    raise(fileError(source, 'these are not the images that were evaluated'))
  const seed = o.key ?? Math.floor(Math.random() * 2 ** 31)
  const drawn = choose(fold(keyOf(seed), 'audit'), data.count, Math.min(wanted, data.count))
  const images = Array.from(drawn).sort((a, b) => a - b)
  const device = String(manifest.settings.device)
  await get(
    withDevice({ ...o, device: o.device ?? device, fastMath: q.fastMath, fallback: false })(({ backend }) =>
      attempt(async () => {
        const { attack, complete, rounding, epsilon, norm } = q
        const asked = { ...model, data, images, epsilon, norm, method: bounderOf(q), attack, complete, rounding }
        const progress = (done: number, total: number, what: string) => shell.progress(what, done, total)
        for await (const some of verifyEach({ ...asked, ...bytesOf(o.memory), progress })(backend))
          for (const found of some) {
            const wrong = contradiction(records[found.image], found)
            if (wrong !== undefined) raise(fileError(folder, `${wrong} (audit with --key ${seed})`))
          }
        shell.clear()
      }),
    ),
  )
  return { images: images.length, key: seed }
}

/** Tables of benchmark: each instance of the list once. */
const mergedTables = async (folder: string, list: string, names: readonly string[]): Promise<readonly Outcome[]> => {
  const instances = await get(
    TE.fromEither(decodeInstances(new TextDecoder().decode(await get(files.read(list))), list)),
  )
  const [outcomes, from] = [[] as Outcome[], new Map<string, string>()]
  const known = new Set(instances.map(nameOf))
  for (const name of names) {
    const path = join(folder, name)
    const content = new TextDecoder().decode(await get(files.read(path)))
    const { outcomes: own, whole } = await get(TE.fromEither(decodeOutcomes(content, path)))
    if (whole !== content) raise(fileError(path, 'its last line was not finished: go on with --resume'))
    for (const outcome of own) {
      const [id, said] = [nameOf(outcome), `${outcome.onnx} ${outcome.vnnlib}`]
      if (!known.has(id)) raise(fileError(path, `${said} is not in ${list}`))
      if (from.has(id)) raise(fileError(path, `${said} is in ${from.get(id)}, too`))
      from.set(id, path)
      outcomes.push(outcome)
    }
  }
  const missing = instances.filter((i) => !from.has(nameOf(i)))
  if (missing.length > 0)
    raise(
      fileError(
        folder,
        `of ${instances.length} instances of ${list}, ${missing.length} have no outcome, ${missing[0].onnx} ${missing[0].vnnlib} first`,
      ),
    )
  return outcomes
}

const tables = async (folder: string, list: string, entries: readonly string[], o: Given, shell: Shell) => {
  if (o.audit !== undefined) raise(usage('--audit is about records of evaluate: leave --list out'))
  const outcomes = await mergedTables(
    folder,
    list,
    entries.filter((name) => name.endsWith('.csv') && join(folder, name) !== join(list)),
  )
  const tallies = talliesOf(outcomes)
  shell.print(o.json ? json({ folder, list, tallies }) : talliesTable(tallies))
  const wrong = outcomes.filter(isWrong)
  if (wrong.length > 0)
    raise(
      fileError(folder, `${wrong.length} verdicts contradict what is known, ${wrong[0].onnx} ${wrong[0].vnnlib} first`),
    )
}

const run = async (folder: string, o: Given, shell: Shell): Promise<void> => {
  const entries = await get(files.list(folder))
  if (o.list !== undefined) return tables(folder, o.list, entries, o, shell)
  if (o.audit === undefined && o.key !== undefined) raise(usage('--key draws the images of an audit: add --audit N'))
  const shards = []
  for (const name of entries.filter((n) => SHARD_FILE.test(n))) shards.push(await readShard(join(folder, name)))
  const merged = await get(TE.fromEither(merge(folder, shards)))
  const { manifest, records } = merged
  const audit = o.audit === undefined ? undefined : await audited(folder, merged, o, shell, o.audit)
  const { shard: _, ...report } = recordsReport([manifest], folder, records)
  const { of } = manifest.shard
  shell.print(
    o.json
      ? json({ ...report, shards: of, ...(audit === undefined ? {} : { audit }) })
      : recordsTable(
          report,
          `${manifest.data.name}, ${counted(of, 'shard')}${audit === undefined ? '' : `; ${audit.images} proved again, drawn by key ${audit.key}`}`,
        ),
  )
}

/** `mixtrain merge`: puts the shards of an evaluation together. */
export const mergeCommand: Command<typeof options, 'DIR'> = {
  name: 'merge',
  summary: 'put the shards of an evaluation together',
  description:
    'Puts the records of evaluate --shard I/N --output DIR together and says what they come to: ACC, ERA, VRA, and the interval that the images leave open which were neither proved nor broken. It refuses shards that are missing, twice there or not finished, that differ in model, images, version or settings, and records that were edited. With --list, the tables of benchmark --shard.',
  takes: { DIR: 'folder of the records' },
  options,
  examples: [
    'mixtrain merge results/',
    'mixtrain merge results/ --audit 100 --key 7 --json',
    'mixtrain merge tables/ --list instances.csv',
  ],
  run: ({ DIR }, o, shell): TE.TaskEither<MixtrainError, void> =>
    attempt(() => shell.interruptible(() => run(DIR, o, shell))),
}
