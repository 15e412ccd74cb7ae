import {
  add,
  at,
  compare,
  decimal,
  negative,
  type Rational,
  rational,
  refuse,
  times,
  type Vector,
  vector,
} from './exact.ts'

/** sum of inputs . x + outputs . y + constant <= 0, or < 0. */
export interface Row {
  readonly inputs: ReadonlyMap<number, Rational>
  readonly outputs: ReadonlyMap<number, Rational>
  readonly constant: Rational
  readonly strict: boolean
}

/** Conjunctions over one box: a counterexample is a point of the box at which all rows of one of them hold. */
export interface Group {
  readonly lower: Vector
  readonly upper: Vector
  readonly cases: readonly (readonly Row[])[]
}

// ---- reading VNN-LIB 1.0 -----------------------------------------------------------------------------------------------------------

type Term = string | readonly Term[]

function* tokens(text: string): Generator<string> {
  for (const [token] of text.matchAll(/;[^\n]*|[()]|[^\s();]+/g))
    if (!token.startsWith(';')) yield token
    else if (/\r+[^\r]/.test(token))
      refuse('a comment of the property has a carriage return, where some readers end it')
}
const DEEPEST = 500
const termsOf = (text: string): readonly Term[] => {
  const stack: Term[][] = [[]]
  for (const token of tokens(text)) {
    if (token === '(') stack.push(stack.length > DEEPEST ? refuse('the property is nested too deeply') : [])
    else if (token === ')') {
      const done = stack.pop() as Term[]
      if (stack.length === 0) refuse('the property has a ")" too many')
      ;(stack.at(-1) as Term[]).push(done)
    } else (stack.at(-1) as Term[]).push(token)
  }
  return stack.length === 1 ? stack[0] : refuse('the property ends within parentheses')
}

const VARIABLE = /^([XY])_(\d{1,9})$/
const ZERO = rational(0n)

const scaled = (row: Row, by: Rational): Row => ({
  ...row,
  inputs: new Map([...row.inputs].map(([i, c]) => [i, times(c, by)])),
  outputs: new Map([...row.outputs].map(([i, c]) => [i, times(c, by)])),
  constant: times(row.constant, by),
})
const merged = (a: ReadonlyMap<number, Rational>, b: ReadonlyMap<number, Rational>): ReadonlyMap<number, Rational> => {
  const sum = new Map(a)
  for (const [i, c] of b) sum.set(i, add(sum.get(i) ?? ZERO, c))
  return sum
}
const joined = (a: Row, b: Row): Row => ({
  inputs: merged(a.inputs, b.inputs),
  outputs: merged(a.outputs, b.outputs),
  constant: add(a.constant, b.constant),
  strict: a.strict,
})
const NONE: Row = { inputs: new Map(), outputs: new Map(), constant: ZERO, strict: false }
const isConstant = ({ inputs, outputs }: Row): boolean => inputs.size === 0 && outputs.size === 0

/** A linear expression, as the left side of a row. */
const linear = (t: Term): Row => {
  if (typeof t === 'string') {
    const [, kind, index] = VARIABLE.exec(t) ?? []
    if (kind === undefined) return { ...NONE, constant: decimal(t) }
    return { ...NONE, [kind === 'X' ? 'inputs' : 'outputs']: new Map([[Number(index), rational(1n)]]) }
  }
  const [head, ...operands] = t
  const xs = operands.map(linear)
  if (xs.length === 0) return refuse(`the property has a ${String(head).slice(0, 40)} of nothing`)
  if (head === '+') return xs.reduce(joined)
  if (head === '-')
    return xs.length === 1
      ? scaled(xs[0], rational(-1n))
      : xs.slice(1).reduce((a, b) => joined(a, scaled(b, rational(-1n))), xs[0])
  if (head === '*') {
    const factors = xs.filter(isConstant).map((x) => x.constant)
    const [rest, ...others] = xs.filter((x) => !isConstant(x))
    if (others.length > 0) return refuse('a product of variables')
    return scaled(rest ?? { ...NONE, constant: rational(1n) }, factors.reduce(times, rational(1n)))
  }
  return refuse(`the property has the operator "${String(head).slice(0, 40)}"`)
}

/** Rows of all conjunctions together, and ends of their boxes. */
const MOST = 2 ** 25

/** The conjunctions of a formula, in the order of its text; the left operand varies slowest. */
const disjunctive = (t: Term): readonly (readonly Row[])[] => {
  const [head, ...operands] = typeof t === 'string' ? refuse('the property asserts a name') : t
  switch (head) {
    case 'and':
      return operands.map(disjunctive).reduce<readonly (readonly Row[])[]>(
        (cases, more) => {
          const [own, other] = [cases, more].map((all) => all.reduce((n, rows) => Math.max(n, rows.length), 1))
          if (cases.length * more.length * (own + other) > MOST) refuse('the property has too many cases')
          return cases.flatMap((a) => more.map((b) => [...a, ...b]))
        },
        [[]],
      )
    case 'or':
      return operands.flatMap(disjunctive)
    case '<=':
    case '<':
    case '>=':
    case '>': {
      if (operands.length !== 2) return refuse(`the property compares ${operands.length} terms`)
      const [a, b] = (head[0] === '<' ? operands : [operands[1], operands[0]]).map(linear)
      return [[{ ...joined(a, scaled(b, rational(-1n))), strict: head.length === 1 }]]
    }
    default:
      return refuse(`the property has the form "${String(head).slice(0, 40)}"`)
  }
}

