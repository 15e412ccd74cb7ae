import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { modelOf } from '../format/onnx-models.ts'
import { root, skipped } from '../shared.ts'
import { inFolder, json, mixtrain, refused, start } from './run.ts'

const HEAD = '(vnnlib-version <2.0>)'
/** y = relu(a x + b) on one input, h its sum before the ReLU. */
const model = (a: number, b: number): Uint8Array =>
  modelOf(
    ['N', 1],
    [
      ['MatMul', 'x w', 'p'],
      ['Add', 'p b', 'h'],
      ['Relu', 'h', 'y'],
    ],
    [
      { name: 'w', shape: [1, 1], data: Float32Array.of(a) },
      { name: 'b', shape: [1], data: Float32Array.of(b) },
    ],
  )
const network = (name: string, [x, y]: readonly [string, string], more = '', type = 'real'): string =>
  `(declare-network ${name} ${more} (declare-input ${x} ${type} [1,1]) (declare-output ${y} ${type} [1,1]))`
const between = (x: string): string => `(assert (>= ${x}[0,0] -1)) (assert (<= ${x}[0,0] 1))`

const inputs = (body: (at: (name: string, content: string | Uint8Array) => string, folder: string) => Promise<void>) =>
  inFolder((folder) =>
    body((name, content) => {
      writeFileSync(join(folder, name), content)
      return join(folder, name)
    }, folder),
  )

test(
  'a property that compares probabilities is decided of the logits, in real arithmetic; what is printed are probabilities',
  inputs(async (at) => {
    const classifier = modelOf(
      ['N', 1],
      [
        ['MatMul', 'x w', 'p'],
        ['Add', 'p b', 'h'],
        ['Softmax', 'h', 'y'],
      ],
      [
        { name: 'w', shape: [1, 2], data: Float32Array.of(64, -64) },
        { name: 'b', shape: [2], data: Float32Array.of(0, 64) },
      ],
    )
    const f = at('f.onnx', classifier)
    const head = (type: string) =>
      `${HEAD}(declare-network f (declare-input X ${type} [1,1]) (declare-output Y ${type} [1,2]))`
    const verify = async (assertion: string, type = 'real') => {
      const q = at('q.vnnlib', `${head(type)}${between('X')}(assert ${assertion})`)
      return json(['verify', q, '--network', `f=${f}`, '--threads', '1', '--timeout', '20'])
    }
    // Logits 64 x and 64 - 64 x are equal at x = 1/2; probabilities of float32 differ by nothing beyond.
    const below = '(<= X[0,0] 0.4999)'
    const half = await verify(`(and ${below} (>= Y[0,0] Y[0,1]))`)
    assert.is(half.verdict, 'unsat')
    const sat = await verify('(>= Y[0,0] Y[0,1])')
    assert.is(sat.verdict, 'sat')
    const { y } = sat.counterexample as { y: readonly number[] }
    assert.ok(Math.abs(y[0] + y[1] - 1) < 1e-9 && y[0] >= y[1])
    // Executions may round probabilities to one number: what is said of them is said of probabilities.
    assert.is((await verify(`(and ${below} (>= Y[0,0] Y[0,1]))`, 'float32')).verdict, 'unsat')
  }),
)

test(
  '--verbose says which steps are taken, on standard error, and nothing else changes',
  inputs(async (at) => {
    const f = at('f.onnx', model(2, -1))
    const q = at('q.vnnlib', `${HEAD}${network('f', ['X', 'Y'])}${between('X')}(assert (> Y[0,0] 1.001))`)
    const call = ['verify', q, '--network', `f=${f}`, '--threads', '1']
    const [plain, verbose] = [await mixtrain(call), await mixtrain([...call, '--verbose'])]
    assert.equal([plain.out, verbose.out], ['unsat\n', 'unsat\n'])
    assert.match(verbose.err, /attack: 1 conjunction, .*\n.*branch and bound: splits of inputs, 1 free input/)
    assert.not.match(plain.err, /branch and bound/)
  }),
)

