import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError, raise, usage } from '../core/error.ts'

/** A linear constraint on the outputs: coefficients . y <= bound. */
export interface OutputConstraint {
  /** Exactly those of the file, up to one positive factor for the whole constraint. */
  readonly coefficients: Float64Array
  /** The double nearest to the number of the file. */
  readonly bound: number
  /** The smallest double that is not below it: the constraint is no stronger than the file's. */
  readonly outward: number
}

/** A box of inputs, and what must not happen in it. */
export interface PropertyCase {
  /** Bounds of each input, the doubles nearest to the numbers of the file: lower may lie above its decimal, upper below. */
  readonly lower: Float64Array
  readonly upper: Float64Array
  /** The nearest doubles that enclose the box of the file: what a proof must cover. */
  readonly outward: { readonly lower: Float64Array; readonly upper: Float64Array }
  /**
   * Conjunctions of constraints: an input of the box is a counterexample if its output satisfies every constraint of at least
   * one of them.
   */
  readonly unsafe: readonly (readonly OutputConstraint[])[]
}

/** A property in disjunctive normal form: it holds (unsat) iff no case has a counterexample. */
export interface Property {
  readonly inputs: number
  readonly outputs: number
  readonly cases: readonly PropertyCase[]
}

/** Nesting of parentheses; parts of one assertion; conjunctions and atoms of the disjunctive normal form; numbers in boxes. */
const MAX_DEPTH = 256
const MAX_PARTS = 2 ** 23
const MAX_CONJUNCTIONS = 2 ** 14
const MAX_ATOMS = 2 ** 22
const MAX_NUMBERS = 2 ** 23
const MAX_INDEX = 10_000_000
const MAX_DIGITS = 400
const MAX_EXPONENT = 400

/** What is wrong, and where in the text. Caught in `decodeVnnlib`. */
class Malformed extends Error {
  constructor(
    override readonly message: string,
    readonly at: number | undefined,
  ) {
    super(message)
  }
}
const fail = (message: string, at?: number): never => {
  throw new Malformed(message, at)
}

const quote = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text)

// ---- exact decimals ------------------------------------------------------------------------------------------------

/** digits 10^exponent; digits has no trailing zero, and 0 has exponent 0. */
interface Decimal {
  readonly digits: bigint
  readonly exponent: number
}
const ZERO: Decimal = { digits: 0n, exponent: 0 }
const ONE: Decimal = { digits: 1n, exponent: 0 }
const LONGEST = 10n ** BigInt(4 * MAX_DIGITS)

const decimal = (digits: bigint, exponent: number, at: number): Decimal => {
  if (digits === 0n) return ZERO
  if (digits > LONGEST || digits < -LONGEST || Math.abs(exponent) > 10 * MAX_EXPONENT)
    return fail('a number is too long', at)
  let [d, e] = [digits, exponent]
  for (; d % 10n === 0n; e++) d /= 10n
  return { digits: d, exponent: e }
}

const NUMBER = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,6}))?$/

/** The exact value of a decimal text, or undefined where it is none. */
const parseDecimal = (text: string, at: number): Decimal | undefined => {
  if (text.length > MAX_DIGITS)
    return /^[+-]?[\d.]/.test(text) ? fail(`a number of ${text.length} characters`, at) : undefined
  const match = NUMBER.exec(text)
  if (match === null) return undefined
  const [, sign, whole, fraction = '', exponent = '0'] = match
  if (whole === '' && fraction === '') return undefined
  if (Math.abs(Number(exponent)) > MAX_EXPONENT) return fail(`the number ${quote(text)} is out of range`, at)
  const digits = BigInt(whole + fraction)
  return decimal(sign === '-' ? -digits : digits, Number(exponent) - fraction.length, at)
}

