import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { exists, files, makeDirectory, regularFiles, writeAtomic } from '../../src/data/files.ts'
import { left, right, root, skipped } from '../shared.ts'

const inFolder = (body: (folder: string) => Promise<void>) => async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mixtrain-'))
  try {
    await body(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test(
  'what is written is read, listed and there',
  inFolder(async (folder) => {
    const path = join(folder, 'a', 'b', 'x.bin')
    assert.is(right(await exists(path)()), false)
    right(await makeDirectory(join(folder, 'a', 'b'))())
    right(await makeDirectory(join(folder, 'a', 'b'))())
    for (const bytes of [Uint8Array.of(1, 2, 3), new Uint8Array(100_000).fill(7), new Uint8Array()]) {
      right(await writeAtomic(path, bytes)())
      assert.equal(right(await files.read(path)()), bytes)
    }
    right(await writeAtomic(join(folder, 'a', 'b', 'A'), new Uint8Array())())
    assert.equal(right(await files.list(join(folder, 'a', 'b'))()), ['A', 'x.bin'])
    assert.is(right(await exists(path)()), true)
  }),
)

test(
  'what is no file is not replaced by one',
  inFolder(async (folder) => {
    const pipe = join(folder, 'pipe')
    if (spawnSync('mkfifo', [pipe]).status !== 0) return skipped('writing to a named pipe', 'there is no mkfifo here')
    assert.match(left(await writeAtomic(pipe, new Uint8Array(3))()), /expected a file, found a named pipe/)
    assert.ok(statSync(pipe).isFIFO())
  }),
)

test('a device that gives bytes without end is refused', async () => {
  if (process.platform === 'win32') return skipped('devices', 'Windows has none that are files')
  for (const device of ['/dev/zero', '/dev/urandom', '/dev/null'])
    assert.match(left(await files.read(device)()), /expected a file, found a device/)
})

test(
  'errors name the path and the reason',
  inFolder(async (folder) => {
    const absent = join(folder, 'absent')
    assert.is(left(await files.read(absent)()), `${absent}: there is no such file or folder`)
    assert.is(left(await files.list(absent)()), `${absent}: there is no such file or folder`)
    assert.is(left(await files.read(folder)()), `${folder}: expected a file, found a folder`)
    const path = join(absent, 'x')
    assert.is(left(await writeAtomic(path, new Uint8Array())()), `${path}: there is no such file or folder`)
    right(await writeAtomic(absent, new Uint8Array())())
    assert.is(left(await files.list(absent)()), `${absent}: expected a folder, found a file`)
    assert.is(left(await makeDirectory(path)()), `${path}: expected a folder, found a file`)
  }),
)

test(
  'a file is read, and what a shell pipes in; whatever else there is is refused at once, by its kind',
  inFolder(async (folder) => {
    if (process.platform === 'win32') return skipped('special files', 'Windows has no mkfifo')
    const at = (name: string) => join(folder, name)
    right(await writeAtomic(at('x'), new Uint8Array(5).fill(3))())
    execFileSync('mkfifo', [at('pipe')])
    symlinkSync('pipe', at('to-pipe'))
    symlinkSync('x', at('to-x'))
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(at('socket'), resolve))
    try {
      for (const name of ['x', 'to-x']) assert.equal(right(await files.read(at(name))()), new Uint8Array(5).fill(3))
      for (const [path, kind] of [
        [at('pipe'), 'a named pipe'],
        [at('to-pipe'), 'a named pipe'],
        [at('socket'), 'a socket'],
        ['/dev/zero', 'a device'],
      ])
        assert.is(left(await files.read(path)()), `${path}: expected a file, found ${kind}`)
    } finally {
      server.close()
    }
    const script = `import { files } from ${JSON.stringify(new URL('../../src/data/files.js', import.meta.url).href)}
      const read = await files.read('/dev/stdin')()
      process.stdout.write(read._tag === 'Right' ? read.right : read.left.message)`
    const piped = spawnSync('bash', ['-c', 'echo -n bytes | node --input-type=module -e "$0"', script], {
      encoding: 'utf8',
    })
    assert.is(piped.stdout, 'bytes')
  }),
)

test(
  'regular files alone are read where others chose the names: whatever else is there is refused at once, by its kind',
  inFolder(async (folder) => {
    if (process.platform === 'win32') return skipped('special files', 'Windows has no mkfifo')
    const at = (name: string) => join(folder, name)
    const { read, list, write } = regularFiles(100)
    right(await writeAtomic(at('x'), new Uint8Array(100).fill(3))())
    right(await writeAtomic(at('long'), new Uint8Array(101))())
    right(await makeDirectory(at('folder'))())
    execFileSync('mkfifo', [at('pipe')])
    for (const [to, name] of [
      ['x', 'link'],
      ['pipe', 'to-pipe'],
      ['/dev/zero', 'to-zero'],
      ['b', 'a'],
      ['a', 'b'],
    ])
      symlinkSync(to, at(name))
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(at('socket'), resolve))
    try {
      for (const name of ['x', 'link']) assert.equal(right(await read(at(name))()), new Uint8Array(100).fill(3))
      for (const [path, says] of [
        [at('pipe'), 'expected a regular file, found a named pipe'],
        [at('to-pipe'), 'expected a regular file, found a named pipe'],
        [at('socket'), 'expected a regular file, found a socket'],
        [at('folder'), 'expected a regular file, found a folder'],
        ['/dev/zero', 'expected a regular file, found a device'],
        [at('to-zero'), 'expected a regular file, found a device'],
        [at('a'), 'its symbolic links lead round in a circle'],
        [at('long'), 'expected at most 100 bytes, found 101'],
        [at('absent'), 'there is no such file or folder'],
        [at('n'.repeat(300)), 'the name is too long'],
        [join(at('x'), 'y'), 'expected a folder, found a file'],
      ])
        assert.is(left(await read(path)()), `${path}: ${says}`)
    } finally {
      server.close()
    }
    assert.is(right(await list(folder)()).length, 9)
    assert.is(write, undefined)
  }),
)

test(
  'a name that cannot be taken leaves nothing behind',
  inFolder(async (folder) => {
    right(await makeDirectory(join(folder, 'taken', 'inner'))())
    left(await writeAtomic(join(folder, 'taken'), Uint8Array.of(1))())
    assert.equal(readdirSync(folder), ['taken'])
  }),
)

test(
  'a disk that fills up leaves the old file and nothing else',
  inFolder(async (folder) => {
    if (process.platform === 'win32') return skipped('full disk', 'there is no ulimit on Windows')
    const path = join(folder, 'model')
    right(await writeAtomic(path, Uint8Array.of(1, 2, 3))())
    const program = `import { writeAtomic } from '${import.meta.resolve('../../src/data/files.js')}'
      const result = await writeAtomic(process.argv.at(-1), new Uint8Array(10_000_000))()
      console.log(result._tag, result.left?.kind, result.left?.path, result.left?.message)`
    const evaluate = 'Deno' in globalThis ? ['eval'] : ['--input-type=module', '-e']
    const run = [process.execPath, ...evaluate, program, path]
    const command = `trap '' XFSZ && ulimit -f 100 && exec "$0" "$@"`
    const output = execFileSync('sh', ['-c', command, ...run], { encoding: 'utf8', cwd: root })
    assert.is(output.trim(), `Left file ${path} the file is larger than allowed`)
    assert.equal(readdirSync(folder), ['model'])
    assert.equal([...readFileSync(path)], [1, 2, 3])
  }),
)

test.run()
