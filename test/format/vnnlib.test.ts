import { readdirSync, readFileSync } from 'node:fs'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { nextDouble } from '../../src/core/rounding.ts'
import { decodeVnnlib, type Property, showCounterexample } from '../../src/format/vnnlib.ts'
import { left, right, shared, skipped } from '../shared.ts'

/** The next double above a finite one. */
const above = nextDouble

const declare = (inputs: number, outputs: number): string =>
  [
    ...Array.from({ length: inputs }, (_, i) => `(declare-const X_${i} Real)`),
    ...Array.from({ length: outputs }, (_, i) => `(declare-const Y_${i} Real)`),
  ].join('\n')
const unit = (inputs: number): string =>
  Array.from({ length: inputs }, (_, i) => `(assert (>= X_${i} 0)) (assert (<= X_${i} 1))`).join('\n')
const decode = (text: string): Property => right(decodeVnnlib(text, 'p.vnnlib'))
/** A property of one input in [0, 1] and three outputs. */
const outputs = (...assertions: readonly string[]): Property =>
  decode([declare(1, 3), unit(1), ...assertions.map((a) => `(assert ${a})`)].join('\n'))
const plain = (p: Property) =>
  p.cases.map(({ lower, upper, unsafe }) => ({
    lower: [...lower],
    upper: [...upper],
    unsafe: unsafe.map((c) => c.map(({ coefficients, bound }) => [...coefficients, bound])),
  }))
const constraints = (...assertions: readonly string[]) => {
  const p = plain(outputs(...assertions))
  assert.is(p.length, 1)
  return p[0].unsafe
}
const refused = (expected: RegExp, text: string): void => {
  const message = left(decodeVnnlib(text, 'p.vnnlib'))
  assert.match(message, /^p\.vnnlib/)
  assert.match(message, expected)
}

test('the forms of the ACAS Xu properties', () => {
  // prop_1: one output above a number; prop_2: an output is the largest; prop_3: the smallest; prop_7: two conjunctions.
  assert.equal(constraints('(>= Y_0 3.991125645861615)'), [[[-1, 0, 0, -3.991125645861615]]])
  assert.equal(constraints('(<= Y_1 Y_0)', '(<= Y_2 Y_0)'), [
    [
      [-1, 1, 0, 0],
      [-1, 0, 1, 0],
    ],
  ])
  assert.equal(constraints('(<= Y_0 Y_1)', '(<= Y_0 Y_2)'), [
    [
      [1, -1, 0, 0],
      [1, 0, -1, 0],
    ],
  ])
  assert.equal(constraints('(or (and (<= Y_2 Y_0) (<= Y_2 Y_1)) (and (<= Y_1 Y_0)))'), [
    [
      [-1, 0, 1, 0],
      [0, -1, 1, 0],
    ],
    [[-1, 1, 0, 0]],
  ])
})

test('a disjunction of boxes, prop_6 style, and a shared constraint on the outputs', () => {
  const text = `${declare(2, 2)}
    (assert (or
      (and (<= X_0 0.5) (>= X_0 0.25) (<= X_1 1) (>= X_1 -1))
      (and (>= X_0 -0.5) (<= X_0 -0.25) (<= X_1 1) (>= X_1 -1))))
    (assert (or (and (<= Y_0 Y_1)) (and (>= Y_0 7))))`
  const unsafe = [[[1, -1, 0]], [[-1, 0, -7]]]
  assert.equal(plain(decode(text)), [
    { lower: [0.25, -1], upper: [0.5, 1], unsafe },
    { lower: [-0.5, -1], upper: [-0.25, 1], unsafe },
  ])
})

test('one disjunction of boxes with their constraints; equal boxes are one case', () => {
  const box = (low: string, y: string) => `(and (>= X_0 ${low}) (<= X_0 2e0) ${y})`
  const text = `${declare(1, 2)}
    (assert (or ${box('1.0', '(<= Y_0 0)')} ${box('0', '(<= Y_0 1)')} ${box('1', '(<= Y_1 2)')}))`
  assert.equal(plain(decode(text)), [
    { lower: [1], upper: [2], unsafe: [[[1, 0, 0]], [[0, 1, 2]]] },
    { lower: [0], upper: [2], unsafe: [[[1, 0, 1]]] },
  ])
})

