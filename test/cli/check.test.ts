import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import { encodeModel } from '../../src/format/model.ts'
import { networks } from '../../src/nn/networks.ts'
import { type Certificate, decodeCertificate, encodeCertificate } from '../../src/robust/certificate.ts'
import { right, skipped } from '../shared.ts'
import { inFolder, json, mixtrain, refused } from './run.ts'

const network = networks.small({ input: [1, 28, 28], classes: 10 })
const save = (path: string, seed: number) =>
  writeFileSync(path, encodeModel({ network, parameters: network.init(key(seed)), provenance: undefined }))

test(
  'evaluate writes a certificate, check proves it again; what is not certified is refused',
  inFolder(async (folder) => {
    const [model, other, file] = ['model.safetensors', 'other.safetensors', 'c.json'].map((name) => join(folder, name))
    save(model, 3)
    save(other, 4)
    const method = ['--epsilon', '1/20000', '--method', 'ibp', '--limit', '40', '--device', 'wasm']
    const report = await json(['evaluate', model, ...method, '--semantics', 'deployed', '--certificate', file])
    assert.is(report.rounding, 'outward')
    assert.is(report.semantics, 'deployed')
    const certificate = right(await decodeCertificate(readFileSync(file), file)())
    const { images, ...about } = certificate
    assert.ok(images.length > 0 && images.length <= Number(report.vra) * 40)
    assert.equal([about.epsilon, about.method, about.semantics, about.count], ['1/20000', 'ibp', 'deployed', 40])
    const checked = await json(['check', file])
    assert.equal([checked.valid, checked.verified, checked.count], [true, images.length, 40])
    assert.match((await mixtrain(['check', file])).out, /are verified, epsilon 1\/20000/)

    const forged = async (name: string, change: Partial<Certificate>) => {
      const path = join(folder, name)
      writeFileSync(path, await encodeCertificate({ ...certificate, ...change }))
      return path
    }
    const [first, ...rest] = images
    const edited = join(folder, 'edited.json')
    writeFileSync(edited, readFileSync(file, 'utf8').replace('"1/20000"', '"1/2000"'))
    const raised = first.margins.map((m) => m + 0.01)
    await Promise.all([
      refused(['check', edited], 1, edited, 'sha256', 'edited'),
      refused(['check', file, '--model', other], 1, file, 'model.sha256', 'not the model'),
      refused(['check', await forged('a.json', { epsilon: '0.3' })], 1, 'not reached'),
      refused(
        ['check', await forged('b.json', { images: [{ ...first, margins: raised }, ...rest] })],
        1,
        `image ${first.index}`,
        'not reached',
      ),
      refused(
        ['check', await forged('c2.json', { images: [{ ...first, label: (first.label + 1) % 10 }] })],
        1,
        'label',
      ),
      refused(['check', await forged('d.json', { count: 10 ** 6 })], 1, 'count'),
      refused(
        ['check', await forged('e.json', { data: { ...certificate.data, sha256: certificate.model.sha256 } })],
        1,
        'data.sha256',
        'not the images',
      ),
      refused(['check', model], 1, model, 'not JSON'),
      refused(['check', join(folder, 'absent')], 1, 'no such file'),
    ])
  }),
)

test(
  'check reads regular files only, whatever a certificate names, and goes by their content',
  inFolder(async (folder) => {
    if (process.platform === 'win32') return skipped('special files', 'Windows has no mkfifo')
    const at = (name: string) => join(folder, name)
    // The name of the other format.
    save(at('model.onnx'), 3)
    await json([
      ...['evaluate', at('model.onnx'), '--epsilon', '1/20000', '--method', 'ibp', '--limit', '9', '--device', 'wasm'],
      ...['--certificate', at('c.json')],
    ])
    assert.is((await json(['check', at('c.json')])).valid, true)
    assert.equal(readdirSync(folder).sort(), ['c.json', 'model.onnx'])

    const certificate = right(await decodeCertificate(readFileSync(at('c.json')), 'c.json')())
    execFileSync('mkfifo', [at('pipe')])
    symlinkSync('circle', at('circle'))
    symlinkSync('/dev/zero', at('zero'))
    mkdirSync(at('data'))
    execFileSync('mkfifo', [at('data/train-labels-idx1-ubyte')])
    for (const name of ['train-images-idx3', 't10k-images-idx3', 't10k-labels-idx1'])
      symlinkSync('/dev/zero', at(`data/${name}-ubyte`))
    writeFileSync(at('sparse'), '')
    truncateSync(at('sparse'), 2 ** 40)
    const named = async (name: string, change: Partial<Certificate>) => {
      writeFileSync(at(name), await encodeCertificate({ ...certificate, ...change }))
      return at(name)
    }
    const cases: readonly (readonly [path: string, says: string])[] = [
      ['/dev/zero', 'found a device'],
      [at('zero'), 'found a device'],
      [at('pipe'), 'found a named pipe'],
      [folder, 'found a folder'],
      [at('circle'), 'symbolic links'],
      [at('sparse'), 'expected at most'],
      [at('n'.repeat(300)), 'too long'],
      [join(at('c.json'), 'x'), 'expected a folder, found a file'],
    ]
    for (const [i, [path, says]] of cases.entries()) {
      const model = { ...certificate.model, file: path }
      await refused(['check', await named(`m${i}.json`, { model })], 1, path, says)
      await refused(['check', path], 1, path, says)
    }
    await refused(['check', at('c.json'), '--data', at('data')], 1, 'train-labels-idx1-ubyte', 'named pipe')
    const data = { ...certificate.data, source: at('pipe') }
    await refused(['check', await named('d.json', { data })], 1, at('pipe'), 'expected a folder, found a file')
  }),
)

test.run()
