import { readFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import type { Backend } from '../../src/compile/backend.ts'
import type { Apply, Operand } from '../../src/core/tensor.ts'
import { decodeOnnx, parameterConstants } from '../../src/format/onnx/index.ts'
import { decodeVnnlib, type Property } from '../../src/format/vnnlib.ts'
import * as O from '../../src/ops/index.ts'
import { type PropertyOptions, type Verification, verifyProperty } from '../../src/verify/branch-and-bound.ts'
import type { Constraint, Subject, UnsafeProperty } from '../../src/verify/counterexample.ts'
import { type Dense, run } from '../robust/exact.ts'
import { right, shared } from '../shared.ts'

/** The instances of ../shared/vnnlib with their known verdicts, where the folder is. */
export const instances = (): readonly { readonly property: string; readonly verdict: string }[] | undefined => {
  const path = shared('vnnlib/verdicts.csv')
  return path === undefined
    ? undefined
    : readFileSync(path, 'utf8')
        .trim()
        .split('\n')
        .slice(1)
        .map((line) => line.split(','))
        .map(([, property, verdict]) => ({ property, verdict }))
}

export const mnistfc = (): Subject => {
  const path = shared('models/mnistfc_256x2.onnx') as string
  const model = right(decodeOnnx(new Uint8Array(readFileSync(path)), path))
  return { network: model.network(parameterConstants(model)), input: model.input.shape, outputs: 10 }
}

export const propertyOf = (name: string): Property => {
  const path = shared(`vnnlib/${name}`) as string
  return right(decodeVnnlib(readFileSync(path, 'utf8'), path))
}

/** The network of plain arrays as a graph. */
export const subjectOf = ({ layers, leak }: Dense): Subject => {
  const activate = leak === 0 ? O.relu : O.leakyRelu(leak)
  const network: Apply = (x) =>
    layers.reduce((h, { w, b }, i) => {
      const weights = O.constant(
        w.flatMap((row) => [...row]),
        [b.length, w[0].length],
      )
      const z = O.add(O.matmul(h as Operand, weights, { transB: true }), O.constant(b, [b.length])) as typeof x
      return i === layers.length - 1 ? z : activate(z)
    }, x)
  return { network, input: [layers[0].w[0].length], outputs: layers[layers.length - 1].b.length }
}

export const constraint = (coefficients: readonly number[], bound: number): Constraint => ({
  coefficients: Float64Array.from(coefficients),
  bound,
  outward: bound,
})

/** One case: a box and what must not happen in it. */
export const boxed = (
  lower: readonly number[],
  upper: readonly number[],
  unsafe: readonly (readonly Constraint[])[],
): UnsafeProperty['cases'][number] => {
  const box = { lower: Float64Array.from(lower), upper: Float64Array.from(upper) }
  return { ...box, outward: box, unsafe }
}

/** max over constraints of c . y - b: a conjunction holds where this is at most 0. */
export const distance = (conjunction: readonly Constraint[], y: ArrayLike<number>): number =>
  Math.max(...conjunction.map(({ coefficients, bound }) => coefficients.reduce((s, a, i) => s + a * y[i], -bound)))

/** Verifies, and judges what comes out: a counterexample must be one in plain doubles, bounds must not contradict it. */
export const judged = async (
  backend: Backend,
  net: Dense,
  cases: UnsafeProperty['cases'],
  options: Partial<PropertyOptions> = {},
): Promise<Verification> => {
  const subject = subjectOf(net)
  const property = { inputs: subject.input[0], outputs: subject.outputs, cases }
  const result = await verifyProperty({ ...subject, property, timeout: 30, ...options })(backend)
  assert.is(result.verdict === 'sat', result.counterexample !== undefined)
  assert.is(result.verdict === 'unsat', result.lower > 0)
  if (result.counterexample !== undefined) {
    const { x, y } = result.counterexample
    const own = run(net, x)
    own.forEach((v, i) => {
      assert.ok(Math.abs(v - y[i]) <= 1e-12 * (1 + Math.abs(v)))
    })
    assert.ok(
      cases.some(
        ({ lower, upper, unsafe }) =>
          x.every((v, i) => v >= lower[i] && v <= upper[i]) && unsafe.some((c) => distance(c, own) <= 1e-12),
      ),
      'the counterexample is none',
    )
  }
  return result
}