test('terms are linear, with constants on either side', () => {
  assert.equal(constraints('(<= (+ Y_0 (* -2 Y_1) 0.5) (- Y_2 1))'), [[[1, -2, -1, -1.5]]])
  assert.equal(constraints('(>= (- Y_0) (* (+ 1 1) (- Y_1 Y_0 Y_2) 0.5))'), [[[0, 1, -1, 0]]])
  assert.equal(constraints('(<= (* (- 3) Y_0) 1E-2)'), [[[-3, 0, 0, 0.01]]])
  assert.equal(constraints('(= Y_0 Y_1)'), [
    [
      [1, -1, 0, 0],
      [-1, 1, 0, 0],
    ],
  ])
  assert.equal(constraints('(and (<= 1 2) (<= Y_0 .5) (or (<= 2 1) (<= Y_1 +1.)))'), [
    [
      [1, 0, 0, 0.5],
      [0, 1, 0, 1],
    ],
  ])
})

test('nested formulas are multiplied out', () => {
  assert.equal(
    constraints('(and (or (<= Y_0 0) (<= Y_1 0)) (<= Y_2 5) (or (<= Y_0 1) (and (<= Y_1 1) (<= Y_2 1))))').length,
    4,
  )
  assert.equal(outputs('(or (<= Y_0 0) (or (<= Y_1 0) (or (<= Y_2 0))))').cases[0].unsafe.length, 3)
  // A false alternative vanishes; a false assertion leaves no counterexample.
  assert.is(outputs('(or (<= 1 0) (<= Y_0 0))').cases[0].unsafe.length, 1)
  assert.is(outputs('(<= Y_0 0)', '(<= 1 0)').cases.length, 0)
})

test('bounds of inputs: equal, several, scaled, negative, in any order', () => {
  const box = (...assertions: readonly string[]) => {
    const [{ lower, upper }] = decode(
      `${declare(1, 1)} ${assertions.map((a) => `(assert ${a})`).join('\n')} (assert (<= Y_0 0))`,
    ).cases
    return [lower[0], upper[0]]
  }
  assert.equal(box('(= X_0 0.25)'), [0.25, 0.25])
  assert.equal(box('(<= X_0 0.25)', '(>= X_0 0.25)'), [0.25, 0.25])
  assert.equal(box('(<= X_0 3)', '(<= X_0 2)', '(>= X_0 -1)', '(>= X_0 -2)'), [-1, 2])
  assert.equal(box('(and (<= -5e-1 X_0) (>= 4 (* 2 X_0)))'), [-0.5, 2])
  assert.equal(box('(<= (* -3 X_0) 1)', '(<= (+ X_0 0.1) 0.35)'), [-1 / 3, 0.25])
  assert.equal(box('(>= X_0 0.0)', '(<= X_0 0)'), [0, 0])
})

test('the outward box encloses the decimals, the other has the doubles in it, and no more than needed', () => {
  const [{ lower, upper, outward, between }] = decode(
    `${declare(3, 1)}
     (assert (>= X_0 0.1)) (assert (<= X_0 0.1))
     (assert (>= X_1 0.3)) (assert (<= X_1 0.3))
     (assert (>= X_2 0.5)) (assert (<= (* 3 X_2) 2))
     (assert (<= Y_0 0.1))`,
  ).cases
  // The double 0.1 lies above 1/10, 0.3 below 3/10: no double lies in either box.
  assert.equal([...lower], [0.1, 0.30000000000000004, 0.5])
  assert.equal([...upper], [0.09999999999999999, 0.3, 2 / 3])
  assert.equal(
    [...between],
    [
      [0, { numerator: 1n, denominator: 10n }],
      [1, { numerator: 3n, denominator: 10n }],
    ],
  )
  assert.equal([...outward.lower], [0.09999999999999999, 0.3, 0.5])
  assert.equal([...outward.upper], [0.1, 0.30000000000000004, 0.6666666666666667])
})

