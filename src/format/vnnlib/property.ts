import { above, below, compare, gcd, nearest, over, plus, type Rational, ratio, times } from '../../core/rational.ts'
import { nextDouble } from '../../core/rounding.ts'
import type { Conjunction, Inequality, Variable } from './formula.ts'
import { fail } from './scan.ts'

/** A linear constraint on what a property watches, coefficients . y <= bound, in three forms. */
interface OutputConstraint {
  /** Float32 numbers: exactly those of the file, up to one positive factor for the whole constraint. */
  readonly coefficients: Float64Array
  /** The double nearest to the number of the file. */
  readonly bound: number
  /** The smallest double that is not below it: the constraint is no stronger than the file's, strict or not. */
  readonly outward: number
  readonly exact: ExactConstraint
}

/** sum of coefficients[k] y[indices[k]] <= bound, or < where strict: the constraint of the file, multiplied by what makes it whole. */
export interface ExactConstraint {
  readonly indices: readonly number[]
  readonly coefficients: readonly bigint[]
  readonly bound: bigint
  readonly strict: boolean
}

/** A box of inputs, and what must not happen in it. */
interface PropertyCase {
  /** The least and the greatest double in the box of the file: a double lies in the one exactly if it lies in the other. Crossed where it has none. */
  readonly lower: Float64Array
  readonly upper: Float64Array
  /** The nearest doubles that enclose the box of the file: what a proof must cover. */
  readonly outward: { readonly lower: Float64Array; readonly upper: Float64Array }
  /** A number of the box for each input whose box has no double, such as [0.1, 0.1]. */
  readonly between: ReadonlyMap<number, Rational>
  /**
   * Conjunctions of constraints: an input of the box is a counterexample if its output satisfies every constraint of at least
   * one of them.
   */
  readonly unsafe: readonly (readonly OutputConstraint[])[]
}

/** A tensor that a property declares; its elements are numbered through, inputs and outputs each. */
export interface Declared {
  readonly name: string
  readonly kind: 'input' | 'hidden' | 'output'
  /** As the file spells it. */
  readonly type: string
  /** Undefined where only single elements are declared. */
  readonly shape: readonly number[] | undefined
  readonly first: number
  readonly size: number
  /** The node of the ONNX file, of a hidden tensor. */
  readonly node?: string
}

/** A network that a property is about. */
export interface NetworkInterface {
  /** Empty in VNN-LIB 1.0. */
  readonly name: string
  /** Another network that it is (`equal`), or that it has the shapes and ops of (`isomorphic`). */
  readonly like?: { readonly kind: 'equal' | 'isomorphic'; readonly name: string }
  readonly tensors: readonly Declared[]
}

/** A property in disjunctive normal form: it holds (unsat) iff no case has a counterexample. */
export interface Property {
  readonly version: 1 | 2
  readonly networks: readonly NetworkInterface[]
  /** Element type of all tensors: numbers are real, or float32 as networks are executed. Undefined in VNN-LIB 1.0, which does not say. */
  readonly type: 'real' | 'float32' | undefined
  readonly inputs: number
  /** What coefficients are about: the outputs of the networks, and then what is `watched` besides. */
  readonly outputs: number
  /**
   * Variables (input i is 2 i, output j is 2 j + 1) that constraints mention besides the outputs, in order: inputs that several together are constrained, and outputs once more
   * where a coefficient is the sum of several float32 numbers.
   */
  readonly watched: readonly number[]
  readonly cases: readonly PropertyCase[]
}

// ---- boxes -----------------------------------------------------------------------------------------------------------

interface Box {
  readonly lower: Float64Array
  readonly upper: Float64Array
  readonly outward: { readonly lower: Float64Array; readonly upper: Float64Array }
  /** Ends of the file, which tell whether a box without doubles is empty; those that are not here are those of `outer`. */
  readonly ends: Map<number, Ends>
  readonly outer: Box | undefined
}
interface Ends {
  readonly lower?: End | undefined
  readonly upper?: End | undefined
}
interface End {
  readonly value: Rational
  readonly strict: boolean
}

