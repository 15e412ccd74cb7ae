import { readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { fileError, raise, usage } from '../core/error.ts'
import { unknownName } from '../core/names.ts'
import { download, isWhole } from '../data/download.ts'
import { files, makeDirectory } from '../data/files.ts'
import { loadFolder } from '../data/folder.ts'
import { type Source, type SourceName, sources } from '../data/sources.ts'
import { unpack } from '../data/unpack.ts'
import type { Command } from './command.ts'
import { text } from './options.ts'
import { json } from './report.ts'
import { shown } from './run-folder.ts'
import { attempt, get, type Shell } from './shell.ts'

const names = Object.keys(sources) as SourceName[]

const options = {
  mirror: {
    flags: '--mirror <URL>',
    about: 'folder on another server that has files of the same names; checksums stay the official ones',
    read: (value: string): E.Either<string, string> =>
      /^https?:\/\/./.test(value)
        ? text(value)
        : E.left(`expected an http or https address, not ${JSON.stringify(value)}`),
  },
}

/** Where the files of an archive wait until all of them are there. */
const STAGE = 'unpacking.tmp'

/** What is in a folder, if it is all of the data set. */
const complete = async (name: SourceName, folder: string): Promise<boolean> => {
  const loaded = await loadFolder(files)(folder)()
  if (E.isLeft(loaded)) return false
  const { train, test } = loaded.right
  const { count } = sources[name]
  return train.name === name && train.count === count.train && test.count === count.test
}

const offline = (source: Source, folder: string): string =>
  `Without a connection: fetch on another machine ${source.files.map((f) => `${source.at.at(-1)}${f.name}`).join(', ')}, put ${source.files.length === 1 ? 'it' : 'them'} into ${shown(folder)}, and run the same command again: it checks${source.unpack === undefined ? '' : ' and unpacks'} what is there.`

/** Fetches what is missing, and unpacks it. */
const fill = async (name: SourceName, folder: string, mirror: string | undefined, shell: Shell): Promise<void> => {
  const source: Source = sources[name]
  const addresses = mirror === undefined ? source.at : [mirror]
  for (const file of source.files) {
    const path = join(folder, file.name)
    if (await isWhole(path, file)) continue
    const result = await download(addresses, file, path, (done, total) => shell.progress(file.name, done, total))()
    shell.clear()
    if (E.isLeft(result))
      raise(
        result.left.kind === 'file'
          ? { ...result.left, message: `${result.left.message}\n${offline(source, folder)}` }
          : result.left,
      )
    shell.note(`${file.name}: ${file.bytes} bytes, SHA-256 as expected`)
  }
  if (source.unpack === undefined) return
  const stage = join(folder, STAGE)
  await rm(stage, { recursive: true, force: true })
  const archive = join(folder, source.files[0].name)
  await get(unpack(archive, source.unpack, stage, (done, total) => shell.progress('unpacking', done, total)))
  shell.clear()
  for (const entry of await readdir(stage)) {
    await rm(join(folder, entry), { recursive: true, force: true })
    await rename(join(stage, entry), join(folder, entry))
  }
  await rm(stage, { recursive: true })
  await rm(archive)
}

/** `mixtrain data`: brings a public data set. */
export const dataCommand: Command<typeof options, 'NAME' | 'DIR'> = {
  name: 'data',
  summary: 'fetch a public data set',
  description: `Fetches a public data set from its official address into a folder that --data takes, checks it (SHA-256) and unpacks it. A download that was interrupted goes on where it was. There are:\n${names.map((n) => `  ${n}: ${sources[n].about}`).join('\n')}`,
  takes: { NAME: names.join(', '), DIR: 'folder for its files; made if absent' },
  options,
  examples: [
    'mixtrain data mnist data/mnist',
    'mixtrain train --data data/mnist',
    'mixtrain data cifar-10 data/cifar-10',
  ],
  run: ({ NAME, DIR }, { mirror, json: asJson }, shell) =>
    attempt(() =>
      shell.interruptible(async () => {
        if (!Object.hasOwn(sources, NAME)) raise(usage(unknownName('data set', NAME, names)))
        const name = NAME as SourceName
        await get(makeDirectory(DIR))
        const there = await complete(name, DIR)
        if (!there) {
          await fill(name, DIR, mirror, shell)
          if (!(await complete(name, DIR))) {
            const loaded = await get(loadFolder(files)(DIR))
            const { train, test } = sources[name].count
            raise(
              fileError(
                DIR,
                `expected ${train} training and ${test} test images of ${name}, found ${loaded.train.count} and ${loaded.test.count} of ${loaded.train.name}`,
              ),
            )
          }
        }
        const { train, test } = sources[name].count
        shell.print(
          asJson
            ? json({ name, folder: DIR, train, test, fetched: !there })
            : `${name}${there ? ' is there already' : ''}: ${train} training and ${test} test images. Use it with --data ${shown(DIR)}`,
        )
      }),
    ),
}
