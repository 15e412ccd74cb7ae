import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  decodeInstances,
  decodeOutcomes,
  encodeOutcome,
  isWrong,
  type Outcome,
  outcomeHeader,
  talliesOf,
} from '../../src/cli/instances.ts'
import { key } from '../../src/core/key.ts'
import { encodeModel } from '../../src/format/model.ts'
import { networks } from '../../src/nn/networks.ts'
import { left, right } from '../shared.ts'
import { inFolder, json, main, mixtrain, refused, runtime, start } from './run.ts'

// ---- lists and tables ---------------------------------------------------------------------------------------------------

test('lists of VNN-COMP and lists with named columns', () => {
  const plain = right(decodeInstances('onnx/a.onnx,vnnlib/p.vnnlib,116\r\n"b, c.onnx", q.vnnlib\n', 'list.csv'))
  assert.equal(plain, [
    { onnx: 'onnx/a.onnx', vnnlib: 'vnnlib/p.vnnlib', family: '', timeout: 116, expected: undefined },
    { onnx: 'b, c.onnx', vnnlib: 'q.vnnlib', family: '', timeout: undefined, expected: undefined },
  ])
  const named = right(
    decodeInstances('verdict,family,onnx,vnnlib,timeout\nsat,f,a,p,3.5\nwithheld,g,b,q,\n', 'list.csv'),
  )
  assert.equal(named, [
    { onnx: 'a', vnnlib: 'p', family: 'f', timeout: 3.5, expected: 'sat' },
    { onnx: 'b', vnnlib: 'q', family: 'g', timeout: undefined, expected: undefined },
  ])
})

test('a list that cannot be read names the line', () => {
  for (const [text, message] of [
    ['', 'there are no instances'],
    ['onnx,vnnlib\n', 'there are no instances'],
    ['a.onnx,p.vnnlib\nb.onnx\n', 'line 2'],
    ['a.onnx,p.vnnlib,soon\n', 'line 1'],
    ['a.onnx,p.vnnlib,-1\n', 'line 1'],
    ['"a.onnx,p.vnnlib\n', 'line 1'],
  ]) {
    const e = left(decodeInstances(text, 'list.csv'))
    assert.ok(JSON.stringify(e).includes(message), `${text}: ${JSON.stringify(e)}`)
  }
})

const word = fc.string({ minLength: 1, maxLength: 12 }).map((s) => s.replaceAll(/\s+/g, ' ').trim() || 'x')
const outcome: fc.Arbitrary<Outcome> = fc.record(
  {
    onnx: word,
    vnnlib: word,
    family: word,
    timeout: fc.constant(undefined),
    limit: fc.integer({ min: 1, max: 1000 }),
    verdict: fc.constantFrom('sat', 'unsat', 'unknown', 'timeout', 'error', 'crash'),
    expected: fc.constantFrom('sat' as const, 'unsat' as const, undefined),
    seconds: fc.integer({ min: 0, max: 100_000 }).map((n) => n / 100),
    cpu: fc.constantFrom(undefined, 0.25, 17.5),
    memory: fc.constantFrom(undefined, 120),
    subproblems: fc.constantFrom(undefined, 0, 12),
    reason: word,
  },
  { noNullPrototype: true },
)

test('a table reads back as what was written, whatever is in its cells; a line that was not finished is left out', () => {
  fc.assert(
    fc.property(fc.array(outcome, { maxLength: 5 }), fc.nat(40), (all, cut) => {
      const text = outcomeHeader + all.map(encodeOutcome).join('')
      const read = right(decodeOutcomes(text, 'results.csv'))
      assert.equal(read.outcomes, all)
      assert.is(read.whole, text)
      if (all.length === 0) return
      const last = encodeOutcome(all[all.length - 1])
      const broken = text.slice(0, text.length - 1 - (cut % (last.length - 1)))
      assert.equal(right(decodeOutcomes(broken, 'results.csv')).outcomes, all.slice(0, -1))
    }),
    { seed: 5, numRuns: 200 },
  )
  left(decodeOutcomes('something else\n', 'results.csv'))
})

test('families are counted one by one and together', () => {
  const one = (family: string, verdict: string, expected: Outcome['expected'], seconds: number): Outcome => ({
    onnx: 'a',
    vnnlib: 'p',
    family,
    timeout: undefined,
    limit: 10,
    verdict,
    expected,
    seconds,
    cpu: undefined,
    memory: undefined,
    subproblems: undefined,
    reason: '',
  })
  const all = [
    one('f', 'sat', 'sat', 1),
    one('f', 'unsat', undefined, 3),
    one('f', 'crash', 'sat', 9),
    one('g', 'unsat', 'sat', 2),
    one('g', 'timeout', 'sat', 10),
  ]
  assert.equal(all.map(isWrong), [false, false, false, true, false])
  const [f, g, total] = talliesOf(all)
  assert.equal(
    [f, g, total].map((t) => [t.family, t.instances, t.sat, t.unsat, t.timeout, t.unknown, t.failed, t.agree, t.wrong]),
    [
      ['f', 3, 1, 1, 0, 0, 1, 1, 0],
      ['g', 2, 0, 1, 1, 0, 0, 0, 1],
      ['all', 5, 1, 2, 1, 0, 1, 1, 1],
    ],
  )
  assert.equal([f.medianSeconds, g.medianSeconds, total.medianSeconds], [1, 2, 2])
})