const filled = (n: number): Box => {
  const side = (v: number) => new Float64Array(n).fill(v)
  const [low, high] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]
  return {
    lower: side(low),
    upper: side(high),
    outward: { lower: side(low), upper: side(high) },
    ends: new Map(),
    outer: undefined,
  }
}
const within = (outer: Box): Box => ({
  lower: outer.lower.slice(),
  upper: outer.upper.slice(),
  outward: { lower: outer.outward.lower.slice(), upper: outer.outward.upper.slice() },
  ends: new Map(),
  outer,
})
const endsOf = (box: Box, i: number): Ends => box.ends.get(i) ?? box.outer?.ends.get(i) ?? {}

const isBound = ({ variables }: Inequality): boolean => variables.length === 1 && variables[0] % 2 === 0

/** Tightens a box by an inequality on one input; returns its index. */
const tighten = (box: Box, { variables: [v], coefficients: [c], bound, strict }: Inequality): number => {
  const i = v / 2
  const value = c.numerator === c.denominator ? bound : over(bound, c)
  const [low, high] = [below(value), above(value)]
  const ends = endsOf(box, i)
  if (c.numerator > 0n) {
    const inward = strict && low === high ? -nextDouble(-low) : low
    if (inward < box.upper[i]) box.upper[i] = inward
    if (high < box.outward.upper[i]) box.outward.upper[i] = high
    const side = ends.upper === undefined ? -1 : compare(value, ends.upper.value)
    if (side < 0 || (side === 0 && strict)) box.ends.set(i, { ...ends, upper: { value, strict } })
  } else {
    const inward = strict && low === high ? nextDouble(high) : high
    if (inward > box.lower[i]) box.lower[i] = inward
    if (low > box.outward.lower[i]) box.outward.lower[i] = low
    const side = ends.lower === undefined ? 1 : compare(value, ends.lower.value)
    if (side > 0 || (side === 0 && strict)) box.ends.set(i, { ...ends, lower: { value, strict } })
  }
  return i
}

const HALF: Rational = { numerator: 1n, denominator: 2n }

/** Numbers for those inputs whose box has no double; undefined where a box has no number at all. */
const numbersBetween = (box: Box, inputs: Iterable<number>): ReadonlyMap<number, Rational> | undefined => {
  const found = new Map<number, Rational>()
  for (const i of inputs) {
    const { lower, upper } = endsOf(box, i)
    if (box.lower[i] <= box.upper[i] || lower === undefined || upper === undefined) continue
    const side = compare(lower.value, upper.value)
    if (side > 0 || (side === 0 && (lower.strict || upper.strict))) return undefined
    const middle = () => times(plus(lower.value, upper.value), HALF)
    found.set(i, !lower.strict ? lower.value : !upper.strict ? upper.value : middle())
  }
  return found
}

// ---- constraints on what is watched ----------------------------------------------------------------------------------

const bitsOf = (a: bigint): number => (a < 0n ? -a : a).toString(2).length

/** An integer times 2^-shift in float32 numbers that add up to it; undefined where they would be more than `most`. */
const pieces = (whole: bigint, shift: number, most: number): readonly number[] | undefined => {
  const found: number[] = []
  for (let rest = whole; rest !== 0n; ) {
    if (found.length === most) return undefined
    const drop = Math.max(0, bitsOf(rest) - 24)
    // Towards 0, so that what is left has the same sign and fewer bits.
    const top = (
      rest < 0n ? -((-rest >> BigInt(drop)) << BigInt(drop)) : (rest >> BigInt(drop)) << BigInt(drop)
    ) as bigint
    const value = nearest(
      shift >= 0 ? ratio(top, 1n << BigInt(shift)) : { numerator: top << BigInt(-shift), denominator: 1n },
    )
    if (Math.fround(value) !== value || !Number.isFinite(value)) return undefined
    found.push(value)
    rest -= top
  }
  return found
}
/** Float32 numbers that one coefficient may be the sum of. */
const MOST_PIECES = 4

