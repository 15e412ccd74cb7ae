import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { onnxReplay, RUNTIMES } from '../../src/cli/replay.ts'
import * as S from '../../src/core/shape.ts'
import { decodeOnnx, parameterConstants } from '../../src/format/onnx/index.ts'
import { decodeVnnlib, type Model, subjectOf } from '../../src/format/vnnlib.ts'
import { verifyProperty } from '../../src/verify/branch-and-bound.ts'
import { type Line, modelOf, ort } from '../format/onnx-models.ts'
import { right, skipped } from '../shared.ts'
import { inFolder, mixtrain } from './run.ts'

/** (x + big) - big: x in real arithmetic; in float32 a multiple of 2 where big is 2^24, of 2^-23 where it is 1. */
const stepping = (big: number, ...more: readonly Line[]): Uint8Array => {
  const BIG = { name: 'big', shape: [1], data: Float32Array.of(big) }
  return modelOf(['N', 1], [['Add', 'x big', 'sum'], ['Sub', 'sum big', more.length === 0 ? 'y' : 'z'], ...more], [BIG])
}
/** 1/2 + 2^-24: halfway between two multiples of 2^-23, and even goes down. */
const HALFWAY = '0.500000059604644775390625'

const modelFrom = (bytes: Uint8Array): Model => {
  const subject = (output?: string) => {
    const model = right(decodeOnnx(bytes, 'f', output === undefined ? {} : { output }))
    return {
      network: model.network(parameterConstants(model)),
      input: model.input.shape,
      outputs: S.size(model.output.shape),
    }
  }
  return { ...subject(), hidden: (node) => E.right(subject(node)) }
}

/** The verdict of a property, replayed; files by the names of networks. */
const decided = async (text: string, files: Readonly<Record<string, Uint8Array>>, required = false, timeout = 60) => {
  const property = right(decodeVnnlib(text, 'p'))
  const loaded = new Map(Object.entries(files))
  const models = new Map([...loaded].map(([name, bytes]) => [name, modelFrom(bytes)]))
  const { whole, ...subject } = right(subjectOf(property, models, 'p', { inReals: true }))
  const replay = onnxReplay(property, loaded, required)
  if (E.isLeft(replay)) throw new Error(replay.left)
  const backend = right(await wasm({ threads: 1 })())
  try {
    const result = await verifyProperty({
      ...subject,
      property,

      timeout,
      replay: replay.right,
    })(backend)
    return { ...result, replayed: result.counterexample?.replayed }
  } finally {
    await replay.right.close()
    backend.dispose()
  }
}

const within = (low: string, high: string, assertion: string): string =>
  `(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 ${low}))(assert (<= X_0 ${high}))(assert ${assertion})`
const head = (networks: readonly string[]): string => `(vnnlib-version <2.0>)${networks.join('')}`
const declared = (name: string, x: string, more: string, hidden = ''): string =>
  `(declare-network ${name} ${more}(declare-input ${x} real [1,1])${hidden}(declare-output Y${x} real [1,1]))`

