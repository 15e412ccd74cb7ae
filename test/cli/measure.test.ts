import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { evaluate } from '../../src/compile/run.ts'
import { key, uniform } from '../../src/core/key.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { digits } from '../../src/data/digits.ts'
import { encodeModel, encodeModelOnnx } from '../../src/format/model.ts'
import { encodeOnnx } from '../../src/format/onnx/index.ts'
import { networks } from '../../src/nn/networks.ts'
import { constant, input, logSoftmax, matmul, reshape, scalar, softmax } from '../../src/ops/index.ts'
import { boundsOf, ibp } from '../../src/robust/bounds.ts'
import { encodeCertificate, scopeOf } from '../../src/robust/certificate.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { imagesOf } from '../../src/train/fit.ts'
import { right, shared, skipped } from '../shared.ts'
import { inFolder, json, mixtrain, refused } from './run.ts'

const network = networks.small({ input: [1, 28, 28], classes: 10 })
const model = { network, parameters: network.init(key(3)), provenance: undefined }
const wasm = ['--device', 'wasm']

const EVALUATE = [
  'model',
  'count',
  'epsilon',
  'acc',
  'era',
  'vra',
  'attack',
  'method',
  'rounding',
  'device',
  'threads',
  'seconds',
]
const BOUNDS = [
  'model',
  'method',
  'rounding',
  'epsilon',
  'device',
  'index',
  'label',
  'logits',
  'lower',
  'upper',
  'margin',
]

/** A model in two formats. */
const save = (folder: string): { readonly path: string; readonly onnx: string } => {
  const [path, onnx] = [join(folder, 'model.safetensors'), join(folder, 'model.onnx')]
  writeFileSync(path, encodeModel(model))
  writeFileSync(onnx, right(encodeModelOnnx(model)))
  return { path, onnx }
}

interface Evaluated {
  readonly acc: number
  readonly era: number | null
  readonly vra: number
  readonly [other: string]: unknown
}

test(
  'a network that ends in Softmax or LogSoftmax is measured by the logits before it, and says so',
  inFolder(async (folder) => {
    const x = input('input', [1, 1, 28, 28]) as Tensor
    const w = input('w', [784, 10]) as Tensor
    const logits = matmul(reshape(x, [1, 784]) as Tensor, w)
    const parameters = new Map([[w, { name: 'w', data: uniform(key(5), 7840, -1, 1) }]])
    const endings = { logits, softmax: softmax(logits, 1), logSoftmax: logSoftmax(logits, 1) }
    const results: Record<string, unknown>[] = []
    for (const [name, output] of Object.entries(endings)) {
      const path = join(folder, `${name}.onnx`)
      writeFileSync(path, right(encodeOnnx({ name, input: x, output, parameters })))
      const args = [path, '--epsilon', '0.0005', '--limit', '40', ...wasm, '--json']
      const { code, out, err } = await mixtrain(['evaluate', ...args])
      assert.is(code, 0, err)
      assert.is(err.includes('which keeps the order of the classes'), name !== 'logits', err)
      const { model: _, seconds: __, ...rest } = JSON.parse(out)
      results.push(rest)
      const certificate = join(folder, `${name}.json`)
      assert.is((await mixtrain(['evaluate', ...args, '--certificate', certificate])).code, 0)
      const checked = await json(['check', certificate])
      // The document says that margins are those of logits, and so does its check.
      const ending = { logits: undefined, softmax: 'Softmax', logSoftmax: 'LogSoftmax' }[name]
      const said = JSON.parse(readFileSync(certificate, 'utf8'))
      for (const { ending: own, covers } of [said, checked as typeof said]) {
        assert.is(own, ending)
        assert.is(
          covers.some((line: string) => line.includes(`the logits before the ${ending} that the file ends in`)),
          ending !== undefined,
        )
      }
      // One that was written without is refused, whatever its hash.
      const { sha256: _hash, ending: _ending, ...content } = said
      const { covers, excludes } = scopeOf('real')
      const { format: _f, formatVersion: _v, ...c } = { ...content, covers, excludes }
      writeFileSync(certificate, await encodeCertificate(c))
      const plain = await mixtrain(['check', certificate])
      assert.is(plain.code, ending === undefined ? 0 : 1, plain.err)
      if (ending !== undefined) assert.match(plain.err, new RegExp(`ending.*ends in ${ending}.*says nothing`))
      const other = { ...c, ending: ending === 'Softmax' ? ('LogSoftmax' as const) : ('Softmax' as const) }
      writeFileSync(certificate, await encodeCertificate(other))
      assert.is((await mixtrain(['check', certificate])).code, 1)
    }
    assert.ok((results[0].vra as number) > 0)
    assert.equal(results[1], results[0])
    assert.equal(results[2], results[0])
  }),
)

