import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodeVnnlib, type Property, showAssignment, tensorProto } from '../../src/format/vnnlib.ts'
import { left, right, shared, skipped } from '../shared.ts'

const decode = (text: string): Property => right(decodeVnnlib(text, 'p.vnnlib'))
const refused = (expected: RegExp, text: string): void => {
  const message = left(decodeVnnlib(text, 'p.vnnlib'))
  assert.match(message, /^p\.vnnlib/)
  assert.match(message, expected)
}
const HEAD = '(vnnlib-version <2.0>)'
/** All that a search and a judge use of a property, as data that can be compared. */
const essence = ({ inputs, outputs, watched, cases }: Property) => ({
  inputs,
  outputs,
  watched,
  cases: cases.map((c) => ({
    ...c,
    between: [...c.between],
    unsafe: c.unsafe.map((u) => u.map((k) => ({ ...k, coefficients: [...k.coefficients] }))),
  })),
})

test('the same property in both languages is the same value', () => {
  const pairs: readonly (readonly [string, string])[] = [
    [
      `(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)
       (assert (<= 0 X_0 0.1))(assert (>= X_1 -0.3))(assert (< X_1 (/ 1 3)))
       (assert (or (and (<= Y_0 Y_1) (<= Y_0 2)) (> (+ Y_0 (* 2 Y_1)) X_1)))`,
      `${HEAD}(declare-network n (declare-input X Real [1,2])(declare-output Y Real [2]))
       (assert (<= 0 X[0,0]))(assert (<= X[0,0] 0.1))(assert (>= X[0,1] -0.3))(assert (< (* 3 X[0, 1]) 1))
       (assert (or (and (<= Y[0] Y[1]) (<= Y[0] 2)) (> (+ Y[0] (* 2 Y[1])) X[0,1])))`,
    ],
    [
      '(declare-const X_0 Real)(declare-const Y_0 Real)(assert (or (and (= X_0 0.25) (distinct Y_0 1)) (and (<= -1 X_0 1) (>= Y_0 3))))',
      `${HEAD}(declare-network n (declare-input X real []) (declare-output Y real []))
       (assert (or (and (== X 0.25) (!= Y 1)) (and (<= -1 X) (<= X 1) (>= Y 3))))`,
    ],
    // As files are converted from 1.0 whose declarations were functions.
    [
      '(declare-fun X_0 () Real)(declare-fun X_1 () Real)(declare-fun Y_0 () Real)(assert (<= 0 X_0 1))(assert (<= 0 X_1 1))(assert (<= (- X_0 X_1) -0.5))(assert (<= Y_0 0))',
      `${HEAD}(declare-network n (declare-input X Real [0])(declare-output Y Real [0]))
       (declare-fun X[0] () Real)(declare-fun X[1] () Real)(declare-fun Y[0] () Real)
       (assert (<= 0 X[0] 1))(assert (<= 0 X[1] 1))(assert (<= (- X[0] X[1]) -0.5))(assert (<= Y[0] 0))`,
    ],
  ]
  for (const [first, second] of pairs) assert.equal(essence(decode(second)), essence(decode(first)))
})

test('tensors of several networks are numbered through, inputs and outputs each', () => {
  const p = decode(`${HEAD}
    (declare-network f (declare-input A float32 [1,2]) (declare-hidden H float32 [3] "relu \\"1\\"") (declare-output B float32 [2,2]))
    (declare-network g (equal-to f) (declare-input C float32 [1,2]) (declare-output D float32 [2,2]))
    (assert (<= 0 A[0,0] 1)) (assert (<= 0 A[0,1] 1)) (assert (== C[0,0] A[0,0])) (assert (<= 0 C[0,0] 1)) (assert (<= 0 C[0,1] 1))
    (assert (<= B[1,0] (- D[1,0] H[2])))`)
  assert.is(p.type, 'float32')
  assert.equal(
    p.networks.map(({ name, like, tensors }) => [
      name,
      like?.name,
      tensors.map((t) => [t.name, t.first, t.size, t.node]),
    ]),
    [
      [
        'f',
        undefined,
        [
          ['A', 0, 2, undefined],
          ['H', 0, 3, 'relu "1"'],
          ['B', 3, 4, undefined],
        ],
      ],
      [
        'g',
        'f',
        [
          ['C', 2, 2, undefined],
          ['D', 7, 4, undefined],
        ],
      ],
    ],
  )
  assert.equal([p.inputs, p.outputs, p.watched], [4, 13, [4, 0]])
  // H[2] is output 2, B[1,0] output 5, D[1,0] output 9; the equation is two inequalities on copies behind them.
  assert.equal(
    p.cases[0].unsafe[0].map(({ exact: e }) => [e.indices, e.coefficients]),
    [
      [
        [11, 12],
        [1n, -1n],
      ],
      [
        [12, 11],
        [1n, -1n],
      ],
      [
        [5, 9, 2],
        [1n, -1n, 1n],
      ],
    ],
  )
})

