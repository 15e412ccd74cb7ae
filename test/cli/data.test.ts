import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { sources } from '../../src/data/sources.ts'
import { shared, skipped } from '../shared.ts'
import { inFolder, mixtrain, refused } from './run.ts'

/** The files of a folder on a local server; the names that were asked for. */
const mirrored = async (
  folder: string | undefined,
  use: (url: string, asked: string[]) => Promise<void>,
): Promise<void> => {
  const asked: string[] = []
  const server = createServer((request, response) => {
    const name = basename(request.url ?? '')
    asked.push(name)
    if (folder === undefined || !existsSync(join(folder, name))) return void response.writeHead(404).end()
    response.writeHead(200).end(readFileSync(join(folder, name)))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, asked)
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
}

test(
  'data fetches MNIST, and knows that it is there',
  inFolder(async (folder) => {
    const official = shared('data/mnist')
    if (official === undefined) return skipped('data fetches MNIST', 'shared/data/mnist is absent')
    const target = join(folder, 'a', 'mnist')
    await mirrored(official, async (url, asked) => {
      // One file is there from before, whole; another one has been changed.
      mkdirSync(target, { recursive: true })
      const [whole, spoilt, ...others] = sources.mnist.files.map((f) => f.name)
      copyFileSync(join(official, whole), join(target, whole))
      writeFileSync(join(target, spoilt), 'spoilt')
      const first = await mixtrain(['data', 'mnist', target, '--mirror', url, '--json'])
      assert.is(first.code, 0, first.err)
      assert.equal(JSON.parse(first.out), { name: 'mnist', folder: target, train: 60000, test: 10000, fetched: true })
      assert.equal(asked, [spoilt, ...others])
      for (const name of [whole, spoilt, ...others])
        assert.equal(readFileSync(join(target, name)), readFileSync(join(official, name)))
      const again = await mixtrain(['data', 'mnist', target, '--mirror', url])
      assert.match(again.out, /^mnist is there already: 60000 training and 10000 test images. Use it with --data /)
      assert.is(asked.length, 1 + others.length)
    })
  }),
)

test(
  'what cannot be fetched is explained, with what to do offline',
  inFolder(async (folder) => {
    const target = join(folder, 'c')
    await mirrored(undefined, (url) =>
      refused(
        ['data', 'cifar-10', target, '--mirror', url],
        1,
        `${url}cifar-10-binary.tar.gz: the server answers 404`,
        'Without a connection: fetch on another machine https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, put it into',
        'run the same command again: it checks and unpacks',
      ),
    )
    const spoilt = join(folder, 'spoilt')
    mkdirSync(spoilt)
    writeFileSync(join(spoilt, 'train-images-idx3-ubyte.gz'), new Uint8Array(9912422))
    await mirrored(spoilt, (url) =>
      refused(['data', 'mnist', join(folder, 'm'), '--mirror', url], 1, 'expected SHA-256 440fcabf', 'thrown away'),
    )
    await refused(['data', 'minst', target], 2, 'no data set "minst"; the nearest is mnist')
    await refused(['data', 'mnist', target, '--mirror', 'ftp://x'], 2, '--mirror: expected an http or https address')
    writeFileSync(join(folder, 'file'), '')
    await refused(['data', 'mnist', join(folder, 'file')], 1, 'there is something of that name already')
  }),
)

test.run()