test(
  'evaluate: the JSON contract, without and with an attack, safetensors and ONNX alike',
  inFolder(async (folder) => {
    const { path, onnx } = save(folder)
    const args = ['--epsilon', '0.002', '--limit', '60', ...wasm]
    const plain = (await json(['evaluate', path, ...args])) as Evaluated
    assert.equal(Object.keys(plain), EVALUATE)
    const { seconds, acc, era, vra, threads, ...rest } = plain
    assert.equal(rest, {
      model: path,
      count: 60,
      epsilon: 0.002,
      attack: null,
      method: 'symbolic',
      rounding: 'none',
      device: 'wasm',
    })
    assert.is(era, null)
    assert.ok((threads as number) >= 1 && (seconds as number) > 0)
    assert.ok(vra > 0 && vra <= acc && acc <= 1, `${vra} ${acc}`)
    const attacked = (await json([
      'evaluate',
      path,
      ...args,
      '--attack',
      'pgd',
      '--steps',
      '5',
      '--restarts',
      '2',
      '--seed',
      '7',
      '--batch-size',
      '7',
    ])) as Evaluated
    assert.equal(attacked.attack, {
      name: 'pgd',
      steps: 5,
      restarts: 2,
      stepSize: 0.5 * 0.002,
      seed: 7,
      loss: 'ce',
      targeted: false,
    })
    assert.is(attacked.acc, acc)
    assert.is(attacked.vra, vra)
    assert.ok(attacked.era !== null && vra <= attacked.era && attacked.era <= acc)
    const foreign = (await json(['evaluate', onnx, ...args, '--threads', '1', '--memory', '40'])) as Evaluated
    assert.equal([foreign.acc, foreign.vra, foreign.threads], [acc, vra, 1])
  }),
)

test(
  'where bounds do not fit the memory, cheaper ones that do are taken, and are called so',
  inFolder(async (folder) => {
    const { path } = save(folder)
    const args = [
      '--epsilon',
      '0.002',
      '--method',
      'symbolic',
      '--rounding',
      'outward',
      '--memory',
      '1',
      ...wasm,
      '--json',
    ]
    for (const command of [
      ['evaluate', path, '--limit', '5', ...args],
      ['bounds', path, '--index', '0', ...args],
    ]) {
      const { code, out, err } = await mixtrain(command)
      assert.is(code, 0, err)
      const [, name, parts] =
        /memory budget is 1 MB \(--memory\): bounds are those of ([a-z-]+)(, its rows in parts)?/.exec(err) ?? []
      assert.ok(name !== undefined, err)
      assert.is((JSON.parse(out) as { readonly method: string }).method, name)
      assert.ok(parts === undefined ? ['crown-ibp', 'ibp'].includes(name) : name === 'symbolic', err)
    }
  }),
)

interface Bounded {
  readonly index: readonly number[]
  readonly label: readonly number[]
  readonly logits: readonly (readonly number[])[]
  readonly lower: readonly (readonly number[])[]
  readonly upper: readonly (readonly number[])[]
  readonly margin: readonly (readonly number[])[]
  readonly [other: string]: unknown
}