const plus = (a: Decimal, b: Decimal, at: number): Decimal => {
  if (a.digits === 0n) return b
  if (b.digits === 0n) return a
  const e = Math.min(a.exponent, b.exponent)
  return decimal(a.digits * 10n ** BigInt(a.exponent - e) + b.digits * 10n ** BigInt(b.exponent - e), e, at)
}
const times = (a: Decimal, b: Decimal, at: number): Decimal => decimal(a.digits * b.digits, a.exponent + b.exponent, at)
const minus = (a: Decimal): Decimal => ({ digits: -a.digits, exponent: a.exponent })

/** A quotient of integers times a power of ten, the denominator positive. */
interface Quotient {
  readonly numerator: bigint
  readonly denominator: bigint
  readonly exponent: number
}
const over = (a: Decimal, b: Decimal): Quotient => ({
  numerator: b.digits < 0n ? -a.digits : a.digits,
  denominator: b.digits < 0n ? -b.digits : b.digits,
  exponent: a.exponent - b.exponent,
})

/** The double nearest to q. */
const nearest = ({ numerator, denominator, exponent }: Quotient, at: number): number => {
  // 60 digits of the quotient, and a last one that tells whether it goes on: enough to round rightly.
  const text =
    denominator === 1n
      ? `${numerator}e${exponent}`
      : `${(numerator * 10n ** 60n) / denominator}${(numerator * 10n ** 60n) % denominator === 0n ? '0' : '1'}e${exponent - 61}`
  const v = Number(text)
  return Number.isFinite(v) ? v + 0 : fail('a number is out of the range of doubles', at)
}

const bits = new DataView(new ArrayBuffer(8))

/** The sign of v - q, exactly. */
const compare = (v: number, { numerator, denominator, exponent }: Quotient): number => {
  bits.setFloat64(0, v)
  const word = bits.getBigUint64(0)
  const biased = Number((word >> 52n) & 0x7ffn)
  const fraction = word & 0xfffffffffffffn
  const mantissa = (biased === 0 ? fraction : fraction | (1n << 52n)) * (v < 0 ? -1n : 1n)
  const power = Math.max(biased, 1) - 1075
  const left =
    mantissa * denominator * (power > 0 ? 1n << BigInt(power) : 1n) * (exponent < 0 ? 10n ** BigInt(-exponent) : 1n)
  const right = numerator * (exponent > 0 ? 10n ** BigInt(exponent) : 1n) * (power < 0 ? 1n << BigInt(-power) : 1n)
  return left < right ? -1 : left > right ? 1 : 0
}

/** The next double above v. */
const above = (v: number): number => {
  if (v === 0) return Number.MIN_VALUE
  bits.setFloat64(0, v)
  bits.setBigInt64(0, bits.getBigInt64(0) + (v > 0 ? 1n : -1n))
  return bits.getFloat64(0)
}
const below = (v: number): number => -above(-v)

/** A number of the file: its nearest double and the doubles that enclose it. */
interface Rounded {
  readonly value: number
  readonly low: number
  readonly high: number
}
const rounded = (q: Quotient, at: number): Rounded => {
  const value = nearest(q, at)
  const side = compare(value, q)
  return { value, low: side > 0 ? below(value) : value, high: side < 0 ? above(value) : value }
}
const isExact = (d: Decimal, at: number): boolean => compare(nearest(over(d, ONE), at), over(d, ONE)) === 0

// ---- s-expressions -------------------------------------------------------------------------------------------------

interface Atom {
  readonly text: string
  readonly at: number
}
interface List {
  readonly items: readonly Sexpr[]
  readonly at: number
}
type Sexpr = Atom | List

