import { createHash } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { download } from '../../src/data/download.ts'
import type { Published } from '../../src/data/sources.ts'
import { inFolder } from '../cli/run.ts'
import { left, right } from '../shared.ts'

const CONTENT = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7 + (i >> 8)) % 256)
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const file: Published = { name: 'x.bin', bytes: CONTENT.length, sha256: sha256(CONTENT) }

type Answer = (request: IncomingMessage, response: ServerResponse) => void

/** A server for as long as `use` runs; the headers `range` of the requests, and the bytes that were sent. */
const serving = async (
  answer: Answer,
  use: (address: string, seen: { readonly ranges: (string | undefined)[] }) => Promise<void>,
): Promise<void> => {
  const ranges: (string | undefined)[] = []
  const server = createServer((request, response) => {
    ranges.push(request.headers.range)
    answer(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/data`, { ranges })
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
}

const from = (request: IncomingMessage): number => Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)

/** A server that knows ranges. */
const ranged: Answer = (request, response) => {
  const start = from(request)
  if (start >= CONTENT.length) return void response.writeHead(416).end()
  const head = start > 0 ? { 'content-range': `bytes ${start}-${CONTENT.length - 1}/${CONTENT.length}` } : {}
  response.writeHead(start > 0 ? 206 : 200, { 'content-length': CONTENT.length - start, ...head })
  response.end(CONTENT.subarray(start))
}

/** One that sends all, whatever it is asked for. */
const simple: Answer = (_, response) => void response.writeHead(200).end(CONTENT)

test(
  'a file arrives whole, with its progress',
  inFolder(async (folder) => {
    const path = join(folder, 'x.bin')
    await serving(ranged, async (address, { ranges }) => {
      const seen: number[] = []
      right(await download([address], file, path, (done, total) => void seen.push(done / total))())
      assert.equal(new Uint8Array(readFileSync(path)), CONTENT)
      assert.not.ok(existsSync(`${path}.part`))
      assert.is(seen.at(-1), 1)
      assert.equal(
        seen,
        [...seen].sort((a, b) => a - b),
      )
      right(await download([address], file, path)())
      assert.equal(ranges, [undefined], 'a whole file is not fetched again')
    })
  }),
)

test(
  'an interrupted download goes on where it was',
  inFolder(async (folder) => {
    const path = join(folder, 'x.bin')
    await serving(ranged, async (address, { ranges }) => {
      let stopped = 0
      const stop = async (done: number) => {
        stopped = done
        if (done > 1000) throw new RangeError('stop')
      }
      try {
        await download([address], file, path, stop)()
        assert.unreachable()
      } catch (cause) {
        assert.instance(cause, RangeError)
      }
      assert.is(readFileSync(`${path}.part`).length, stopped)
      assert.not.ok(existsSync(path))
      const later: number[] = []
      right(await download([address], file, path, (done) => void later.push(done))())
      assert.equal(new Uint8Array(readFileSync(path)), CONTENT)
      if (stopped < CONTENT.length) {
        assert.equal(ranges, [undefined, `bytes=${stopped}-`])
        assert.ok(later[0] > stopped)
      }
    })
  }),
)

test(
  'a part from before is continued, replaced where ranges are unknown, dropped where it is too long',
  inFolder(async (folder) => {
    const path = join(folder, 'x.bin')
    const fetched = async (part: Uint8Array, answer: Answer) => {
      writeFileSync(`${path}.part`, part)
      writeFileSync(path, 'something else')
      let requests: readonly (string | undefined)[] = []
      await serving(answer, async (address, { ranges }) => {
        right(await download([address], file, path)())
        requests = ranges
      })
      assert.equal(new Uint8Array(readFileSync(path)), CONTENT)
      return requests
    }
    const half = CONTENT.subarray(0, 99_999)
    assert.equal(await fetched(half, ranged), ['bytes=99999-'])
    assert.equal(await fetched(half, simple), ['bytes=99999-'])
    assert.equal(await fetched(CONTENT, ranged), [])
    assert.equal(await fetched(new Uint8Array(CONTENT.length + 1), ranged), [undefined])
    const unsatisfied: Answer = (request, response) =>
      request.headers.range === undefined ? simple(request, response) : void response.writeHead(416).end()
    assert.equal(await fetched(half, unsatisfied), ['bytes=99999-', undefined])
  }),
)

test(
  'truncated answers, wrong content, errors of the server: said, and nothing of that name is left',
  inFolder(async (folder) => {
    const path = join(folder, 'x.bin')
    const failed = async (answer: Answer, expected: Published = file): Promise<string> => {
      let message = ''
      await serving(answer, async (address) => {
        message = left(await download([address], expected, path)()).replaceAll(address, 'URL')
      })
      assert.not.ok(existsSync(path))
      return message
    }
    const cut: Answer = (_, response) => {
      response.writeHead(200, { 'content-length': CONTENT.length })
      response.write(CONTENT.subarray(0, 5000), () => response.destroy())
    }
    assert.match(
      await failed(cut),
      /URL\/x.bin: interrupted after \d+ of 200000 bytes: .*; the same command goes on from there/,
    )
    // Whatever had arrived is kept and used.
    await serving(ranged, async (address, { ranges }) => {
      right(await download([address], file, path)())
      assert.ok(ranges[0] === undefined || /^bytes=\d+-$/.test(ranges[0]))
    })
    assert.equal(new Uint8Array(readFileSync(path)), CONTENT)
    rmSync(path)
    const short: Answer = (_, response) => void response.writeHead(200).end(CONTENT.subarray(0, 100))
    assert.match(await failed(short), /URL\/x.bin: ended after 100 of 200000 bytes; the same command goes on/)
    rmSync(`${path}.part`)
    const wrong = { ...file, sha256: sha256(Uint8Array.of(1)) }
    assert.ok(
      (await failed(ranged, wrong)).includes(
        `URL/x.bin: expected SHA-256 ${wrong.sha256}, found ${file.sha256}; the content was thrown away`,
      ),
    )
    assert.not.ok(existsSync(`${path}.part`))
    assert.match(
      await failed((_, response) => void response.writeHead(404).end('no')),
      /URL\/x.bin: the server answers 404 Not Found/,
    )
    assert.match(await failed(simple, { ...file, bytes: 1000 }), /URL\/x.bin: expected 1000 bytes, found more/)
    const closed = left(await download(['http://127.0.0.1:9/'], file, path)())
    assert.match(closed, /could not be fetched.\nhttp:\/\/127.0.0.1:9\/x.bin: no answer: ./)
  }),
)

test(
  'the next address is tried when one has not got it, or has something else',
  inFolder(async (folder) => {
    const path = join(folder, 'x.bin')
    const spoilt = CONTENT.slice().reverse()
    await serving(
      (_, response) => void response.writeHead(403).end(),
      (forbidden) =>
        serving(
          (_, response) => void response.writeHead(200).end(spoilt),
          (other) =>
            serving(ranged, async (good) => {
              right(await download([forbidden, other, good], file, path)())
            }),
        ),
    )
    assert.equal(new Uint8Array(readFileSync(path)), CONTENT)
  }),
)

test.run()