test(
  'bounds: the JSON contract; an image does not depend on the others',
  inFolder(async (folder) => {
    const { path, onnx } = save(folder)
    const b = (await json([
      'bounds',
      path,
      '--index',
      '5,0,5',
      '--epsilon',
      '2/255',
      '--method',
      'crown',
      ...wasm,
    ])) as Bounded
    assert.equal(Object.keys(b), BOUNDS)
    const { index, label, logits, lower, upper, margin, ...rest } = b
    assert.equal(rest, { model: path, method: 'crown', rounding: 'none', epsilon: 2 / 255, device: 'wasm' })
    assert.equal(index, [5, 0, 5])
    for (const [i, y] of label.entries()) {
      assert.equal(
        [logits[i], lower[i], upper[i], margin[i]].map((row) => row.length),
        [10, 10, 10, 9],
      )
      const others = logits[i].flatMap((z, j) => (j === y ? [] : [z]))
      logits[i].forEach((z, j) => {
        assert.ok(lower[i][j] <= z && z <= upper[i][j])
      })
      others.forEach((z, j) => {
        assert.ok(margin[i][j] <= logits[i][y] - z + 1e-6)
      })
    }
    assert.equal(margin[0], margin[2])
    const foreign = (await json([
      'bounds',
      onnx,
      '--index',
      '0',
      '--epsilon',
      '2/255',
      '--method',
      'crown',
      ...wasm,
    ])) as Bounded
    assert.equal([foreign.logits, foreign.lower, foreign.margin], [[logits[1]], [lower[1]], [margin[1]]])
    const exact = (await json([
      'bounds',
      path,
      '--index',
      '0',
      '--epsilon',
      '2/255',
      '--method',
      'crown',
      '--device',
      'reference',
    ])) as Bounded
    exact.margin[0].forEach((m, j) => {
      assert.ok(Math.abs(m - margin[1][j]) < 1e-5)
    })
    const { code, out } = await mixtrain(['bounds', path, '--index', '5', '--epsilon', '0', ...wasm])
    assert.is(code, 0)
    assert.match(out, /^image 5: (not )?verified\n/)
  }),
)

test(
  'bounds on the reference device take epsilon as the double nearest to what was written',
  inFolder(async (folder) => {
    const { path } = save(folder)
    const common = ['bounds', path, '--index', '0', '--method', 'ibp', '--device', 'reference']
    const b = (await json([...common, '--epsilon', '0.1'])) as Bounded
    const device = reference()
    const parameters = Object.entries(network.parameters).map(
      ([k, { shape }]) => [k, constant(model.parameters[k], shape)] as const,
    )
    const image = imagesOf((await digits()).test).pixels([0])
    const box = ball(constant(image, [1, ...network.input]), scalar(0.1))
    const { lower, upper } = boundsOf(ibp)(network.apply(Object.fromEntries(parameters)), box).output()
    const [l, u] = await evaluate(device)([lower, upper])
    assert.equal(b.lower[0], [...l])
    assert.equal(b.upper[0], [...u])
    // A float32 is another radius.
    const near = (await json([...common, '--epsilon', String(Math.fround(0.1))])) as Bounded
    assert.ok(near.upper[0].every((v, j) => v > b.upper[0][j]))
    device.dispose()
  }),
)

test(
  'bounds of every layer, in other norms, by methods with options of their own',
  inFolder(async (folder) => {
    const { path } = save(folder)
    const common = ['bounds', path, '--index', '3', '--epsilon', '0.05', ...wasm]
    const bounds = async (...more: readonly string[]) => (await json([...common, ...more])) as Bounded
    const [l1, l2, linf] = [
      await bounds('--norm', 'l1', '--layers'),
      await bounds('--norm', 'l2', '--layers'),
      await bounds('--layers'),
    ]
    assert.equal(Object.keys(linf), [...BOUNDS, 'layers'])
    assert.equal([linf.norm, l2.norm, l1.norm], [undefined, 'l2', 'l1'])
    const layersOf = (b: Bounded) =>
      (b.layers as { name: string; shape: number[]; lower: number[]; upper: number[] }[][])[0]
    assert.equal(
      layersOf(linf).map(({ name, shape }) => [name, shape]),
      [
        ['relu1.input', [16, 14, 14]],
        ['relu2.input', [32, 7, 7]],
        ['relu3.input', [100]],
        ['output', [10]],
      ],
    )
    // The l1 ball is in the l2 ball, and that in the box.
    for (const [inner, outer] of [
      [l1, l2],
      [l2, linf],
    ]) {
      layersOf(inner).forEach(({ lower, upper, shape }, k) => {
        assert.is(
          lower.length,
          shape.reduce((n, d) => n * d, 1),
        )
        const wide = layersOf(outer)[k]
        const width = (l: { lower: number[]; upper: number[] }) => l.upper.reduce((s, u, i) => s + u - l.lower[i], 0)
        assert.ok(width({ lower, upper }) < width(wide))
        assert.ok(k > 0 || lower.every((l, i) => l >= wide.lower[i] - 1e-6 && upper[i] <= wide.upper[i] + 1e-6))
      })
      inner.margin[0].forEach((m, j) => {
        assert.ok(m > outer.margin[0][j])
      })
    }
    assert.equal(layersOf(l2)[3].lower, l2.lower[0])
    const [crown, alpha] = [
      await bounds('--method', 'crown'),
      await bounds('--method', 'alpha-crown', '--alpha-steps', '2'),
    ]
    alpha.margin[0].forEach((m, j) => {
      assert.ok(m >= crown.margin[0][j] - 1e-5)
    })
    const { out } = await mixtrain([...common, '--layers', '--method', 'intersect'])
    assert.match(out, /relu2\.input +│ \[32,7,7\] /)
    await refused([...common.slice(0, 4), '--epsilon', '1.5', ...wasm], 2, 'a radius from 0 to 1', '--norm l2')
  }),
)