// ---- the command --------------------------------------------------------------------------------------------------------

const property = (bound: number) =>
  [
    ...Array.from(
      { length: 64 },
      (_, i) => `(declare-const X_${i} Real)(assert (>= X_${i} 0.4))(assert (<= X_${i} 0.6))`,
    ),
    ...[0, 1, 2].map((j) => `(declare-const Y_${j} Real)`),
    `(assert (>= Y_0 ${bound}))`,
  ].join('\n')

/** A folder with a network, properties that are decided at once, and a list. */
const prepared = (folder: string, lines: readonly string[]): string => {
  const network = networks.small({ input: [1, 8, 8], classes: 3 })
  writeFileSync(
    join(folder, 'm.safetensors'),
    encodeModel({ network, parameters: network.init(key(1)), provenance: undefined }),
  )
  writeFileSync(join(folder, 'sat.vnnlib'), property(-1000))
  writeFileSync(join(folder, 'unsat.vnnlib'), property(1000))
  const list = join(folder, 'list.csv')
  writeFileSync(list, `onnx,vnnlib,timeout,verdict\n${lines.map((l) => `${l}\n`).join('')}`)
  return list
}

test(
  'each instance is decided and compared; one that fails loses itself only; a wrong verdict is told',
  inFolder(async (folder) => {
    const output = join(folder, 'results.csv')
    const list = prepared(folder, [
      'm.safetensors,sat.vnnlib,60,sat',
      'absent.onnx,sat.vnnlib,60,sat',
      'm.safetensors,unsat.vnnlib,60,unsat',
    ])
    const args = ['benchmark', list, '--output', output, '--threads', '1']
    const document = await json(args)
    const outcomes = document.outcomes as Outcome[]
    assert.equal(
      outcomes.map((o) => o.verdict),
      ['sat', 'error', 'unsat'],
    )
    assert.match(outcomes[1].reason, /absent\.onnx: there is no such file/)
    assert.ok(outcomes[0].seconds > 0)
    const [tally] = document.tallies as ReturnType<typeof talliesOf>
    assert.equal([tally.agree, tally.wrong, tally.failed], [2, 0, 1])
    assert.equal(right(decodeOutcomes(readFileSync(output, 'utf8'), output)).outcomes.length, 3)
    await refused(args, 1, output, '--resume')
    const wrong = prepared(folder, ['m.safetensors,sat.vnnlib,60,unsat'])
    const told = await mixtrain(['benchmark', wrong, '--output', join(folder, 'other.csv')])
    assert.is(told.code, 1)
    assert.match(told.out, /^WRONG sat, known to be unsat/)
    assert.match(told.err, /other\.csv: 1 verdict contradicts what is known/)
  }),
)

test(
  'shards part the list; a call that was killed goes on where it was',
  inFolder(async (folder) => {
    const lines = ['sat', 'unsat', 'sat', 'unsat'].map((v, i) => {
      writeFileSync(join(folder, `p${i}.vnnlib`), property(v === 'sat' ? -1000 : 1000))
      return `m.safetensors,p${i}.vnnlib,60,${v}`
    })
    const list = prepared(folder, lines)
    const shards = await Promise.all(
      [1, 2].map((i) =>
        json(['benchmark', list, '--shard', `${i}/2`, '--output', join(folder, `${i}.csv`), '--threads', '1']),
      ),
    )
    assert.equal(
      shards.map((s) => (s.outcomes as Outcome[]).map((o) => o.vnnlib)),
      [
        ['p0.vnnlib', 'p2.vnnlib'],
        ['p1.vnnlib', 'p3.vnnlib'],
      ],
    )
    const output = join(folder, 'all.csv')
    const args = ['benchmark', list, '--output', output, '--threads', '1']
    const running = start([...runtime, main, ...args])
    const lineCount = () => {
      try {
        return readFileSync(output, 'utf8').split('\n').length - 1
      } catch {
        return 0
      }
    }
    while (lineCount() < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    running.kill('SIGKILL')
    await running.ended
    // As if it had been killed while it wrote.
    writeFileSync(output, `${readFileSync(output, 'utf8')},m.safetensors,p`)
    const { code } = await mixtrain([...args, '--resume'])
    assert.is(code, 0)
    const { outcomes } = right(decodeOutcomes(readFileSync(output, 'utf8'), output))
    assert.equal(
      outcomes.map((o) => `${o.vnnlib} ${o.verdict}`),
      ['p0.vnnlib sat', 'p1.vnnlib unsat', 'p2.vnnlib sat', 'p3.vnnlib unsat'],
    )
    await refused(['benchmark', list, '--shard', '3/2'], 2, '--shard')
  }),
)

test.run()
