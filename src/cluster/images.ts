import { nodeModule } from '../core/runtime.ts'
import type { Data, Dataset } from '../data/dataset.ts'
import type { Team } from './team.ts'

/** Bytes of a file in memory, read page by page as they are used; processes that map one file have its pages once. */
export type Mapping = (path: string, length: number) => Promise<ArrayBuffer>

/** `mmap` by the package koffi, copy on write. @throws where there is no such package, no such file, or another length */
export const mapped: Mapping = async (path, length) => {
  const { default: koffi } = await nodeModule<{ readonly default: typeof import('koffi') }>('koffi')
  const { closeSync, fstatSync, openSync } = await nodeModule<typeof import('node:fs')>('node:fs')
  const { platform } = await nodeModule<typeof import('node:process')>('node:process')
  const mmap = koffi
    .load(platform === 'darwin' ? 'libSystem.dylib' : 'libc.so.6')
    .func('mmap', 'intptr_t', ['void *', 'size_t', 'int', 'int', 'int', 'int64_t'])
  const [readAndWrite, isPrivate] = [3, 2]
  const file = openSync(path, 'r')
  try {
    if (fstatSync(file).size !== length) throw new Error(`${path} has another length than ${length}`)
    const address = BigInt(mmap(null, length, readAndWrite, isPrivate, file, 0))
    if (address === -1n) throw new Error(`${path} cannot be mapped`)
    return koffi.view(address, length)
  } finally {
    closeSync(file)
  }
}

const ALIGNED = 64

const bytesOf = ({ inputs }: Dataset): Uint8Array => new Uint8Array(inputs.buffer, inputs.byteOffset, inputs.byteLength)

/** A data set whose inputs lie in a buffer. */
const seen = (set: Dataset, buffer: ArrayBuffer, at: number): Dataset => ({
  ...set,
  inputs:
    set.inputs instanceof Uint8Array
      ? new Uint8Array(buffer, at, set.inputs.length)
      : new Float32Array(buffer, at, set.inputs.length),
})

/** Writes a file that others of this host read, and nobody else; its path, or nothing where there is no room for it. */
const written = async (parts: readonly Uint8Array[], at: readonly number[]): Promise<string> => {
  const { open, rm } = await nodeModule<typeof import('node:fs/promises')>('node:fs/promises')
  const { tmpdir } = await nodeModule<typeof import('node:os')>('node:os')
  const path = `${tmpdir()}/mixtrain-images-${crypto.randomUUID()}`
  try {
    const file = await open(path, 'wx', 0o600)
    try {
      for (const [i, part] of parts.entries())
        for (let done = 0; done < part.length; )
          done += (await file.write(part, done, part.length - done, at[i] + done)).bytesWritten
    } finally {
      await file.close()
    }
    return path
  } catch {
    await rm(path, { force: true })
    return ''
  }
}

/**
 * Images that all ranks have alike, as the ranks of a host have them once: the first of them writes the pixels into a file without a name, which each maps, so that it reads
 * those that it needs, when it needs them. A rank that cannot map it keeps its own.
 */
export const onHost = async (
  team: Pick<Team, 'rank' | 'members' | 'collect'>,
  data: Data,
  map: Mapping = mapped,
): Promise<Data> => {
  const { rank, members, collect } = team
  const own = members[rank].host
  const neighbors = members.filter(({ host }) => host === own)
  const parts = [bytesOf(data.train), bytesOf(data.test)]
  const at = [0, Math.ceil(parts[0].length / ALIGNED) * ALIGNED]
  const isFirst = neighbors[0].rank === rank
  const path = isFirst && neighbors.length > 1 ? await written(parts, at) : ''
  try {
    const shared: string = JSON.parse((await collect(JSON.stringify(path)))[neighbors[0].rank])
    const buffer =
      shared === '' ? undefined : await map(shared, at[1] + parts[1].length).catch((): undefined => undefined)
    // It has no name any more once everyone has it.
    await collect('mapped')
    return buffer === undefined
      ? data
      : { train: seen(data.train, buffer, at[0]), test: seen(data.test, buffer, at[1]) }
  } finally {
    if (path !== '') {
      const { rm } = await nodeModule<typeof import('node:fs/promises')>('node:fs/promises')
      await rm(path, { force: true })
    }
  }
}