/** Calls `visit` on every form at the top of the text, one after the other. */
const eachForm = (text: string, visit: (form: Sexpr) => void): void => {
  const open: { readonly items: Sexpr[]; readonly at: number }[] = []
  const delimiter = /[\s();]/
  let parts = 0
  const put = (x: Sexpr): void => {
    if (++parts > MAX_PARTS) fail(`one form has more than ${MAX_PARTS} parts`, x.at)
    const parent = open.at(-1)
    if (parent !== undefined) parent.items.push(x)
    else {
      visit(x)
      parts = 0
    }
  }
  for (let i = 0; i < text.length; ) {
    const c = text[i]
    if (c === ';') {
      const end = text.indexOf('\n', i)
      i = end < 0 ? text.length : end
    } else if (c === '(') {
      if (open.push({ items: [], at: i }) > MAX_DEPTH) fail(`parentheses are nested deeper than ${MAX_DEPTH}`, i)
      i++
    } else if (c === ')') {
      const closed = open.pop()
      put(closed ?? fail('this parenthesis closes nothing', i))
      i++
    } else if (c === ' ' || c === '\n' || c === '\r' || c === '\t') {
      i++
    } else {
      let end = i
      while (end < text.length && !delimiter.test(text[end])) end++
      if (end === i) fail(`unexpected character ${quote(c)}`, i)
      put({ text: text.slice(i, end), at: i })
      i = end
    }
  }
  const last = open.at(-1)
  if (last !== undefined) fail('this parenthesis is never closed', last.at)
}

// ---- terms and formulas --------------------------------------------------------------------------------------------

/** Variables are numbers: X_i is 2 i, Y_j is 2 j + 1. */
interface Linear {
  readonly coefficients: ReadonlyMap<number, Decimal>
  readonly constant: Decimal
}

const nameOf = (v: number): string => (v % 2 === 0 ? `X_${v / 2}` : `Y_${(v - 1) / 2}`)

const VARIABLE = /^([XY])_(0|[1-9]\d{0,8})$/
const variableOf = (text: string): number | undefined => {
  const match = VARIABLE.exec(text)
  return match === null ? undefined : 2 * Number(match[2]) + (match[1] === 'Y' ? 1 : 0)
}

/** a + factor b. */
const combine = (a: Linear, b: Linear, factor: Decimal, at: number): Linear => {
  const coefficients = new Map(a.coefficients)
  for (const [v, c] of b.coefficients) {
    const total = plus(coefficients.get(v) ?? ZERO, times(c, factor, at), at)
    if (total.digits === 0n) coefficients.delete(v)
    else coefficients.set(v, total)
  }
  return { coefficients, constant: plus(a.constant, times(b.constant, factor, at), at) }
}
const NOTHING: Linear = { coefficients: new Map(), constant: ZERO }
const MINUS_ONE = minus(ONE)

const head = (x: List): Atom => {
  const [first] = x.items
  return first !== undefined && 'text' in first ? first : fail('expected an operator after the parenthesis', x.at)
}

const linear = (x: Sexpr, declared: ReadonlySet<number>): Linear => {
  if ('text' in x) {
    const v = variableOf(x.text)
    if (v !== undefined)
      return declared.has(v)
        ? { coefficients: new Map([[v, ONE]]), constant: ZERO }
        : fail(`${x.text} is not declared`, x.at)
    const number = parseDecimal(x.text, x.at)
    return number === undefined
      ? fail(`expected a number or a variable, found ${quote(x.text)}`, x.at)
      : { coefficients: new Map(), constant: number }
  }
  const { text, at } = head(x)
  const operands = x.items.slice(1)
  if (!['+', '-', '*'].includes(text)) return fail(`expected +, - or * in a term, found ${quote(text)}`, at)
  if (operands.length === 0) return fail(`${text} has no operands`, at)
  const terms = operands.map((o) => linear(o, declared))
  if (text === '*') {
    return terms.reduce((a, b) => {
      if (a.coefficients.size > 0 && b.coefficients.size > 0) return fail('a product of variables is not linear', at)
      return a.coefficients.size > 0 ? combine(NOTHING, a, b.constant, at) : combine(NOTHING, b, a.constant, at)
    })
  }
  if (text === '-' && terms.length === 1) return combine(NOTHING, terms[0], MINUS_ONE, at)
  // The first term is copied once; a long sum is linear in its length.
  const coefficients = new Map(terms[0].coefficients)
  let constant = terms[0].constant
  const factor = text === '-' ? MINUS_ONE : ONE
  for (const t of terms.slice(1)) {
    constant = plus(constant, times(t.constant, factor, at), at)
    for (const [v, c] of t.coefficients) {
      const total = plus(coefficients.get(v) ?? ZERO, times(c, factor, at), at)
      if (total.digits === 0n) coefficients.delete(v)
      else coefficients.set(v, total)
    }
  }
  return { coefficients, constant }
}