const tests = () => {
  test('a counterexample in real arithmetic that float32 does not have is one, and says so; none where a replay is required', async () => {
    const files = { '': stepping(1) }
    for (const assertion of [`(>= Y_0 ${HALFWAY})`, '(> Y_0 0.5)']) {
      const text = within('0.5', HALFWAY, assertion)
      const { verdict, replayed, reason } = await decided(text, files)
      assert.is(verdict, 'sat')
      assert.is(replayed?.confirmed, false)
      assert.equal(Array.from(replayed?.y ?? []), [0.5])
      assert.match(reason ?? '', /^the outputs of onnxruntime-(web|node) satisfy no conjunction$/)
    }
    const open = await decided(within('0.5', HALFWAY, '(> Y_0 0.5)'), files, true, 2)
    assert.ok(['unknown', 'timeout'].includes(open.verdict), open.verdict)
    assert.is(open.counterexample, undefined)
    assert.match(open.reason ?? '', /its replay does not confirm: the outputs of onnxruntime/)
    // What is not strict is met by 1/2.
    assert.is((await decided(within('0.5', HALFWAY, '(>= Y_0 0.5)'), files, true)).replayed?.confirmed, true)
  })

  test('where the first point is not confirmed, one near it is', async () => {
    // From the middle, 0.975, float32 makes 0; above 1 it makes 2.
    for (const required of [false, true]) {
      const { verdict, replayed, counterexample } = await decided(
        within('0.9', '1.05', '(>= Y_0 0.9)'),
        { '': stepping(2 ** 24) },
        required,
      )
      assert.is(verdict, 'sat')
      assert.equal([replayed?.confirmed, Array.from(replayed?.y ?? [])], [true, [2]])
      assert.ok((counterexample?.x[0] ?? 0) > 1)
    }
  })

  test('two networks, one of them with hidden values, each run by itself', async () => {
    const text = `${head([
      declared('f', 'X', '', '(declare-hidden H real [1,1] "z")'),
      declared('g', 'V', '(isomorphic-to f)', '(declare-hidden K real [1,1] "z")'),
      declared('h', 'W', '(equal-to f)', '(declare-hidden L real [1,1] "z")'),
    ])}
      ${['X', 'V', 'W'].map((x, i) => `(assert (>= ${x}[0,0] ${3 + 2 * i}))(assert (<= ${x}[0,0] ${3.5 + 2 * i}))`).join('')}
      (assert (>= YV[0,0] YX[0,0]))(assert (>= H[0,0] 3.25))(assert (<= K[0,0] 8))(assert (>= (+ W[0,0] X[0,0]) 10.25))`
    const relu = stepping(2 ** 24, ['Relu', 'z', 'y'])
    const { verdict, replayed } = await decided(text, { f: relu, g: relu })
    assert.is(verdict, 'sat')
    assert.is(replayed?.confirmed, true)
    // Hidden value and output of each network in the order of the text: even numbers.
    const y = Array.from(replayed?.y ?? [])
    assert.equal(y.slice(0, 6), [4, 4, y[2], y[2], 8, 8])
    assert.ok(y[2] === 4 || y[2] === 6)
  })

  test('what the runtime cannot run is answered as it is, with the reason, unless it must be replayed', async () => {
    const text = within('0', '1', '(>= Y_0 0.5)')
    const property = right(decodeVnnlib(text, 'p'))
    const replay = E.getOrElseW((e: string): never => {
      throw new Error(e)
    })(onnxReplay(property, new Map([['', new Uint8Array(8)]]), false))
    const seen = await replay.outputs(Float64Array.of(1))
    assert.ok(E.isLeft(seen), 'a file that is none')
    assert.match(left(onnxReplay(property, new Map([['', safetensors]]), false)), /ONNX files only/)
  })

  test('the command line tells of it, and nothing else reaches the screen', () =>
    inFolder(async (folder) => {
      const [f, p] = [join(folder, 'f.onnx'), join(folder, 'p.vnnlib')]
      // An initializer that nothing uses is a warning of onnxruntime.
      const unused = { name: 'unused', shape: [1], data: Float32Array.of(1) }
      writeFileSync(f, modelOf(['N', 1], [['Relu', 'x', 'y']], [unused]))
      writeFileSync(p, within('-1', '1', '(>= Y_0 0.5)'))
      const { code, out, err } = await mixtrain(['verify', f, p, '--json', '--replay', 'require', '--threads', '1'])
      assert.is(code, 0, err)
      assert.is(err, '')
      const { verdict, counterexample } = JSON.parse(out)
      assert.is(verdict, 'sat')
      assert.equal([counterexample.replayed.confirmed, counterexample.replayed.y], [true, counterexample.y])
      assert.ok(RUNTIMES.includes(counterexample.replayed.by))
    })())
}

/** A file of safetensors without tensors. */
const safetensors = new Uint8Array([2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d])
const left = (e: E.Either<string, unknown>): string => (E.isLeft(e) ? e.left : 'a Right')

if (ort === undefined)
  skipped('replays of counterexamples', 'neither onnxruntime-node nor onnxruntime-web is installed')
else tests()
test.run()