const lcm = (a: bigint, b: bigint): bigint => (a / gcd(a, b)) * b

/** Coefficients of constraints: in float32 pieces with their places, and as whole numbers. */
interface Row {
  readonly terms: readonly (readonly [place: number, value: number])[]
  readonly indices: readonly number[]
  readonly integers: readonly bigint[]
  /** What the constraint of the file is multiplied by, for `terms` and for `integers`. */
  readonly factor: Rational
  readonly whole: Rational
}

/** Constraints of one property: those with the same coefficients share them. */
const rowsOf = (outputs: number, nameOf: (v: Variable) => string) => {
  const watched: Variable[] = []
  const places = new Map<string, number>()
  const rows = new Map<string, Row>()

  /** Where the k-th float32 piece of the coefficient of a variable stands. */
  const placeOf = (v: Variable, k: number): number => {
    if (v % 2 === 1 && k === 0) return (v - 1) / 2
    const key = `${v}:${k}`
    const place = places.get(key) ?? outputs + watched.length
    if (!places.has(key)) {
      places.set(key, place)
      watched.push(v)
    }
    return place
  }

  const made = ({ variables, coefficients, at }: Inequality): Row => {
    const whole = coefficients.reduce((d, c) => lcm(d, c.denominator), 1n)
    const integers = coefficients.map((c) => c.numerator * (whole / c.denominator))
    // Coefficients that are doubles stay as they are, others keep their size; what float32 does not reach is scaled to 1.
    const shifts = [bitsOf(whole) - 1, Math.max(...integers.map(bitsOf)) - 1]
    const [shift, parts] = shifts
      .map((n) => [n, integers.map((c) => pieces(c, n, MOST_PIECES))] as const)
      .find(([, all]) => all.every((p) => p !== undefined)) ?? [0, []]
    if (parts.length === 0)
      fail(`the coefficient of ${nameOf(variables[0])} has more digits than ${MOST_PIECES} float32 numbers hold`, at)
    return {
      terms: parts.flatMap((p, i) =>
        (p as readonly number[]).map((value, k) => [placeOf(variables[i], k), value] as const),
      ),
      indices: variables.map((v) => placeOf(v, 0)),
      integers,
      factor: ratio(whole, 1n << BigInt(shift)),
      whole: { numerator: whole, denominator: 1n },
    }
  }

  const rowOf = (inequality: Inequality): Row => {
    const { variables, coefficients } = inequality
    const key = variables.map((v, i) => `${v}*${coefficients[i].numerator}/${coefficients[i].denominator}`).join()
    const row = rows.get(key) ?? made(inequality)
    rows.set(key, row)
    return row
  }

  return {
    watched,
    see: (inequality: Inequality): void => {
      rowOf(inequality)
    },
    /** To be called once all constraints were seen, as only then it is known what is watched. */
    finish: () => {
      const arrays = new Map<Row, Float64Array>()
      return (inequality: Inequality): OutputConstraint => {
        const row = rowOf(inequality)
        const known = arrays.get(row)
        const coefficients = known ?? new Float64Array(outputs + watched.length)
        if (known === undefined) {
          for (const [place, value] of row.terms) coefficients[place] = value
          arrays.set(row, coefficients)
        }
        const bound = times(inequality.bound, row.factor)
        const { numerator, denominator } = times(inequality.bound, row.whole)
        return {
          coefficients,
          bound: nearest(bound),
          outward: above(bound),
          exact: {
            indices: row.indices,
            coefficients: denominator === 1n ? row.integers : row.integers.map((c) => c * denominator),
            bound: numerator,
            strict: inequality.strict,
          },
        }
      }
    },
  }
}

/** The constraint that every output meets. */
const always = (width: number): OutputConstraint => ({
  coefficients: new Float64Array(width),
  bound: 0,
  outward: 0,
  exact: { indices: [], coefficients: [], bound: 0n, strict: false },
})

// ---- the property ----------------------------------------------------------------------------------------------------