test('numbers are read exactly: every double from its digits, and the right side of every decimal', () => {
  fc.assert(
    fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.nat(1e6), (v, more) => {
      const digits = String(v)
      const longer = digits.includes('e')
        ? digits
        : `${digits}${digits.includes('.') ? '' : '.'}${'0'.repeat(20)}${more}`
      const [{ lower, upper, outward, between }] = decode(
        `${declare(2, 1)} (assert (= X_0 ${digits})) (assert (= X_1 ${longer})) (assert (<= Y_0 0))`,
      ).cases
      const near = [v + 0, Number(longer) + 0]
      for (const i of [0, 1]) {
        const [l, u] = [outward.lower[i], outward.upper[i]]
        assert.ok(l === near[i] || u === near[i])
        // Either the decimal is a double, or it lies between two neighbours, of which neither is in the box.
        if (l === u) assert.equal([lower[i], upper[i]], [l, u])
        else assert.equal([lower[i], upper[i], above(l)], [u, l, u])
        assert.is(between.has(i), l !== u)
      }
    }),
    { numRuns: 2000 },
  )
})

test('coefficients that are no doubles are made whole and keep their size; what float32 does not hold is a sum', () => {
  const [[c]] = outputs('(<= (+ (* 0.1 Y_0) (* 0.25 Y_1)) 0.3)').cases[0].unsafe
  // Times 20 / 16.
  assert.equal([...c.coefficients], [0.125, 0.3125, 0])
  assert.is(c.bound, 0.375)
  assert.equal(c.exact, { indices: [0, 1], coefficients: [2n, 5n], bound: 6n, strict: false })
  const [[d]] = outputs('(<= (* 0.5 Y_0) 0.3)').cases[0].unsafe
  assert.equal([...d.coefficients, d.bound, d.outward], [0.5, 0, 0, 0.3, 0.30000000000000004])
  assert.equal(d.exact, { indices: [0], coefficients: [5n], bound: 3n, strict: false })
  // 2^53 + 1 is the sum of two float32 numbers, the second times a copy of Y_1.
  const p = outputs('(<= (* 9007199254740993 Y_1) 1)')
  assert.equal([p.outputs, p.watched], [4, [3]])
  assert.equal([...p.cases[0].unsafe[0][0].coefficients], [0, 2 ** 53, 0, 1])
  assert.equal(p.cases[0].unsafe[0][0].exact.indices, [1])
  refused(
    /coefficient of Y_0 has more digits than 4 float32 numbers hold/,
    `${declare(1, 1)} ${unit(1)} (assert (<= (* 1.0000000000000000000000000000000000000001 Y_0) 1))`,
  )
})

test('the order of declarations and assertions, comments and white space do not matter', () => {
  const text = `; a comment (with parentheses\n(declare-const Y_0 Real);\n(declare-const X_0 Real)(assert(<= Y_0 1));)\r
    (assert\t(and(<= X_0 1)(>= X_0 0)))  ; the end`
  assert.equal(plain(decode(text)), [{ lower: [0], upper: [1], unsafe: [[[1, 1]]] }])
})