test(
  'the interface of the standard: one network by its name, verdict and assignment',
  inputs(async (at) => {
    const f = at('f.onnx', model(2, -1))
    const verify = async (assertion: string, more: readonly string[] = [], type = 'real') => {
      const q = at('q.vnnlib', `${HEAD}${network('f', ['X', 'Y'], '', type)}${between('X')}(assert ${assertion})`)
      return mixtrain(['verify', q, '--network', `f=${f}`, '--threads', '1', ...more])
    }
    assert.is((await verify('(> Y[0,0] 1.001)')).out, 'unsat\n')
    const { code, out } = await verify('(>= Y[0,0] 1)')
    assert.equal([code, out], [0, 'sat\nX real [1,1]\n1\nY real [1,1]\n1\n'])
    assert.match((await verify('(>= Y[0,0] 0.5)', [], 'float32')).out, /^sat\nX float32 \[1,1\]\n/)
    // The type of the tensors says what bounds are to hold for.
    const deployed = at(
      'd.vnnlib',
      `${HEAD}${network('f', ['X', 'Y'], '', 'float32')}${between('X')}(assert (> Y[0,0] 1.5))`,
    )
    const report = await json(['verify', deployed, '--network', `f=${f}`])
    assert.equal([report.verdict, report.semantics], ['unsat', 'deployed'])
    await refused(['verify', deployed, '--network', `f=${f}`, '--semantics', 'real'], 2, 'float32')
  }),
)

test(
  'two networks: one that is another, and two files side by side',
  inputs(async (at) => {
    const [f, g] = [at('f.onnx', model(2, -1)), at('g.onnx.gz', gzipSync(model(-1, 0.5)))]
    const both = network('f', ['A', 'B'])
    // A growing network: no larger input has a smaller output.
    const twin = `${HEAD}${both}${network('g', ['C', 'D'], '(equal-to f)')}${between('A')}${between('C')}(assert (<= A[0,0] C[0,0]))`
    const own = ['--network', `f=${f}`, '--threads', '1']
    assert.is(
      (await mixtrain(['verify', at('m.vnnlib', `${twin}(assert (> B[0,0] (+ D[0,0] 0.001)))`), ...own])).out,
      'unsat\n',
    )
    const found = await mixtrain(['verify', at('n.vnnlib', `${twin}(assert (> D[0,0] (+ B[0,0] 0.5)))`), ...own])
    const [verdict, , a, , b, , c, , d] = found.out.split('\n')
    assert.is(verdict, 'sat')
    assert.is(Number(b), Math.max(0, 2 * Number(a) - 1))
    assert.is(Number(d), Math.max(0, 2 * Number(c) - 1))
    assert.ok(Number(a) <= Number(c) && Number(d) > Number(b) + 0.5)
    // relu(2 x - 1) + relu(0.5 - x) for the same x: at least 0 (at 0.5), at most 1.5 (at -1).
    const pair = `${HEAD}${both}${network('g', ['C', 'D'])}${between('A')}${between('C')}(assert (== A[0,0] C[0,0]))`
    const files = ['--network', `f=${f}`, '--network', `g=${g}`, '--threads', '1']
    assert.is(
      (await mixtrain(['verify', at('p.vnnlib', `${pair}(assert (>= (+ B[0,0] D[0,0]) 1.6))`), ...files])).out,
      'unsat\n',
    )
    const one = await mixtrain(['verify', at('q.vnnlib', `${pair}(assert (>= (+ B[0,0] D[0,0]) 1.5))`), ...files])
    assert.is(one.out.split('\n')[0], 'sat')
    const q = at('r.vnnlib', pair)
    await Promise.all([
      refused(['verify', q, '--network', `f=${f}`], 2, 'declares the network g: add --network g=FILE'),
      refused(['verify', q, ...files, '--network', `h=${g}`], 2, 'needs no file for "h", only for f, g'),
      refused(['verify', q, ...files, '--network', `g=${f}`], 2, 'a network is given two files'),
      refused(['verify', f, q], 2, 'the property declares f, g'),
      refused(['verify', q, '--network', 'f'], 2, '--network: expected NAME=FILE'),
      refused(['verify', q], 2, "missing required argument 'PROPERTY'"),
      refused(['verify', f, q, '--network', `f=${f}`], 2, 'a property and --network'),
    ])
  }),
)