/** coefficients . v <= bound, with at least one variable, all of them inputs or all outputs. */
interface Inequality {
  readonly coefficients: ReadonlyMap<number, Decimal>
  readonly bound: Decimal
  readonly at: number
}
type Conjunction = readonly Inequality[]

/** small <= large as a formula in disjunctive normal form: one inequality, or true, or false. */
const inequality = (small: Linear, large: Linear, at: number): readonly Conjunction[] => {
  const difference = combine(small, large, MINUS_ONE, at)
  const variables = [...difference.coefficients.keys()]
  if (variables.length === 0) return difference.constant.digits <= 0n ? [[]] : []
  const inputs = variables.filter((v) => v % 2 === 0).length
  if (inputs > 0 && inputs < variables.length)
    return fail('a constraint on inputs and outputs at once is not supported', at)
  if (inputs > 1)
    return fail(
      `a constraint on ${inputs} inputs at once is not a box (${variables.slice(0, 3).map(nameOf).join(', ')})`,
      at,
    )
  return [[{ coefficients: difference.coefficients, bound: minus(difference.constant), at }]]
}

const product = (a: readonly Conjunction[], b: readonly Conjunction[], at: number): readonly Conjunction[] => {
  const atoms = (list: readonly Conjunction[]) => list.reduce((n, c) => n + c.length, 0)
  if (a.length * b.length > MAX_CONJUNCTIONS || atoms(a) * b.length + atoms(b) * a.length > MAX_ATOMS)
    return fail('the disjunctive normal form of this assertion is too large', at)
  return a.flatMap((p) => b.map((q) => [...p, ...q]))
}

/** A formula in disjunctive normal form. */
const formula = (x: Sexpr, declared: ReadonlySet<number>): readonly Conjunction[] => {
  if ('text' in x) return fail(`expected a formula, found ${quote(x.text)}`, x.at)
  const { text, at } = head(x)
  const operands = x.items.slice(1)
  if (operands.length === 0) return fail(`${quote(text)} has no operands`, at)
  if (text === 'or') {
    const all = operands.flatMap((o) => formula(o, declared))
    return all.length <= MAX_CONJUNCTIONS ? all : fail('the disjunctive normal form of this assertion is too large', at)
  }
  if (text === 'and') {
    // What is certain in every conjunction is gathered once.
    const certain: Inequality[] = []
    let open: readonly Conjunction[] = [[]]
    for (const o of operands) {
      const part = formula(o, declared)
      if (part.length === 1) for (const i of part[0]) certain.push(i)
      else open = product(open, part, at)
    }
    return product([certain], open, at)
  }
  if (text !== '<=' && text !== '>=' && text !== '=')
    return fail(`expected and, or, <=, >= or =, found ${quote(text)}`, at)
  if (operands.length !== 2) return fail(`${text} takes two terms, found ${operands.length}`, at)
  const [a, b] = operands.map((o) => linear(o, declared))
  if (text === '<=') return inequality(a, b, at)
  if (text === '>=') return inequality(b, a, at)
  return product(inequality(a, b, at), inequality(b, a, at), at)
}

// ---- boxes ---------------------------------------------------------------------------------------------------------

interface Box {
  readonly lower: Float64Array
  readonly upper: Float64Array
  readonly outward: { readonly lower: Float64Array; readonly upper: Float64Array }
}

const filled = (n: number): Box => {
  const side = (v: number) => new Float64Array(n).fill(v)
  const [low, high] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]
  return { lower: side(low), upper: side(high), outward: { lower: side(low), upper: side(high) } }
}
const copied = ({ lower, upper, outward }: Box): Box => ({
  lower: lower.slice(),
  upper: upper.slice(),
  outward: { lower: outward.lower.slice(), upper: outward.upper.slice() },
})