test('what is wrong is named with line and column', () => {
  const good = `${declare(1, 1)}\n${unit(1)}\n`
  refused(/\(line 4, column 10\): expected and, or, not, <=, <, >=, > or =, found "~"/, `${good}(assert (~ Y_0 1))`)
  refused(/\(line 4, column 13\): Y_1 is not declared/, `${good}(assert (<= Y_1 1))`)
  refused(/expected a number or a variable, found "Z_0"/, `${good}(assert (<= Z_0 1))`)
  refused(/"1.2.3" cannot be read/, `${good}(assert (<= Y_0 1.2.3))`)
  refused(/found "NaN"/, `${good}(assert (<= Y_0 NaN))`)
  refused(/\(line 4, column 13\): the product of Y_0 and X_0 is not linear/, `${good}(assert (<= (* Y_0 X_0) 1))`)
  refused(/a division by Y_0 is not linear/, `${good}(assert (<= (/ 2 Y_0) 1))`)
  refused(/a division by 0/, `${good}(assert (<= (/ Y_0 0) 1))`)
  refused(/expected \+, -, \* or \/ in a term, found "\^"/, `${good}(assert (<= (^ Y_0 2) 1))`)
  refused(/ite between terms is not supported/, `${good}(assert (<= (ite true 1 2) Y_0))`)
  refused(/takes two terms or more, found 1/, `${good}(assert (<= 0))`)
  refused(/\+ has no operands/, `${good}(assert (<= (+) 1))`)
  refused(/expected a formula, found "Y_0"/, `${good}(assert Y_0)`)
  refused(/expected an operator/, `${good}(assert ((<= Y_0 1)))`)
  refused(/assert takes one formula/, `${good}(assert)`)
  refused(/expected one formula in assert, found "\("/, `${good}(assert (<= Y_0 1) (<= Y_0 2))`)
  refused(/expected declare-const, declare-fun or assert, found "push"/, `${good}(push 1)`)
  refused(/expected a command in parentheses, such as \(assert \.\.\.\), found "assert"/, `${good}assert`)
  refused(/\(line 4, column 1\): this parenthesis is never closed/, `${good}(assert (<= Y_0 1)`)
  refused(/\(line 4, column 20\): this parenthesis closes nothing/, `${good}(assert (<= Y_0 1)))`)
  refused(/X_0 is declared twice/, `${good}(declare-const X_0 Real)`)
  refused(/expected the sort Real, found "Int"/, '(declare-const X_0 Int)')
  refused(/no arguments of a function in declare-fun, found "Real"/, '(declare-fun X_0 (Real) Real)')
  refused(/expected a name like X_0 or Y_0, found "X_00"/, '(declare-const X_00 Real)')
  refused(/expected a name like/, '(declare-const X_99999999 Real)')
  refused(/expected the sort Real, found "\)"/, '(declare-const X_0)')
  refused(/1 X are declared, but not X_0/, '(declare-const X_1 Real)')
  refused(/no output is declared/, '(declare-const X_0 Real)')
  refused(/no input is declared/, '; nothing')
  refused(/X_0 has no upper bound/, `${declare(1, 1)}(assert (>= X_0 0))(assert (<= Y_0 0))`)
  refused(/X_1 has no lower bound/, `${declare(2, 1)}${unit(1)}(assert (<= X_1 0))(assert (<= Y_0 0))`)
  refused(/"1e9999" cannot be read/, `${good}(assert (<= Y_0 1e9999))`)
  refused(/cannot be read: it is no decimal, too long/, `${good}(assert (<= Y_0 ${'1'.repeat(10000)}))`)
  refused(/as in VNN-LIB 2.0/, `${good}(assert (<= Y_0[0] 1))`)
})

