import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import { encodeModel } from '../../src/format/model.ts'
import { decodeVnnlib } from '../../src/format/vnnlib.ts'
import { networks } from '../../src/nn/networks.ts'
import { right, shared, skipped } from '../shared.ts'
import { propertyOf } from '../verify/verify-help.ts'
import { inFolder, json, mixtrain, refused } from './run.ts'

const model = shared('models/mnistfc_256x2.onnx')
const instance = (name: string) => shared(`vnnlib/${name}.vnnlib`) as string

/** Points of a counterexample in the format of VNN-COMP. */
const points = (text: string, name: string): readonly number[] =>
  [...text.matchAll(new RegExp(`\\(${name}_(\\d+) ([^\\s()]+)\\)`, 'g'))].map(([, i, v], k) => {
    assert.is(Number(i), k)
    return Number(v)
  })

if (model === undefined) skipped('verify on the command line', '../shared is absent')
else {
  test('the verdict alone is the first line; sat is followed by a counterexample that is one', async () => {
    const unsat = await mixtrain(['verify', model, instance('prop_10_0.03'), '--threads', '2'])
    assert.is(unsat.code, 0)
    assert.is(unsat.out, 'unsat\n')
    assert.ok(!unsat.err.includes('nearest'))
    assert.match(unsat.err, /1 subproblem bounded in .* s; lower bound 0\.98/)
    const { code, out } = await mixtrain(['verify', model, instance('prop_5_0.05'), '--threads', '2', '--seed', '3'])
    assert.is(code, 0)
    const [verdict, ...rest] = out.split('\n')
    assert.is(verdict, 'sat')
    assert.match(rest.join('\n'), /^\(\(X_0 [^()]+\)\n(?: \([XY]_\d+ [^()]+\)\n)* \(Y_9 [^()]+\)\)\n$/)
    const [x, y] = [points(out, 'X'), points(out, 'Y')]
    assert.equal([x.length, y.length], [784, 10])
    const [c] = propertyOf('prop_5_0.05.vnnlib').cases
    assert.ok(x.every((v, i) => v >= c.lower[i] && v <= c.upper[i]))
    assert.ok(c.unsafe.some((u) => u.every((k) => k.coefficients.reduce((s, a, i) => s + a * y[i], 0) <= k.bound)))
  })

  test('--json is one document that says how bounds round', async () => {
    const sat = await json(['verify', model, instance('prop_7_0.05')])
    assert.is(sat.verdict, 'sat')
    assert.equal([sat.rounding, sat.semantics], ['outward', 'real'])
    assert.is((sat.counterexample as { x: number[] }).x.length, 784)
    const unsat = await json(['verify', model, instance('prop_12_0.03'), '--rounding', 'none', '--threads', '1'])
    assert.equal([unsat.verdict, unsat.rounding, unsat.safety], ['unsat', 'none', 1e-5])
    assert.is(unsat.counterexample, null)
    const deployed = await json(['verify', model, instance('prop_12_0.03'), '--semantics', 'deployed'])
    assert.equal([deployed.verdict, deployed.rounding, deployed.semantics], ['unsat', 'outward', 'deployed'])
    assert.ok((deployed.lower as number) > 0 && (deployed.lower as number) < (unsat.lower as number) + 1e-3)
    assert.ok((unsat.lower as number) > 0)
    assert.is(unsat.device, 'wasm')
    assert.is(unsat.threads, 1)
  })

  test('a time-out is a verdict', async () => {
    const { code, out } = await mixtrain(['verify', model, instance('prop_13_0.03'), '--timeout', '0.001'])
    assert.is(code, 0)
    assert.is(out, 'timeout\n')
  })

  test(
    'what cannot be read, or does not go together, names the file',
    inFolder(async (folder) => {
      const property = instance('prop_10_0.03')
      const bad = join(folder, 'bad.vnnlib')
      writeFileSync(bad, '(declare-const X_0 Real)\n(assert (<= X_0 1')
      const small = join(folder, 'small.vnnlib')
      writeFileSync(
        small,
        '(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= Y_0 0))',
      )
      const junk = join(folder, 'junk.onnx')
      writeFileSync(junk, 'neither')
      const absent = join(folder, 'absent')
      await Promise.all([
        refused(['verify', model, bad], 1, `${bad} (line 2`, 'never closed'),
        refused(['verify', model, small], 1, small, '1 inputs and 1 outputs', '784 and 10'),
        refused(['verify', junk, property], 1, `${junk} (`),
        refused(['verify', absent, property], 1, `${absent}: there is no such file`),
        refused(['verify', model, absent], 1, `${absent}: there is no such file`),
        refused(['verify', model], 2, "missing required argument 'PROPERTY'"),
        refused(['verify', model, property, '--timeout', '0'], 2, '--timeout: expected a number above 0'),
        refused(['verify', model, property, '--rounding', 'none', '--semantics', 'real'], 2, 'add --rounding outward'),
        refused(['verify', model, property, '--restarts', '-1'], 2, '--restarts: expected a whole number from 0'),
      ])
      // Too little memory for anything is no error of the input.
      const little = await mixtrain(['verify', model, property, '--memory', '0.1'])
      assert.equal([little.code, little.out], [0, 'unknown\n'])
      assert.match(little.err, /memory budget/)
    }),
  )
}

test(
  'a model of a run; an output that is constantly unsafe has a counterexample in its box',
  inFolder(async (folder) => {
    const network = networks.small({ input: [1, 8, 8], classes: 3 })
    const path = join(folder, 'model.safetensors')
    writeFileSync(path, encodeModel({ network, parameters: network.init(key(1)), provenance: undefined }))
    const text = (bound: number) =>
      [
        ...Array.from(
          { length: 64 },
          (_, i) => `(declare-const X_${i} Real)(assert (>= X_${i} 0.2))(assert (<= X_${i} 0.25))`,
        ),
        ...[0, 1, 2].map((i) => `(declare-const Y_${i} Real)`),
        `(assert (<= Y_0 ${bound}))`,
      ].join('\n')
    const property = join(folder, 'p.vnnlib')
    for (const [bound, verdict] of [
      [1000, 'sat'],
      [-1000, 'unsat'],
    ] as const) {
      writeFileSync(property, text(bound))
      right(decodeVnnlib(text(bound), property))
      assert.is((await json(['verify', path, property])).verdict, verdict)
    }
  }),
)

test.run()
