import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { modelOf, tensor } from '../format/onnx-models.ts'
import { inFolder, json, mixtrain, refused } from './run.ts'

/** A network of two inputs and two outputs that needs splits, and properties of it. */
const files = (folder: string) => {
  const network = join(folder, 'network.onnx')
  const lines = [
    ['Gemm', 'x w0 b0', 'z0'],
    ['Relu', 'z0', 'h0'],
    ['Gemm', 'h0 w1 b1', 'z1'],
    ['Relu', 'z1', 'h1'],
    ['Gemm', 'h1 w2 b2', 'y'],
  ] as const
  const sizes = [2, 8, 8, 2]
  const weights = [0, 1, 2].flatMap((l) => [
    tensor(`w${l}`, [sizes[l], sizes[l + 1]], 40 + l),
    tensor(`b${l}`, [sizes[l + 1]], 50 + l),
  ])
  writeFileSync(network, modelOf([1, 2], lines, weights))
  const property = (name: string, rows: string) => {
    const declared = ['X_0', 'X_1', 'Y_0', 'Y_1'].map((v) => `(declare-const ${v} Real)`).join('\n')
    const box = [0, 1].map((i) => `(assert (>= X_${i} -1))\n(assert (<= X_${i} 1.0))`).join('\n')
    writeFileSync(join(folder, name), `${declared}\n${box}\n(assert ${rows})\n`)
    return join(folder, name)
  }
  return { network, property }
}

test(
  'a verdict is proved to a stranger, who has the files and no other',
  inFolder(async (folder) => {
    const { network, property } = files(folder)
    const proof = join(folder, 'proof.gz')
    for (const semantics of ['real', 'deployed']) {
      const holds = property('holds.vnnlib', '(or (and (>= Y_0 4.0) (>= Y_1 4.0)) (<= Y_0 -6.0))')
      const { out, err } = await mixtrain(['verify', network, holds, '--proof', proof, '--semantics', semantics])
      assert.is(out, 'unsat\n', err)
      assert.match(err, /a proof of \d+ bytes/)
      const about = await json(['check', proof, '--model', network, '--property', holds])
      assert.is(about.valid, true)
      assert.is(about.verdict, 'unsat')
      assert.is(about.semantics, semantics)
      // About another property, another network, without files, and with a leaf less.
      const other = property('other.vnnlib', '(<= Y_0 -5.5)')
      await refused(['check', proof, '--model', network, '--property', other], 1, 'another property')
      await refused(['check', proof, '--model', holds, '--property', holds], 1, 'another network')
      await refused(['check', proof], 2, '--model')
      await refused(['check', proof, '--model', network], 1, 'not given')
      const lines = gunzipSync(readFileSync(proof)).toString().split('\n')
      writeFileSync(proof, gzipSync([...lines.slice(0, -2), ''].join('\n')))
      await refused(['check', proof, '--model', network, '--property', holds], 1, 'ends before its tree does')
    }
    const fails = property('fails.vnnlib', '(>= Y_0 -4.0)')
    const { out } = await mixtrain(['verify', network, fails, '--proof', proof])
    assert.match(out, /^sat\n/)
    assert.is((await json(['check', proof, '--model', network, '--property', fails])).verdict, 'sat')
    // The verdict is there all the same.
    const executed = await mixtrain([
      'verify',
      network,
      fails,
      '--semantics',
      'deployed',
      '--proof',
      join(folder, 'none'),
    ])
    assert.is(executed.code, 2)
    assert.match(executed.out, /^sat\n/)
    assert.match(executed.err, /no proof of the verdict sat was found: .*--semantics real/)
    assert.not(existsSync(join(folder, 'none')))
  }),
)

test(
  'what the checker does not read is said before anything is searched',
  inFolder(async (folder) => {
    const { property } = files(folder)
    const network = join(folder, 'smooth.onnx')
    writeFileSync(network, modelOf([1, 2], [['Sigmoid', 'x', 'y']]))
    const holds = property('holds.vnnlib', '(<= Y_0 -1.0)')
    const proof = join(folder, 'proof.gz')
    await refused(['verify', network, holds, '--proof', proof], 2, 'the op Sigmoid')
    await refused(['verify', network, holds, '--proof', proof, '--rounding', 'none'], 2, '--proof', 'outward')
  }),
)

test(
  'every verified image has a proof, whose folder is checked as a whole; an edited one is refused',
  inFolder(async (folder) => {
    const run = join(folder, 'run')
    const [model, proofs] = [join(run, 'model.onnx'), join(folder, 'proofs')]
    await json(['train', '--limit', '600,20', '--epochs', '2', '--seed', '3', '--device', 'wasm', '--output', run])
    const asked = ['evaluate', model, '--epsilon', '0.01', '--limit', '8']
    const { count, vra } = await json([...asked, '--complete', '5', '--proof', proofs])
    const names = readdirSync(proofs)
    assert.is(names.length, Math.round(Number(count) * Number(vra)))
    assert.ok(names.length > 1)
    const about = await json(['check', proofs, '--model', model, '--data', 'digits'])
    assert.is(about.valid, true)
    assert.is(about.images, names.length)
    assert.equal(about.claims, ['epsilon 0.01 in [0, 1], real'])
    await refused(['check', proofs, '--model', join(run, 'model.safetensors')], 1, 'network file is damaged')
    await refused(['check', proofs, '--model', files(folder).network], 1, 'another network')
    await refused([...asked, '--proof', proofs, '--rounding', 'none'], 2, 'round outward')
    await refused(
      ['evaluate', join(run, 'model.safetensors'), '--epsilon', '0.01', '--limit', '8', '--proof', proofs],
      1,
      'model.onnx of a run',
    )
    // The claim of one image with the pixels of another's file, a pixel or the radius changed.
    const [first] = names
    const text = gunzipSync(readFileSync(join(proofs, first))).toString()
    const edited = (from: RegExp, to: string) => writeFileSync(join(proofs, first), gzipSync(text.replace(from, to)))
    edited(/"pixels":"00000000/, '"pixels":"0000803f')
    await refused(['check', proofs, '--model', model, '--data', 'digits'], 1, 'does not have')
    edited(/"epsilon":"0.01"/, '"epsilon":"0.9"')
    await refused(['check', proofs, '--model', model], 1, first)
  }),
)

test.run()