test(
  'evaluate --complete: what branch and bound decided, in the JSON and in the table; what cannot be decided so is refused',
  inFolder(async (folder) => {
    const { path } = save(folder)
    const args = ['evaluate', path, '--epsilon', '0.01', '--limit', '6', '--method', 'ibp', ...wasm]
    const [plain, decided] = [await json(args), (await json([...args, '--complete', '30'])) as Evaluated]
    const { seconds, unsat, sat, unknown, timeout } = decided.complete as Readonly<Record<string, number>>
    assert.equal([seconds, unknown, timeout], [30, 0, 0])
    assert.is(6 * decided.vra, 6 * (plain as Evaluated).vra + unsat)
    assert.is(6 * decided.acc, 6 * decided.vra + sat)
    const { out } = await mixtrain([...args, '--complete', '30', '--rounding', 'outward'])
    assert.match(out.replaceAll(/[\s│]+/g, ' '), `then branch and bound on ${unsat + sat} images for up to 30 s`)
    await refused([...args, '--complete', '30', '--norm', 'l2'], 2, '--complete', 'leave --norm l2 out')
    await refused([...args, '--complete', '0'], 2, '--complete')
    await refused([...args, '--complete', '5', '--certificate', join(folder, 'c.json')], 2, 'leave --complete out')
  }),
)

test(
  'evaluate: norms, attacks by name and what the ensemble says of them',
  inFolder(async (folder) => {
    const { path } = save(folder)
    const common = ['evaluate', path, '--limit', '20', '--steps', '5', '--method', 'ibp', ...wasm]
    const run = async (...more: readonly string[]) => (await json([...common, ...more])) as Evaluated
    const all = await run('--epsilon', '0.02', '--attack', 'ensemble')
    const { loss, strongest, name } = all.attack as {
      readonly name: string
      readonly loss: string
      readonly strongest: Readonly<Record<'broken' | 'closest', Readonly<Record<string, number>>>>
    }
    assert.equal([name, loss], ['ensemble', 'both'])
    const total = (t: Readonly<Record<string, number>>) => Object.values(t).reduce((a, b) => a + b, 0)
    assert.is(total(strongest.closest), Math.round(20 * Number(all.era)))
    assert.is(total(strongest.broken), Math.round(20 * (all.acc - Number(all.era))))
    const round = await run(
      '--epsilon',
      '0.3',
      '--norm',
      'l2',
      '--attack',
      'pgd',
      '--target-loss',
      'margin',
      '--targeted',
    )
    assert.equal([round.norm, (round.attack as { loss: string }).loss], ['l2', 'margin'])
    assert.ok(round.vra <= Number(round.era) && Number(round.era) <= round.acc)
    const { out } = await mixtrain([...common, '--epsilon', '0.02', '--attack', 'interval', '--limit', '5'])
    assert.match(out, /interval, 5 steps of 0\.01 from 1 start per image, seed 0/)
  }),
)