/** Tightens a box by an inequality on one input; returns its index. */
const tighten = (box: Box, { coefficients, bound, at }: Inequality): number => {
  const [[v, c]] = coefficients
  const i = v / 2
  const { value, low, high } = rounded(over(bound, c), at)
  if (c.digits > 0n) {
    box.upper[i] = Math.min(box.upper[i], value)
    box.outward.upper[i] = Math.min(box.outward.upper[i], high)
  } else {
    box.lower[i] = Math.max(box.lower[i], value)
    box.outward.lower[i] = Math.max(box.outward.lower[i], low)
  }
  return i
}

const isInput = ({ coefficients }: Inequality): boolean => (coefficients.keys().next().value as number) % 2 === 0

/** An inequality on outputs in doubles, scaled by a power of ten where a coefficient is no double. */
const constraint = (outputs: number, { coefficients, bound, at }: Inequality): OutputConstraint => {
  const exact = [...coefficients.values()].every((c) => isExact(c, at))
  const shift = exact ? 0 : Math.max(...[...coefficients.values()].map((c) => -c.exponent))
  const scaled = (d: Decimal) => decimal(d.digits, d.exponent + shift, at)
  const out = new Float64Array(outputs)
  for (const [v, c] of coefficients) {
    const d = scaled(c)
    if (!isExact(d, at)) fail(`the coefficient of ${nameOf(v)} has more digits than a double holds`, at)
    out[(v - 1) / 2] = nearest(over(d, ONE), at)
  }
  const b = rounded(over(scaled(bound), ONE), at)
  return { coefficients: out, bound: b.value, outward: b.high }
}

const checkBox = ({ lower, upper }: Box, at: number | undefined): void => {
  for (let i = 0; i < lower.length; i++) {
    if (lower[i] === Number.NEGATIVE_INFINITY) fail(`X_${i} has no lower bound`, at)
    if (upper[i] === Number.POSITIVE_INFINITY) fail(`X_${i} has no upper bound`, at)
    if (lower[i] > upper[i]) fail(`X_${i} has the lower bound ${lower[i]} above its upper bound ${upper[i]}`, at)
  }
}

/** How many X or Y are declared: 0 .. n-1, none left out. */
const countOf = (declared: ReadonlySet<number>, kind: 'X' | 'Y'): number => {
  const parity = kind === 'X' ? 0 : 1
  let n = 0
  for (const v of declared) if (v % 2 === parity) n++
  if (n === 0) fail(`no ${kind === 'X' ? 'input' : 'output'} is declared (${kind}_0, ${kind}_1, ...)`)
  for (let i = 0; i < n; i++) if (!declared.has(2 * i + parity)) fail(`${n} ${kind} are declared, but not ${kind}_${i}`)
  return n
}