test(
  'hidden values have names, and assignments may be files',
  inputs(async (at, folder) => {
    const f = at('f.onnx', model(2, -1))
    const q = (assertion: string, node = 'h') =>
      at(
        'q.vnnlib',
        `${HEAD}(declare-network f (declare-input X real [1,1]) (declare-hidden H real [1,1] "${node}") (declare-output Y real [1,1]))${between('X')}(assert ${assertion})`,
      )
    const run = (property: string, ...more: readonly string[]) =>
      mixtrain(['verify', property, '--network', `f=${f}`, '--threads', '1', ...more])
    assert.is((await run(q('(and (<= H[0,0] -1) (>= Y[0,0] 0.01))'))).out, 'unsat\n')
    const to = join(folder, 'found')
    const { out } = await run(q('(and (<= H[0,0] -3) (<= Y[0,0] 0))'), '--serialise-assignments', to)
    assert.is(out, 'sat\n')
    const value = (name: string) => {
      const bytes = readFileSync(join(to, `${name}.pb`))
      return bytes.readDoubleLE(bytes.length - 8)
    }
    assert.equal([value('X'), value('H'), value('Y')], [-1, -3, 0])
    await refused(['verify', q('(<= H[0,0] 0)', 'nowhere'), '--network', `f=${f}`], 1, 'nowhere')
  }),
)

test('supports answers what the standard asks', async () => {
  const ask = async (capability: string) => (await mixtrain(['supports', capability])).out.trim().split('\n')
  assert.equal(await ask('--vnnlib-versions'), ['1.0', '2.0'])
  assert.equal(await ask('--onnx-element-types'), ['float32', 'real'])
  assert.ok((await ask('--onnx-operators')).includes('Gemm'))
  assert.equal(await ask('--arithmetic-complexity-theories'), ['BND', 'OUTC', 'LIN'])
  assert.equal(await ask('--serialise-assignments'), ['true'])
  assert.is((await mixtrain(['--name'])).out, 'mixtrain\n')
  await refused(['supports'], 2, 'one capability')
})

test(
  'the scripts of the competition write verdict and counterexample',
  inputs(async (at, folder) => {
    const script = (name: string) => join(root, 'tools', 'vnncomp', name)
    if (!existsSync('/bin/bash')) return skipped('the scripts of the competition', 'there is no /bin/bash')
    const f = at('f.onnx', model(2, -1))
    const first = (bound: string) =>
      at('p.vnnlib', `(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= -1 X_0 1))(assert (>= Y_0 ${bound}))`)
    const result = join(folder, 'result')
    const run = async (onnx: string, property: string) => {
      const { code } = await start(['/bin/bash', script('run_instance.sh'), 'v1', 'test', onnx, property, result, '20'])
        .ended
      assert.is(code, 0)
      return readFileSync(result, 'utf8')
    }
    assert.is((await start(['/bin/bash', script('prepare_instance.sh'), 'v1', 'test', f, first('1')]).ended).code, 0)
    assert.is(await run(f, first('1')), 'sat\n((X_0 1)\n (Y_0 1))\n')
    assert.is(await run(f, first('1.5')), 'unsat\n')
    assert.is(await run(f, join(folder, 'absent.vnnlib')), 'error\n')
    const q = at('q.vnnlib', `${HEAD}${network('f', ['X', 'Y'])}${between('X')}(assert (>= Y[0,0] 1))`)
    assert.is(await run(`[("f", "${f}")]`, q), 'sat\nX real [1,1]\n1\nY real [1,1]\n1\n')
    assert.is((await start(['/bin/bash', script('run_instance.sh'), 'v2']).ended).code, 1)
  }),
)

test.run()