test('what is wrong is named with line and column', () => {
  const net = (body: string, more = ''): string => `${HEAD}\n(declare-network f ${body})${more}`
  const io = '(declare-input X real [2]) (declare-output Y real [1])'
  refused(/line 1, column 17\): expected version <2\.0>, found "<3\.0>"/, '(vnnlib-version <3.0>)')
  refused(
    /the element type "float64" of X is not supported: bounds are sound for real and float32/,
    net('(declare-input X float64 [2])'),
  )
  refused(
    /Y is float32, but X is not: all tensors of a property have one type/,
    net('(declare-input X real [2]) (declare-output Y float32 [1])'),
  )
  refused(/\(line 2, column 21\): expected declare-input.*found "declare-const"/, net('(declare-const X real)'))
  refused(/the network f declares no output/, net('(declare-input X real [2])'))
  refused(/expected the shape of X in brackets/, net('(declare-input X real 2)'))
  refused(/expected whole numbers in brackets, found "a"/, net('(declare-input X real [a])'))
  refused(/expected a name of letters, digits and underscores, found "1X"/, net('(declare-input 1X real [2])'))
  refused(/X is declared twice/, net('(declare-input X real [2]) (declare-output X real [1])'))
  refused(
    /X is initialized: inputs with a default value are not supported/,
    net('(declare-input X real [2] initialized)'),
  )
  refused(
    /expected the name of a node in double quotes/,
    net('(declare-input X real [2]) (declare-hidden H real [2] relu)'),
  )
  refused(/there is no network "g" before f/, net(`(equal-to g) ${io}`))
  refused(
    /its outputs are \[2\], not \[1\]/,
    net(io, '(declare-network g (isomorphic-to f) (declare-input A real [2]) (declare-output B real [2]))'),
  )
  refused(/X has 1 axes, \[2\], but 2 indices are given/, net(io, '(assert (<= X[0,1] 1))'))
  refused(/index 2 of X is outside its shape \[2\]/, net(io, '(assert (<= X[2] 1))'))
  refused(/X has 1 axes, \[2\], but 0 indices are given/, net(io, '(assert (<= X 1))'))
  refused(/Z is not declared/, net(io, '(assert (<= Z[0] 1))'))
  refused(/the product of X\[1\] and Y\[0\] is not linear/, net(io, '(assert (<= (* X[1] 2 Y[0]) 1))'))
  refused(/X\[1\] has no upper bound/, net(io, '(assert (<= 0 X[0] 1)) (assert (<= 0 X[1])) (assert (<= Y[0] 0))'))
  refused(/declare-network comes after an assertion/, net(io, '(assert (<= 0 X[0])) (declare-network g)'))
  refused(/expected declare-network or assert, found "declare-const"/, net(io, '(declare-const X_0 Real)'))
  refused(/no network is declared/, HEAD)
  refused(/X has no elements/, net('(declare-input X real [0]) (declare-output Y real [1])', '(assert (<= Y[0] 0))'))
  refused(/this bracket is never closed/, net('(declare-input X real [2)'))
})

test('assignments: text in the order of the declarations, and tensors as ONNX has them', () => {
  const p = decode(`${HEAD}(declare-network f (declare-input X real [1,2]) (declare-output Y real []))
    (assert (<= 0 X[0,0] 1)) (assert (<= 0 X[0,1] 1)) (assert (<= Y 0))`)
  assert.is(showAssignment(p, { x: ['0.5', '1'], y: ['-2'] }), 'X real [1,2]\n0.5\n1\nY real []\n-2')
  // dims 1 and 2, data type 1 (float), name, raw data: 0.5 and 1 in little-endian order.
  assert.equal(
    [...tensorProto('X', 'float32', [1, 2], ['0.5', '1'])],
    [8, 1, 8, 2, 16, 1, 0x42, 1, 88, 0x4a, 8, 0, 0, 0, 63, 0, 0, 128, 63],
  )
  assert.equal([...tensorProto('Y', 'real', [300], [])].slice(0, 5), [8, 172, 2, 16, 11])
})

const root = shared('vnncomp')
if (root === undefined) skipped('the VNN-COMP properties in both languages', 'shared/vnncomp is absent')
else
  for (const family of readdirSync(root, { withFileTypes: true })
    .filter((f) => f.isDirectory())
    .map((f) => f.name))
    test(`every property of ${family} reads, and its 2.0 twin, if any, is the same value`, () => {
      const folder = join(root, family)
      const read = (path: string) => decode(gunzipSync(readFileSync(path)).toString())
      const names = readdirSync(folder).filter((f) => f.endsWith('.vnnlib.gz'))
      const twins = readdirSync(folder).includes('v2') ? readdirSync(join(folder, 'v2')) : []
      assert.ok(names.length > 0)
      // Of large families every sixth file.
      for (const name of names.filter((_, i) => names.length < 60 || i % 6 === 0)) {
        const first = read(join(folder, name))
        if (twins.includes(name)) assert.equal(essence(read(join(folder, 'v2', name))), essence(first))
      }
    })

test.run()
