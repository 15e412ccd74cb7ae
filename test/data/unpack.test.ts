import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { nodeModule } from '../../src/core/runtime.ts'
import { unpack } from '../../src/data/unpack.ts'
import { inFolder } from '../cli/run.ts'
import { left, right } from '../shared.ts'

type Format = 'tar.gz' | 'zip'
type Files = Readonly<Record<string, Uint8Array>>

interface TarEntry {
  readonly header: { readonly name: string; readonly type?: string; readonly size: number; readonly linkname?: string }
  readonly body?: Uint8Array
}
const tar = async (entries: readonly TarEntry[]): Promise<Uint8Array> => {
  const { packTar } = await nodeModule<{ readonly packTar: (e: readonly TarEntry[]) => Promise<Uint8Array> }>(
    'modern-tar',
  )
  return gzipSync(await packTar(entries))
}
const packed = async (format: Format, content: Files): Promise<Uint8Array> => {
  if (format === 'tar.gz')
    return tar(Object.entries(content).map(([name, body]) => ({ header: { name, size: body.length }, body })))
  const { zipSync } = await nodeModule<{ readonly zipSync: (f: Files) => Uint8Array }>('fflate')
  return zipSync(content)
}

const bytes = (n: number, seed: number): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => (i * seed + (i >> 5)) % 251)
const CONTENT: Files = {
  'set/a.bin': bytes(70_000, 3),
  'set/deep/er/b.txt': bytes(10, 5),
  './set/empty': new Uint8Array(),
  'other/c': bytes(5, 7),
}

const formats: readonly Format[] = ['tar.gz', 'zip']

test(
  'the folder is taken out, and nothing beside it',
  inFolder(async (folder) => {
    for (const format of formats) {
      const archive = join(folder, `x.${format}`)
      const target = join(folder, format, 'target')
      writeFileSync(archive, await packed(format, CONTENT))
      const seen: number[] = []
      right(await unpack(archive, { format, folder: 'set' }, target, (done, total) => void seen.push(done / total))())
      assert.is(seen.at(-1), 1)
      assert.equal(new Uint8Array(readFileSync(join(target, 'a.bin'))), CONTENT['set/a.bin'])
      assert.equal(new Uint8Array(readFileSync(join(target, 'deep/er/b.txt'))), CONTENT['set/deep/er/b.txt'])
      assert.is(readFileSync(join(target, 'empty')).length, 0)
      assert.equal(readdirSync(target).sort(), ['a.bin', 'deep', 'empty'])
      assert.match(
        left(await unpack(archive, { format, folder: 'sets' }, target)()),
        /expected a folder sets, found none$/,
      )
    }
  }),
)

test(
  'names that lead out of the archive are refused, and nothing is written there',
  inFolder(async (folder) => {
    for (const format of formats)
      for (const name of [
        '../evil',
        'set/../../evil',
        'set/deep/../../../evil',
        join(tmpdir(), 'mixtrain-evil'),
        'C:/evil',
        'set\\..\\evil',
        '..',
      ]) {
        const inner = join(folder, 'a', 'b')
        mkdirSync(inner, { recursive: true })
        const archive = join(folder, 'x')
        writeFileSync(archive, await packed(format, { 'set/good': bytes(3, 1), [name]: bytes(3, 2) }))
        const message = left(await unpack(archive, { format, folder: 'set' }, join(inner, 'target'))())
        assert.ok(message.includes('which leads out of it'), `${format} ${name}: ${message}`)
        for (const place of [folder, join(folder, 'a'), inner, tmpdir()])
          assert.not.ok(
            readdirSync(place).some((entry) => entry.endsWith('evil')),
            place,
          )
      }
  }),
)

test(
  'links are refused',
  inFolder(async (folder) => {
    const archive = join(folder, 'x.tar.gz')
    for (const type of ['symlink', 'link']) {
      const link = { header: { name: 'set/inner', type, size: 0, linkname: '/etc' } }
      writeFileSync(archive, await tar([link, { header: { name: 'set/inner/passwd', size: 2 }, body: bytes(2, 1) }]))
      const message = left(await unpack(archive, { format: 'tar.gz', folder: 'set' }, join(folder, 'target'))())
      assert.ok(message.endsWith(`expected files and folders, found "set/inner", a ${type}`), message)
      assert.not.ok(existsSync(join(folder, 'target', 'inner')))
    }
  }),
)

test(
  'a damaged or truncated archive is an error',
  inFolder(async (folder) => {
    const archive = join(folder, 'x')
    for (const format of formats) {
      const whole = await packed(format, { 'set/a': bytes(50_000, 3), 'set/b': bytes(50_000, 17) })
      for (const part of [whole.subarray(0, 200), new Uint8Array(300).fill(65), new Uint8Array()]) {
        writeFileSync(archive, part)
        const message = left(await unpack(archive, { format, folder: 'set' }, join(folder, 'target'))())
        assert.match(message, /damaged or truncated|found none/, `${format} ${part.length}`)
      }
    }
    assert.match(
      left(await unpack(join(folder, 'absent'), { format: 'zip', folder: 'set' }, folder)()),
      /there is no such file/,
    )
  }),
)

test.run()