test(
  'bounds agree with the public tools',
  inFolder(async () => {
    const [data, onnx, golden] = ['data/mnist', 'models/randconv_a.onnx', 'golden/randconv_a.json'].map(shared)
    if (data === undefined || onnx === undefined || golden === undefined)
      return skipped('bounds of an ONNX model on MNIST', 'the shared folder is absent')
    const want = JSON.parse(readFileSync(golden, 'utf8')) as {
      readonly labels: readonly number[]
      readonly mnist_test_indices: readonly number[]
      readonly results: readonly {
        readonly dtype: string
        readonly eps: number
        readonly methods: Readonly<Record<string, { readonly margin_lb: readonly (readonly number[])[] }>>
      }[]
    }
    const { eps, methods } = want.results.find((r) => r.dtype === 'float64') as (typeof want.results)[number]
    const index = want.mnist_test_indices.join(',')
    const common = ['--data', data, '--index', index, '--epsilon', String(eps), '--device', 'reference']
    for (const [method, name] of [
      ['ibp', 'ibp'],
      ['symbolic', 'crown_same_slope'],
    ]) {
      const b = (await json(['bounds', onnx, ...common, '--method', method])) as Bounded
      assert.equal(b.label, want.labels)
      b.margin.forEach((row, i) => {
        row.forEach((m, j) => {
          const w = methods[name].margin_lb[i][j]
          assert.ok(Math.abs(m - w) < 1e-5 * Math.max(1, Math.abs(w)), `${method} ${m} ${w}`)
        })
      })
    }
  }),
)

/** An IDX data set of black 2x2 images. */
const tiny = (folder: string): void => {
  const idx = (extents: readonly number[]) => {
    const size = extents.reduce((n, d) => n * d, 1)
    return Uint8Array.from([0, 0, 8, extents.length, ...extents.flatMap((d) => [0, 0, 0, d]), ...new Uint8Array(size)])
  }
  for (const part of ['train', 't10k']) {
    writeFileSync(join(folder, `${part}-images-idx3-ubyte`), idx([4, 2, 2]))
    writeFileSync(join(folder, `${part}-labels-idx1-ubyte`), idx([4]))
  }
}

test(
  'models and images that do not fit',
  inFolder(async (folder) => {
    const { path } = save(folder)
    const data = join(folder, 'tiny')
    mkdirSync(data)
    tiny(data)
    await refused(['evaluate', path, '--epsilon', '0.1', '--data', data], 2, '[1,28,28]', '[1,2,2]')
    await refused(['train', '--data', data], 1, 'a 4x4 kernel does not fit')
    await refused(['bounds', path, '--epsilon', '0.1', '--index', '2000', ...wasm], 2, 'there is no image 2000')
    await refused(['evaluate', path, '--epsilon', '0.1', '--memory', '0.5', ...wasm], 1, 'memory budget', '--memory')
    const bytes = readFileSync(path)
    writeFileSync(path, bytes.subarray(0, 1000))
    await refused(['evaluate', path, '--epsilon', '0.1'], 1, path, 'go past the 304 bytes of data')
    writeFileSync(path, bytes.toString('latin1').replace('"network":"small"', '"network":"smalk"'), 'latin1')
    await refused(['evaluate', path, '--epsilon', '0.1'], 1, 'no network "smalk"; the nearest is small')
  }),
)

test(
  'bounds: classes of a table are told by their names',
  inFolder(async (folder) => {
    const [table, path] = [join(folder, 'kinds.csv'), join(folder, 'model.safetensors')]
    const rows = Array.from({ length: 20 }, (_, i) => `${i},${i % 3},${['oak', 'elm'][i % 2]}`)
    writeFileSync(table, `a,b,kind\n${rows.join('\n')}\n`)
    const mlp = networks.mlp({ input: [2], classes: 2 })
    writeFileSync(path, encodeModel({ network: mlp, parameters: mlp.init(key(1)), provenance: undefined }))
    const asked = ['bounds', path, '--data', table, '--index', '0', '--epsilon', '0.1', ...wasm]
    const { out } = await mixtrain(asked)
    assert.match(out, /0 elm/)
    assert.match(out, /1 oak/)
    assert.equal((await json(asked)).classes, ['elm', 'oak'])
  }),
)

test.run()