test('strict comparisons, negations and other spellings of SMT-LIB', () => {
  const strict = (...assertions: readonly string[]) =>
    outputs(...assertions).cases.map(({ unsafe }) =>
      unsafe.map((u) => u.map(({ exact: e }) => [e.indices, e.coefficients, e.bound, e.strict])),
    )
  const below = [[0], [1n], 1n, true]
  assert.equal(strict('(< Y_0 1)'), [[[below]]])
  assert.equal(strict('(> 1 Y_0)'), [[[below]]])
  assert.equal(strict('(not (>= Y_0 1))'), [[[below]]])
  assert.equal(strict('(not (or (>= Y_0 1) (not (<= Y_1 2))))'), [[[below, [[1], [1n], 2n, false]]]])
  assert.equal(strict('(<= -1 Y_0 2)'), [
    [
      [
        [[0], [-1n], 1n, false],
        [[0], [1n], 2n, false],
      ],
    ],
  ])
  // The negation of a chain, and what differs, are disjunctions.
  assert.equal(strict('(not (<= -1 Y_0 2))'), [[[[[0], [1n], -1n, true]], [[[0], [-1n], -2n, true]]]])
  assert.equal(strict('(distinct Y_0 1)'), [[[below], [[[0], [-1n], -1n, true]]]])
  assert.equal(strict('(=> (>= Y_0 1) (<= Y_1 2))'), [[[below], [[[1], [1n], 2n, false]]]])
  assert.equal(strict('(= (< Y_0 1) true)'), [[[below]]])
  assert.equal(strict('(ite (< Y_0 1) (<= Y_1 2) false)'), [[[below, [[1], [1n], 2n, false]]]])
  assert.equal(strict('(let ((a (* 2 Y_0)) (f (<= Y_1 2))) (and f (< a 2)))'), [
    [
      [
        [[1], [1n], 2n, false],
        [[0], [2n], 2n, true],
      ],
    ],
  ])
  assert.equal(strict('(! (< Y_0 1) :named bound)'), [[[below]]])
  assert.equal(strict('(< Y_0 0x1.8p1)'), [[[[[0], [1n], 3n, true]]]])
  assert.equal(strict('(<= (/ Y_0 3) (/ 1 7))'), [[[[[0], [7n], 3n, false]]]])
  assert.equal(strict('(and)'), [[[[[], [], 0n, false]]]])
  assert.equal(strict('(or)'), [])
  assert.equal(strict('(< Y_0 Y_0)'), [])
  const script = `(set-logic QF_LRA)(set-info :status unsat)(declare-fun X_0 () Real)(declare-fun Y_0 () Real)
    (define-fun top () Real (/ 3 4))(assert (<= 0 X_0 top))(assert (> Y_0 top))(check-sat)(get-model)(exit)`
  assert.equal(plain(decode(script)), [{ lower: [0], upper: [0.75], unsafe: [[[-1, -0.75]]] }])
  // A symbol in bars is the same as without, one that needs them is another.
  const barred = script.replaceAll('X_0', '|X_0|').replace('> Y_0', '> |Y_0|').replace('fun top', 'fun |top|')
  assert.equal(plain(decode(barred)), plain(decode(script)))
  refused(/expected a name like X_0 or Y_0, found "\|X 0\|"/, '(declare-const |X 0| Real)')
})

test('strict bounds of inputs leave the ends out; disjuncts without a point vanish', () => {
  const box = (...assertions: readonly string[]) =>
    decode(`${declare(1, 1)} ${unit(1)} ${assertions.map((a) => `(assert ${a})`).join('\n')}`).cases.map((c) => [
      c.lower[0],
      c.upper[0],
      c.outward.lower[0],
      c.outward.upper[0],
    ])
  assert.equal(box('(> X_0 0)', '(< X_0 1)'), [[Number.MIN_VALUE, 1 - 2 ** -53, 0, 1]])
  // 0.1 is no double, so a strict bound leaves none out.
  assert.equal(box('(> X_0 0.1)'), [[0.1, 1, 0.09999999999999999, 1]])
  assert.equal(box('(>= X_0 2)'), [])
  assert.equal(box('(> X_0 1)'), [])
  assert.equal(box('(>= X_0 0.30000000000000000001)', '(<= X_0 0.3)'), [])
  assert.equal(box('(or (and (>= X_0 2) (<= Y_0 1)) (and (<= X_0 0.5) (<= Y_0 0)))'), [[0, 0.5, 0, 0.5]])
  assert.equal(box('(and (< X_0 0.1) (> X_0 0.1))'), [])
  // An open interval between two neighbouring doubles has numbers, and the middle one is named.
  const [{ between }] = decode(
    `${declare(1, 1)}(assert (< 1 X_0 1.0000000000000002220446049250313080847263336181640625))`,
  ).cases
  assert.equal([...between], [[0, { numerator: 9007199254740993n, denominator: 9007199254740992n }]])
})

test('constraints on several inputs, or on inputs and outputs, are about copies behind the outputs', () => {
  const p = decode(
    `${declare(3, 2)}${unit(3)}(assert (<= (- (* 1.5 X_1) X_2) -5))(assert (or (<= Y_0 X_2) (and (<= X_0 0.5) (<= Y_1 (* 2 X_1)))))`,
  )
  assert.equal([p.inputs, p.outputs, p.watched], [3, 4, [2, 4]])
  assert.equal(
    plain(p).map(({ upper, unsafe }) => [upper, unsafe]),
    [
      [
        [1, 1, 1],
        [
          [
            [0, 0, 1.5, -1, -5],
            [1, 0, 0, -1, 0],
          ],
        ],
      ],
      [
        [0.5, 1, 1],
        [
          [
            [0, 0, 1.5, -1, -5],
            [0, 1, -2, 0, 0],
          ],
        ],
      ],
    ],
  )
})

