import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { ibp, linearBounds } from '../../src/bounds/linear-bounds.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { grad, vjp } from '../../src/compile/vjp.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { interval, node } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { openOrSkip } from '../backend/webgpu-open.ts'
import { right } from '../shared.ts'
import { type Entry, type Example, entries } from './examples.ts'

/** Shapes with an extent of 0: every op gives what its reference says, sums of nothing being 0, or refuses the shapes by name. */

const backends: Backend[] = [reference(), right(await wasm({ threads: 2 })())]
const gpu = await openOrSkip('empty shapes on WebGPU')
if (gpu !== undefined) backends.push(gpu)
test.after(() => {
  for (const b of backends) b.dispose()
})

interface Call {
  readonly shapes: readonly S.Shape[]
  readonly attrs: unknown
}

/** An example with one axis empty, and with all axes of one extent empty, of shapes among the attributes too. */
const emptied = ({ inputs, attrs }: Example): readonly Call[] => {
  const shapes = inputs.map((s) => s.shape)
  const single = shapes.flatMap((s, k) =>
    s.map((_, axis) => ({
      shapes: shapes.with(
        k,
        s.map((d, i) => (i === axis ? 0 : d)),
      ),
      attrs,
    })),
  )
  const joint = [...new Set(shapes.flat())].flatMap((extent) => {
    const without = (s: S.Shape) => s.map((d) => (d === extent ? 0 : d))
    const own = (attrs ?? {}) as Readonly<Record<string, unknown>>
    const changed = ['shape', 'sizes'].filter((key) => Array.isArray(own[key]))
    const other = changed.map((key) => [key, without(own[key] as S.Shape)])
    const both = { shapes: shapes.map(without), attrs }
    return changed.length === 0 ? [both] : [both, { ...both, attrs: { ...own, ...Object.fromEntries(other) } }]
  })
  return [...single, ...joint]
}

/** What is built, or undefined where it is refused by an error that names it. */
const built = <A>(name: string, f: () => A): A | undefined => {
  try {
    return f()
  } catch (error) {
    if (!(error instanceof MixtrainException)) throw error
    assert.ok(
      error.message.includes(name) || error.error.kind === 'unsupported',
      `${error.message} does not name ${name}`,
    )
    return undefined
  }
}

interface Made {
  readonly label: string
  readonly graph: Tensor
  /** Whether it is a gradient of a function without elements. */
  readonly zero: boolean
}

const madeOf = ({ op }: Entry, e: Example, call: Call): readonly Made[] => {
  const xs = call.shapes.map(
    (shape, k): Tensor =>
      e.inputs[k].integer
        ? O.full(shape, 0)
        : O.constant(
            Float64Array.from({ length: S.size(shape) }, (_, i) => 0.5 + (i % 5) / 4),
            shape,
          ),
  )
  const y = built(op.name, () => node(op, xs, call.attrs))
  if (y === undefined) return []
  const label = `${op.name} ${call.shapes.map(S.show).join(' ')} ${JSON.stringify(call.attrs)}`
  const wrt = xs.filter((_, k) => !e.inputs[k].integer)
  const ct = O.constant(
    Float64Array.from({ length: S.size(y.shape) }, (_, i) => 1 + (i % 3)),
    y.shape,
  )
  const first = vjp([y], [ct], wrt)
  const square = first.map((g) => O.sum(O.mul(g, g) as Tensor)).reduce((a, b) => O.add(a, b), O.scalar(0))
  const methods = {
    ibp,
    symbolic: linearBounds({ slope: 'same', hidden: 'own' }),
    'crown-ibp': linearBounds({ slope: 'adaptive', hidden: 'ibp' }),
  }
  const boxes = xs.flatMap((x, k) =>
    e.inputs[k].box
      ? Object.entries(methods).flatMap(([name, method]): readonly Made[] => {
          const box = built(op.name, () => method(y, new Map([[x, interval(O.sub(x, 0.25), O.add(x, 0.25))]])).output())
          return box === undefined
            ? []
            : [box.lower, box.upper].map((graph) => ({ label: `${label}: ${name} bound`, graph, zero: false }))
        })
      : [],
  )
  return [
    { label: `${label}: value`, graph: y, zero: false },
    ...first.map((graph) => ({ label: `${label}: gradient`, graph, zero: S.size(y.shape) === 0 })),
    ...grad(square, wrt).map((graph) => ({ label: `${label}: second gradient`, graph, zero: S.size(y.shape) === 0 })),
    ...boxes,
  ]
}

let accepted = 0
for (const entry of entries)
  test(`${entry.op.name}: extents of 0`, async () => {
    const seen = new Set<string>()
    const made = entry.examples.flatMap((e) =>
      emptied(e).flatMap((call) => {
        const key = JSON.stringify(call)
        if (seen.has(key)) return []
        seen.add(key)
        return madeOf(entry, e, call)
      }),
    )
    accepted += made.length
    if (made.length === 0) return
    const graphs = made.map((m) => m.graph)
    const [want, ...others] = await Promise.all(backends.map((b) => evaluate(b)(graphs, new Map<Tensor, Data>())))
    made.forEach(({ label, graph, zero }, k) => {
      assert.is(want[k].length, S.size(graph.shape), label)
      if (zero)
        assert.ok(
          want[k].every((v) => v === 0),
          `${label}: ${want[k].slice(0, 8)}`,
        )
      others.forEach((got, b) => {
        want[k].forEach((v, i) => {
          const near = Object.is(got[k][i], v) || Math.abs(got[k][i] - v) <= 1e-5 * (1 + Math.abs(v))
          assert.ok(near, `${label}: element ${i} is ${got[k][i]} on ${backends[b + 1].name}, ${v} on the reference`)
        })
      })
    })
  })

test('most ops take empty shapes', () => {
  assert.ok(accepted > 1000, `${accepted}`)
})

test('a product over an empty batch, or over no terms at all, is 0 and so are its gradients', async () => {
  const x = O.input('x', [0, 2])
  const w = O.input('w', [2, 3])
  const images = O.input('images', [0, 2, 5, 5])
  const kernel = O.input('kernel', [3, 2, 3, 3])
  const none = O.input('none', [4, 0])
  const nothing = O.input('nothing', [0, 3])
  const product = O.add(O.matmul(none as Tensor, nothing), O.constant([1, 2, 3], [3])) as Tensor
  const outputs = [
    ...grad(O.sum(O.matmul(x as Tensor, w)), [w]),
    ...grad(O.sum(O.relu(O.conv2d(images, kernel, { padding: 1 }))), [kernel]),
    O.relu(product),
  ]
  for (const b of backends) {
    const data = (n: number) => (b.dtype === 'f64' ? new Float64Array(n).fill(1) : new Float32Array(n).fill(1))
    const values = new Map<Tensor, Data>([
      [x, data(0)],
      [w, data(6)],
      [images, data(0)],
      [kernel, data(54)],
      [none, data(0)],
      [nothing, data(0)],
    ])
    const [g, h, y] = await evaluate(b)(outputs, values)
    assert.equal([...g], Array(6).fill(0))
    assert.equal([...h], Array(54).fill(0))
    assert.equal([...y], [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3])
  }
})

test.run()
