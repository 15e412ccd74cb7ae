import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import { encodeModel } from '../../src/format/model.ts'
import { networks } from '../../src/nn/networks.ts'
import { type Certificate, decodeCertificate, encodeCertificate } from '../../src/robust/certificate.ts'
import { right } from '../shared.ts'
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
    const certificate = right(await decodeCertificate(readFileSync(file, 'utf8'), file)())
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

test.run()
