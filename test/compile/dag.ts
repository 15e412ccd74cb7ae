import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import type { Backend, Data } from '../../src/compile/backend.ts'
import type { Plan } from '../../src/compile/plan.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { right } from '../shared.ts'

/** A random graph: some inputs, and outputs made of them. */
export interface Dag {
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
  /** All values, the inputs first. */
  readonly nodes: readonly Tensor[]
  /** How it came about, for a failure to say. */
  readonly text: string
}

type Make = (a: Tensor, b: Tensor, c: Tensor, k: number) => Tensor | undefined

const fits = (...xs: readonly Tensor[]): boolean =>
  xs.reduce<E.Either<string, S.Shape>>(
    (s, x) => E.Chain.chain(s, (t) => S.broadcast(t, x.shape)),
    E.right([] as S.Shape),
  )._tag === 'Right'

const axisFor = (x: Tensor, k: number): number | undefined => (x.shape.length === 0 ? undefined : k % x.shape.length)

const elementwise = [O.add, O.sub, O.mul, O.maximum, O.minimum] as unknown as readonly ((
  a: Tensor,
  b: Tensor,
) => Tensor)[]

/** Rules that make a node of earlier ones, or nothing where shapes do not fit. */
const MAKERS: Readonly<Record<string, Make>> = {
  relu: (a) => O.relu(a),
  tanh: (a) => O.tanh(a),
  neg: (a) => O.neg(a),
  sigmoid: (a) => O.sigmoid(a),
  abs: (a) => O.abs(a),
  greater: (a, b) => (fits(a, b) ? (O.greater(a, b) as Tensor) : undefined),
  half: (a) => O.mul(a, 0.5) as Tensor,
  binary: (a, b, _, k) => (fits(a, b) ? elementwise[k % elementwise.length](a, b) : undefined),
  same: (a, _, __, k) => elementwise[k % elementwise.length](a, O.tanh(a)),
  square: (a) => O.mul(O.tanh(a), O.tanh(a)) as Tensor,
  twice: (a) => O.add(a, a) as Tensor,
  select: (a, b, c) => (fits(a, b, c) ? (O.select(O.greater(a, 0), b, c) as Tensor) : undefined),
  splitMul: (a, b, c) => (fits(a, b, c) ? O.splitMul(a, b, c) : undefined),
  absMul: (a, b) => (fits(a, b) ? O.absMul(a, b) : undefined),
  sum: (a, _, __, k) => {
    const axis = axisFor(a, k)
    return axis === undefined ? undefined : O.sum(a, [axis], k % 2 === 0)
  },
  sumAll: (a) => O.sum(a),
  sumTwo: (a, _, __, k) => (a.shape.length < 3 ? undefined : O.sum(a, k % 2 === 0 ? [0, 2] : [0, 1])),
  max: (a, _, __, k) => {
    const axis = axisFor(a, k)
    return axis === undefined ? undefined : O.max(a, [axis], k % 2 === 0)
  },
  dot: (a, b) => (fits(a, b) ? O.sum(O.mul(a, b) as Tensor) : undefined),
  logSumExp: (a, _, __, k) => {
    const axis = axisFor(a, k)
    return axis === undefined ? undefined : O.logSumExp(a, [axis])
  },
  reverse: (a) => O.transpose(a, [...a.shape.keys()].reverse()),
  transposeLast: (a) => (a.shape.length < 2 ? undefined : O.transposeLast(a)),
  flatten: (a) => O.reshape(a as Tensor, [S.size(a.shape)]) as Tensor,
  split: (a) => {
    const n = S.size(a.shape)
    return n % 2 === 0 ? (O.reshape(a as Tensor, [2, n / 2]) as Tensor) : undefined
  },
  repeat: (a) => O.broadcastTo(a, [2, ...a.shape]),
  stop: (a) => O.stopGradient(a),
  slice: (a, _, __, k) => {
    const axis = axisFor(a, k)
    if (axis === undefined || a.shape[axis] < 2) return undefined
    return O.slice(
      a,
      a.shape.map((_, i) => (i === axis ? 1 : 0)),
      a.shape.map((d, i) => (i === axis ? d - 1 : d)),
    )
  },
  pad: (a, _, __, k) => {
    const axis = axisFor(a, k)
    if (axis === undefined) return undefined
    return O.pad(
      a,
      a.shape.map((_, i) => (i === axis ? 1 : 0)),
      a.shape.map((_, i) => (i === axis ? k % 3 : 0)),
    )
  },
  concat: (a, b, _, k) => {
    const axis = axisFor(a, k)
    const same = a.shape.length === b.shape.length && a.shape.every((d, i) => i === axis || d === b.shape[i])
    return axis === undefined || !same ? undefined : O.concat([a, b, a], axis)
  },
  gather: (a) => (a.shape.length === 0 ? undefined : O.gather(a, O.constant([0, a.shape[0] - 1, 0], [3]))),
  matmul: (a, b) =>
    a.shape.length === 2 && b.shape.length === 2 && a.shape[1] === b.shape[0] ? O.matmul(a as Tensor, b) : undefined,
  gram: (a) => (a.shape.length === 2 ? O.matmul(a as Tensor, a as Tensor, { transB: true }) : undefined),
  conv2d: (a) =>
    a.shape.length === 4 && a.shape[2] > 1 && a.shape[3] > 1
      ? O.conv2d(a, O.full([2, a.shape[1], 2, 2], 0.375), { padding: 1 })
      : undefined,
  fourD: (a) => (a.shape.length === 3 ? (O.reshape(a as Tensor, [1, ...a.shape]) as Tensor) : undefined),
}