/** What was asserted: what holds in any case, and then one of these conjunctions, which may come one after the other. */
export interface Asserted {
  readonly certain: Conjunction
  readonly open: () => Iterable<Conjunction>
  readonly inputs: number
  readonly outputs: number
  readonly nameOf: (v: Variable) => string
  /** Bytes that boxes and constraints may take. */
  readonly memory: number
}

/** Characters of a box that is looked for among all. */
const SHORT = 400

const checkBox = ({ lower, upper }: Box, nameOf: (v: Variable) => string, at: number | undefined): void => {
  for (let i = 0; i < lower.length; i++) {
    if (lower[i] === Number.NEGATIVE_INFINITY) fail(`${nameOf(2 * i)} has no lower bound`, at)
    if (upper[i] === Number.POSITIVE_INFINITY) fail(`${nameOf(2 * i)} has no upper bound`, at)
  }
}

/** Boxes and what is unsafe in them. Conjunctions with the same box are one case; those without a point vanish. */
export const casesOf = ({
  certain,
  open,
  inputs,
  outputs,
  nameOf,
  memory,
}: Asserted): Pick<Property, 'outputs' | 'watched' | 'cases'> => {
  const rows = rowsOf(outputs, nameOf)
  const base = filled(inputs)
  for (const i of certain) if (isBound(i)) tighten(base, i)
  const baseBetween = numbersBetween(base, base.ends.keys())
  const shared = certain.filter((i) => !isBound(i))
  shared.forEach(rows.see)
  interface Found {
    readonly box: Box
    readonly between: ReadonlyMap<number, Rational>
    readonly unsafe: (readonly Inequality[])[]
  }
  const cases: Found[] = []
  // A box is known by the decimals that are its own. Long ones are not kept for all cases, only for the last.
  const short = new Map<string, Found>()
  let last: { readonly key: string; readonly entry: Found } | undefined
  let bytes = 0
  const charge = (n: number, at: number | undefined): void => {
    bytes += n
    if (bytes > memory) fail(`its boxes need more than ${Math.floor(memory / 2 ** 20)} MB of memory`, at)
  }
  if (baseBetween !== undefined)
    for (const conjunction of open()) {
      const at = conjunction[0]?.at
      const own = conjunction.filter(isBound)
      const outer = own.length === conjunction.length ? [] : conjunction.filter((i) => !isBound(i))
      const box = own.length === 0 ? base : within(base)
      const touched = [...new Set(own.map((i) => tighten(box, i)))].sort((a, b) => a - b)
      const end = (e: End | undefined) => e && `${e.strict}${e.value.numerator}/${e.value.denominator}`
      const key = touched
        .map((i) => {
          const { lower, upper } = endsOf(box, i)
          return `${i}:${end(lower)}:${end(upper)}`
        })
        .join()
      let entry = last?.key === key ? last.entry : short.get(key)
      if (entry === undefined) {
        const between = numbersBetween(box, touched)
        if (between === undefined) continue
        checkBox(box, nameOf, at)
        charge(own.length === 0 ? 0 : 40 * inputs + 1500, at)
        entry = { box, between: touched.length === 0 ? baseBetween : new Map([...baseBetween, ...between]), unsafe: [] }
        cases.push(entry)
        if (key.length <= SHORT) short.set(key, entry)
        // The ends of the file have told what they can.
        if (box !== base) box.ends.clear()
      }
      last = { key, entry }
      outer.forEach(rows.see)
      entry.unsafe.push(outer)
      charge(500 * (outer.length + 1), at)
    }
  const made = rows.finish()
  const width = outputs + rows.watched.length
  const common = shared.map(made)
  return {
    outputs: width,
    watched: rows.watched,
    cases: cases.map(({ box: { lower, upper, outward }, between, unsafe }): PropertyCase => {
      const own = unsafe.map((u) => [...common, ...u.map(made)])
      return { lower, upper, outward, between, unsafe: own.map((u) => (u.length === 0 ? [always(width)] : u)) }
    }),
  }
}