const property = (text: string): Property => {
  const declared = new Set<number>()
  const certain: Inequality[] = []
  let open: readonly Conjunction[] = [[]]
  let lastAt: number | undefined
  eachForm(text, (form) => {
    if ('text' in form) return fail(`expected (declare-const ...) or (assert ...), found ${quote(form.text)}`, form.at)
    const { text: command, at } = head(form)
    const operands = form.items.slice(1)
    if (command === 'declare-const') {
      const [name, sort] = operands
      if (operands.length !== 2 || !('text' in name) || !('text' in sort))
        return fail('expected (declare-const NAME Real)', at)
      const v = variableOf(name.text)
      if (v === undefined || v > 2 * MAX_INDEX)
        return fail(`expected a name like X_0 or Y_0, found ${quote(name.text)}`, name.at)
      if (sort.text !== 'Real') return fail(`expected the sort Real, found ${quote(sort.text)}`, sort.at)
      if (declared.has(v)) return fail(`${name.text} is declared twice`, name.at)
      declared.add(v)
      return
    }
    if (command !== 'assert') return fail(`expected declare-const or assert, found ${quote(command)}`, at)
    if (operands.length !== 1) return fail(`assert takes one formula, found ${operands.length}`, at)
    lastAt = at
    const part = formula(operands[0], declared)
    if (part.length === 1) for (const i of part[0]) certain.push(i)
    else open = product(open, part, at)
  })

  const [inputs, outputs] = [countOf(declared, 'X'), countOf(declared, 'Y')]
  const shared = certain.filter((i) => !isInput(i)).map((i) => constraint(outputs, i))
  const base = filled(inputs)
  for (const i of certain) if (isInput(i)) tighten(base, i)
  const cases = new Map<string, { readonly box: Box; readonly unsafe: (readonly OutputConstraint[])[] }>()
  for (const conjunction of open) {
    const own = conjunction.filter(isInput)
    const outer = conjunction.filter((i) => !isInput(i))
    const at = conjunction[0]?.at ?? lastAt
    if (shared.length + outer.length === 0) fail('no constraint on the outputs', at)
    const box = own.length === 0 ? base : copied(base)
    const touched = [...new Set(own.map((i) => tighten(box, i)))].sort((a, b) => a - b)
    const key = touched
      .map((i) => `${i}:${box.outward.lower[i]}:${box.outward.upper[i]}:${box.lower[i]}:${box.upper[i]}`)
      .join()
    const known = cases.get(key)
    if (known === undefined) checkBox(box, at)
    const entry = known ?? { box, unsafe: [] }
    entry.unsafe.push([...shared, ...outer.map((i) => constraint(outputs, i))])
    cases.set(key, entry)
    if (cases.size * inputs > MAX_NUMBERS) fail('the boxes of this property are too many', at)
  }
  return { inputs, outputs, cases: [...cases.values()].map(({ box, unsafe }) => ({ ...box, unsafe })) }
}

/** `line 3, column 7` of an offset. */
const placeOf = (text: string, at: number): string => {
  const before = text.slice(0, at)
  const line = before.split('\n').length
  return `line ${line}, column ${at - before.lastIndexOf('\n')}`
}

/**
 * Decodes a VNN-LIB property (https://www.vnnlib.org, as VNN-COMP uses it): declarations of inputs X_i and outputs Y_j as Real, and
 * assertions in `and`, `or`, `<=`, `>=`, `=` over linear terms (`+`, `-`, `*`, decimal numbers). All assertions together describe the
 * *counterexamples*; they are brought to a disjunction of boxes with constraints on the outputs. Numbers are read exactly,
 * combined exactly, and rounded once, to the nearest double and, beside it, outward.
 *
 * Errors name line and column: unbalanced parentheses, unknown commands, names, operators, numbers; what is not linear, not
 * declared, or relates several inputs or inputs with outputs; strict inequalities; an input without bounds or with crossed ones; no
 * constraint on the outputs; a disjunctive normal form of more than 2^14 conjunctions or 2^22 inequalities.
 */
export const decodeVnnlib = (text: string, path: string): E.Either<MixtrainError, Property> =>
  E.tryCatch(
    () => property(text),
    (cause) => {
      if (!(cause instanceof Malformed)) throw cause
      return fileError(path, cause.message, cause.at === undefined ? undefined : placeOf(text, cause.at))
    },
  )

/** A counterexample as VNN-COMP wants it: `((X_0 0.1)\n (X_1 0.2)\n (Y_0 3))`, shortest decimals that give the same doubles. */
export const showCounterexample = (x: ArrayLike<number>, y: ArrayLike<number>): string => {
  const lines = (name: string, values: ArrayLike<number>) =>
    Array.from(values, (v, i) =>
      Number.isFinite(v)
        ? `(${name}_${i} ${v})`
        : raise(usage(`a counterexample of finite numbers has ${name}_${i} = ${v}`)),
    )
  return `(${[...lines('X', x), ...lines('Y', y)].join('\n ')})`
}