/** Rules whose value jumps: rounding may send it either way. */
export const JUMPS: readonly string[] = ['greater', 'select']
/** Rules that add up: a sum that is fused with a broadcast or a strided view may add in another order. */
export const SUMS: readonly string[] = ['sum', 'sumAll', 'sumTwo', 'dot', 'logSumExp']
const LIMIT = 1500

/** Random graphs with broadcasting, views, reductions, kernels, shared and dead nodes. */
export const dags = (steps = 24, without: readonly string[] = []): fc.Arbitrary<Dag> => {
  const names = Object.keys(MAKERS).filter((m) => !without.includes(m))
  return fc
    .tuple(
      fc.array(fc.record({ name: fc.constantFrom(...names), a: fc.nat(), b: fc.nat(), c: fc.nat(), k: fc.nat(11) }), {
        minLength: 3,
        maxLength: steps,
      }),
      fc.array(fc.nat(), { minLength: 0, maxLength: 3 }),
    )
    .map(([plan, extra]) => {
      const inputs = [[4, 3, 5], [3, 1], [5], [1, 3, 5], [], [6, 4]].map((s, i) => O.input(`x${i}`, s))
      const nodes: Tensor[] = [...inputs, O.constant([0.5, -1.25, 2], [3, 1]), O.scalar(0.3)]
      const text: string[] = []
      for (const { name, a, b, c, k } of plan) {
        // Recent nodes are likelier, so that graphs become deep.
        const pick = (i: number) =>
          nodes[i % 3 === 0 ? i % nodes.length : nodes.length - 1 - (i % Math.min(4, nodes.length))]
        const [p, q, r] = [pick(a), pick(b), pick(c)]
        const made = MAKERS[name](p, q, r, k)
        if (made === undefined || S.size(made.shape) > LIMIT || made.shape.length > 5) continue
        text.push(`%${nodes.length} = ${name}(%${nodes.indexOf(p)} %${nodes.indexOf(q)} %${nodes.indexOf(r)} ${k})`)
        nodes.push(made)
      }
      const outputs = [nodes[nodes.length - 1], ...extra.map((i) => nodes[i % nodes.length])]
      const how = `${text.join('; ')} -> ${outputs.map((x) => nodes.indexOf(x))}`
      return { inputs, outputs, nodes, text: how, [fc.toStringMethod]: () => how }
    })
}

/** Runs a plan as it is: arguments in, outputs back. */
export const runPlan = async (backend: Backend, plan: Plan, data: readonly Data[]): Promise<readonly Data[]> => {
  const executable = right(await backend.compile(plan)())
  const args = [...plan.inputs, ...plan.outputs].map((s) => backend.alloc(S.size(s)))
  data.forEach((d, i) => backend.write(args[i], d))
  backend.run(executable, args)
  const results: Data[] = []
  for (const b of args.slice(data.length)) results.push(await backend.read(b))
  for (const b of args) backend.free(b)
  backend.release(executable)
  return results
}

/** Index of the first element that differs in its bits (all NaN count as one), or -1. */
export const firstDifference = (a: Data, b: Data): number =>
  a.length === b.length ? a.findIndex((x, i) => !Object.is(x, b[i])) : Math.min(a.length, b.length)