/** Rows that bound one input, as a box; the rest. */
const boxed = (
  rows: readonly Row[],
  inputs: number,
): { readonly key: string; readonly group: Omit<Group, 'cases'>; readonly rest: readonly Row[] } | undefined => {
  const [lower, upper] = [new Map<number, Rational>(), new Map<number, Rational>()]
  const rest: Row[] = []
  for (const row of rows) {
    const [bound] = row.inputs
    if (row.outputs.size > 0 || row.inputs.size !== 1 || row.strict) {
      rest.push(row)
      continue
    }
    const [i, { n, d }] = bound
    if (n === 0n) refuse(`the property bounds 0 X_${i}`)
    // c x + k <= 0.
    const value = times(row.constant, n > 0n ? rational(-d, n) : rational(d, -n))
    const ends = n > 0n ? upper : lower
    const there = ends.get(i)
    if (there === undefined || compare(value, there) * (n > 0n ? 1 : -1) < 0) ends.set(i, value)
  }
  const all = Array.from({ length: inputs }, (_, i) => [lower.get(i), upper.get(i)] as const)
  const open = all.findIndex(([l, u]) => l === undefined || u === undefined)
  if (open >= 0) refuse(`the property does not bound X_${open} on both sides`)
  const ends = all as readonly (readonly [Rational, Rational])[]
  if (ends.some(([l, u]) => compare(l, u) > 0)) return undefined
  const group = { lower: vector(ends.map(([l]) => l)), upper: vector(ends.map(([, u]) => u)) }
  return { key: `${group.lower.n}/${group.lower.d} ${group.upper.n}/${group.upper.d}`, group, rest }
}

/** The groups of a property: cases by their boxes, both in the order of the text. Cases whose box is empty have no point and are left out. */
export const readProperty = (text: string, inputs: number, outputs: number): readonly Group[] => {
  const asserted: Term[] = []
  for (const t of termsOf(text)) {
    if (typeof t === 'string') refuse(`the property has "${t.slice(0, 40)}" outside of parentheses`)
    if (t[0] === 'assert' && t.length === 2) asserted.push(t[1])
    else if (t[0] === 'declare-const' && t.length === 3 && t[2] === 'Real' && VARIABLE.test(`${t[1]}`)) {
      const [, kind, index] = VARIABLE.exec(`${t[1]}`) as RegExpExecArray
      if (Number(index) >= (kind === 'X' ? inputs : outputs)) refuse(`the network has no ${t[1]}`)
    } else refuse(`the property has the form "${String(t[0]).slice(0, 40)}"`)
  }
  const groups = new Map<string, Group & { readonly cases: (readonly Row[])[] }>()
  const cases = disjunctive(['and', ...asserted])
  if (cases.length * inputs > MOST) refuse('the property has too many cases')
  for (const rows of cases) {
    for (const row of rows)
      for (const [kind, indices, most] of [
        ['X', row.inputs, inputs],
        ['Y', row.outputs, outputs],
      ] as const)
        for (const i of indices.keys()) if (i >= most) refuse(`the network has no ${kind}_${i}`)
    const found = boxed(rows, inputs)
    if (found === undefined) continue
    const group = groups.get(found.key) ?? { ...found.group, cases: [] }
    group.cases.push(found.rest)
    groups.set(found.key, group)
  }
  return [...groups.values()]
}

/**
 * An image of a classifier: every input within `epsilon` of the image and in the range has the label's output above all others. Its counterexamples
 * are the points at which y_label - y_j <= 0 for some other j, ascending. @throws Refused for a radius below 0 and a range without the image: a region
 * without a point has no counterexample, whatever the network makes of the image.
 */
export const classified = (
  image: Vector,
  epsilon: Rational,
  [least, most]: readonly [Rational, Rational],
  label: number,
  outputs: number,
): Group => {
  const pixels = image.n.map((_, i) => at(image, i))
  if (epsilon.n < 0n) refuse('the radius is below 0')
  const outside = pixels.findIndex((p) => compare(p, least) < 0 || compare(p, most) > 0)
  if (outside >= 0) refuse(`pixel ${outside} of the image lies outside of the range`)
  const larger = (a: Rational, b: Rational) => (compare(a, b) > 0 ? a : b)
  const smaller = (a: Rational, b: Rational) => (compare(a, b) < 0 ? a : b)
  return {
    lower: vector(pixels.map((p) => larger(least, add(p, negative(epsilon))))),
    upper: vector(pixels.map((p) => smaller(most, add(p, epsilon)))),
    cases: Array.from({ length: outputs }, (_, j) => j)
      .filter((j) => j !== label)
      .map((j) => [
        {
          ...NONE,
          outputs: new Map([
            [label, rational(1n)],
            [j, rational(-1n)],
          ]),
        },
      ]),
  }
}