test('a formula that explodes, parentheses without end and long sums stay cheap', () => {
  const start = process.cpuUsage()
  const many = (n: number) => `(and ${'(or (<= Y_0 0) (<= Y_0 1)) '.repeat(n)})`
  assert.is(outputs(many(10)).cases[0].unsafe.length, 1024)
  refused(/the disjunctive normal form needs more than \d+ MB/, `${declare(1, 1)}${unit(1)}(assert ${many(40)})`)
  refused(/nested deeper than 1000/, '('.repeat(1_000_000))
  refused(/nested deeper/, `${declare(1, 1)}${unit(1)}(assert (<= ${'(- '.repeat(2000)}Y_0${')'.repeat(2000)} 1))`)
  const sum = `(+ ${'Y_0 '.repeat(100_000)})`
  assert.equal(constraints(`(<= ${sum} 1)`), [[[100_000, 0, 0, 1]]])
  refused(/too long/, `${declare(1, 1)}${unit(1)}(assert (<= (* ${'1e3000 '.repeat(100)}) Y_0))`)
  assert.ok(process.cpuUsage(start).user < 5e6, 'more than 5 seconds of computing')
})

test('a counterexample as VNN-COMP wants it', () => {
  assert.is(showCounterexample({ x: ['0.1', '-2'], y: ['0.5'] }), '((X_0 0.1)\n (X_1 -2)\n (Y_0 0.5))')
})

const folder = shared('vnnlib')
if (folder === undefined) skipped('real VNN-LIB files', 'shared/vnnlib is absent')
else {
  for (const file of readdirSync(folder).filter((f) => f.endsWith('.vnnlib')))
    test(`${file}: read as the text says`, () => {
      const text = readFileSync(`${folder}/${file}`, 'utf8')
      const p = decode(text)
      const label = Number(/label: (\d)/.exec(text)?.[1])
      assert.is(p.inputs, 784)
      assert.is(p.outputs, 10)
      assert.is(p.cases.length, 1)
      const [{ lower, upper, unsafe }] = p.cases
      for (const [, op, i, v] of text.matchAll(/\((<=|>=) X_(\d+) ([^)]*)\)/g))
        assert.ok(Math.abs((op === '<=' ? upper : lower)[Number(i)] - Number(v)) <= 2 ** -52 * Math.abs(Number(v)))
      assert.ok(lower.every((l, i) => l <= upper[i]))
      assert.is(unsafe.length, 9)
      unsafe.forEach(([{ coefficients, bound }], k) => {
        const other = k < label ? k : k + 1
        const want = new Float64Array(10)
        want[label] = 1
        want[other] = -1
        assert.equal(coefficients, want)
        assert.is(bound, 0)
      })
    })
}

test('what readers of SMT-LIB take differently is refused, and no assertion is lost in a text or a comment', () => {
  const low = '(assert (<= Y_0 -5))'
  const one = (...more: readonly string[]) => [declare(1, 3), unit(1), ...more].join('\n')
  refused(/carriage return alone within a comment/, one(`; a comment\r${low}`))
  refused(/assert comes after check-sat/, one(low, '(check-sat)', '(assert (<= Y_1 0))'))
  refused(/assert comes after exit/, one(low, '(exit)', '(assert (<= Y_1 0))'))
  refused(/declare-const comes after check-sat/, one('(check-sat)', '(declare-const Y_3 Real)'))
  refused(/f is defined twice/, one('(define-fun f () Real 1)', '(define-fun f () Real 2)', '(assert (<= Y_0 f))'))
  refused(/X_0 is defined twice, or is a variable/, one('(define-fun X_0 () Real 1)', low))
  // A backslash is a character like others, and a doubled quotation mark one of the text.
  for (const text of [
    one(`(set-info :source "a\\")${low}(set-info :notes "b")`),
    one('(set-info :source "a "" (b")', low),
    one(`(set-info :source |a "\\ ; (|)${low}`),
    one(`; a comment\r\n${low}\r`),
    one(low, '(check-sat)', '(get-model)', '(exit)'),
  ])
    assert.equal(plain(decode(text))[0].unsafe, [[[1, 0, 0, -5]]], text)
})

