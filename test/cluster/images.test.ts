import { existsSync, readFileSync } from 'node:fs'
import { platform } from 'node:process'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Mapping, mapped, onHost } from '../../src/cluster/images.ts'
import { team } from '../../src/cluster/team.ts'
import { type Data, dataset, fingerprintOf } from '../../src/data/dataset.ts'
import { skipped } from '../shared.ts'
import { loopback } from '../train/loopback.ts'

const set = (count: number, isByte: boolean) =>
  dataset({
    ...{ name: 'some', shape: [1, 1, 3], classes: 2, labels: new Uint8Array(count) },
    inputs: isByte
      ? Uint8Array.from({ length: 3 * count }, (_, i) => i % 251)
      : Float32Array.from({ length: 3 * count }, (_, i) => i / (3 * count)),
  })
const data = (isByte: boolean): Data => ({ train: set(1001, isByte), test: set(7, isByte) })

/** What ranks of some hosts come to have, and the files that each mapped. */
const shared = async (hosts: readonly string[], isByte: boolean, map: Mapping) => {
  const paths: string[] = []
  const noted: Mapping = (path, length) => {
    paths.push(path)
    return map(path, length)
  }
  const found = await Promise.all(
    loopback(hosts.length).map(async (mpi, rank) => onHost(await team(mpi, hosts[rank]), data(isByte), noted)),
  )
  return { found, paths }
}

const read: Mapping = async (path) => Uint8Array.from(readFileSync(path)).buffer

test('the ranks of a host have the images of its first rank, from a file that has no name afterwards', async () => {
  for (const isByte of [true, false]) {
    const { found, paths } = await shared(['a', 'b', 'a', 'b', 'c'], isByte, read)
    const wanted = await fingerprintOf(data(isByte))
    for (const own of found) assert.is(await fingerprintOf(own), wanted)
    // Two of each of two hosts; the one of the third has its own.
    assert.is(paths.length, 4)
    assert.is(new Set(paths).size, 2)
    for (const path of paths) assert.not(existsSync(path))
  }
})

test('a rank that cannot map the file keeps its own images', async () => {
  const { found, paths } = await shared(['a', 'a'], true, () => Promise.reject(new Error('no')))
  assert.is(paths.length, 2)
  for (const own of found) assert.equal(own, data(true))
})

const why =
  platform !== 'linux' && platform !== 'darwin'
    ? 'files are mapped on Linux and macOS'
    : await import('koffi').then(
        () => undefined,
        () => 'the package koffi is not installed',
      )
if (why !== undefined) skipped('files mapped into memory', why)
else
  test('a file that is mapped has its bytes, without its name too, and another length is refused', async () => {
    const { found, paths } = await shared(['a', 'a'], true, mapped)
    for (const own of found) assert.is(await fingerprintOf(own), await fingerprintOf(data(true)))
    const [first, second] = found.map(({ train }) => train.inputs)
    assert.is(first.buffer.byteLength, 3008 + 21)
    // What one writes is its own: it would be the other's fault otherwise.
    first[0] = 99
    assert.is(second[0], 0)
    await mapped(paths[0], 3029).then(
      () => assert.unreachable('it has no name'),
      () => undefined,
    )
    await mapped(fileURLToPath(import.meta.url), 3).then(
      () => assert.unreachable('it is longer'),
      (e: Error) => assert.match(e.message, /another length than 3/),
    )
  })

test.run()