test('damaged text is refused or read as a property that is whole', () => {
  const path = shared('vnnlib/prop_2_0.05.vnnlib')
  const real = path === undefined ? [] : [readFileSync(path, 'utf8')]
  const samples = [
    `${declare(2, 3)}\n${unit(2)}\n(assert (or (and (<= Y_2 Y_0) (<= Y_2 Y_1)) (and (<= (+ Y_1 (* 2 Y_2)) -0.5e1))))`,
    `${declare(2, 2)}\n(assert (or (and (<= X_0 0.5) (>= X_0 0.25) (= X_1 1)) (and (>= X_0 -1) (<= X_0 0) (<= 0 X_1 ) (>= 1 X_1))))(assert (<= Y_0 1))`,
  ]
  const piece = fc.constantFrom(
    '(',
    ')',
    'and',
    'or',
    '<=',
    '>=',
    '=',
    '+',
    '-',
    '*',
    'X_0',
    'Y_1',
    '1e400',
    '-0.5',
    ';',
    ' ',
    '\n',
    'assert',
    '9',
  )
  const step = fc.tuple(
    fc.nat(),
    fc.constantFrom('cut', 'drop', 'insert', 'swap', 'char'),
    piece,
    fc.nat(20),
    fc.string({ maxLength: 2 }),
  )
  const damage = (text: string, steps: readonly (readonly [number, string, string, number, string])[], from: number) =>
    steps.reduce((t, [where, how, put, n, chars]) => {
      const at = Math.max(0, from < 0 ? t.length - 1 - (where % -from) : where % (t.length + 1))
      if (how === 'cut') return t.slice(0, at)
      if (how === 'drop') return t.slice(0, at) + t.slice(at + n)
      if (how === 'insert') return `${t.slice(0, at)} ${put} ${t.slice(at)}`
      if (how === 'char') return t.slice(0, at) + chars + t.slice(at + 1)
      return t.slice(0, at) + t.slice(at + n, at + 2 * n) + t.slice(at, at + n) + t.slice(at + 2 * n)
    }, text)
  let accepted = 0
  const check = (text: string): void => {
    const result = decodeVnnlib(text, 'p')
    if (E.isLeft(result)) return
    accepted++
    for (const { lower, upper, outward, between, unsafe } of result.right.cases) {
      assert.is(lower.length, result.right.inputs)
      for (let i = 0; i < lower.length; i++) {
        assert.ok(Number.isFinite(lower[i]) && Number.isFinite(upper[i]) && outward.lower[i] <= outward.upper[i])
        assert.ok(lower[i] <= upper[i] || between.has(i))
        assert.ok(outward.lower[i] <= lower[i] && upper[i] <= outward.upper[i])
      }
      assert.ok(unsafe.length > 0)
      for (const c of unsafe.flat()) {
        assert.is(c.coefficients.length, result.right.outputs)
        assert.ok(!Number.isNaN(c.bound) && c.bound <= c.outward && c.coefficients.every(Number.isFinite))
      }
    }
  }
  const steps = fc.array(step, { minLength: 1, maxLength: 3 })
  fc.assert(
    fc.property(fc.constantFrom(...samples), steps, (text, s) => check(damage(text, s, 0))),
    { numRuns: 8000 },
  )
  if (real.length === 0) skipped('damaged real properties', 'shared/vnnlib is absent')
  else
    fc.assert(
      fc.property(steps, (s) => check(damage(real[0], s, -600))),
      { numRuns: 300 },
    )
  assert.ok(accepted > 100, `${accepted} damaged texts were still properties`)
})

test.run()
