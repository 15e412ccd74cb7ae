import { compare, minus, ONE, over, parseRational, plus, type Rational, times, ZERO } from '../../core/rational.ts'
import { type Atom, fail, type Mark, quote, type Scanner } from './scan.ts'

/** Variables are numbers: input i is 2 i, output j is 2 j + 1. */
export type Variable = number

export interface Linear {
  readonly variables: readonly Variable[]
  readonly coefficients: readonly Rational[]
  readonly constant: Rational
}

/** coefficients . variables <= bound, or < where strict. At least one variable. */
export interface Inequality {
  readonly variables: readonly Variable[]
  readonly coefficients: readonly Rational[]
  readonly bound: Rational
  readonly strict: boolean
  readonly at: number
}
export type Conjunction = readonly Inequality[]
/** A disjunction of conjunctions; none of them is false, an empty one is true. */
export type Normal = readonly Conjunction[]

/** What names mean, apart from variables: by `let` and `define-fun`. */
type Binding =
  | { readonly kind: 'term'; readonly value: Linear }
  | { readonly kind: 'formula'; readonly mark: Mark; readonly names: Names }
export type Names = ReadonlyMap<string, Binding>

/** What a formula may speak of. */
export interface Scope {
  /** The variable that an atom and the indices behind it name; undefined for an atom that is none. */
  readonly variable: (atom: Atom, indices: readonly number[] | undefined) => Variable | undefined
  readonly nameOf: (v: Variable) => string
  /** Bytes that normal forms may take. */
  readonly memory: number
}

const NOTHING: Linear = { variables: [], coefficients: [], constant: ZERO }
const constantOf = (constant: Rational): Linear => ({ variables: [], coefficients: [], constant })

const scaled = (a: Linear, factor: Rational): Linear =>
  factor.numerator === 0n
    ? NOTHING
    : {
        variables: a.variables,
        coefficients: a.coefficients.map((c) => times(c, factor)),
        constant: times(a.constant, factor),
      }

/** The sum of terms, the first as it is and the others times `factor`. */
const summed = (terms: readonly Linear[], factor: Rational): Linear => {
  const total = new Map<Variable, Rational>()
  let constant = ZERO
  terms.forEach((t, k) => {
    const f = k === 0 ? ONE : factor
    constant = plus(constant, times(t.constant, f))
    t.variables.forEach((v, i) => {
      const known = total.get(v)
      const own = times(t.coefficients[i], f)
      total.set(v, known === undefined ? own : plus(known, own))
    })
  })
  const kept = [...total].filter(([, c]) => c.numerator !== 0n)
  return { variables: kept.map(([v]) => v), coefficients: kept.map(([, c]) => c), constant }
}

const MINUS_ONE = minus(ONE)
/** The largest numerators and denominators that are still computed with. */
const HUGE = 1n << 100_000n
const isHuge = ({ numerator, denominator }: Rational): boolean =>
  numerator > HUGE || numerator < -HUGE || denominator > HUGE
const bounded = (a: Linear, at: number): Linear =>
  isHuge(a.constant) || a.coefficients.some(isHuge) ? fail('a number is too long', at) : a

const COMPARISONS = ['<=', '>=', '<', '>', '=', '==', '!=', 'distinct'] as const
type Comparison = (typeof COMPARISONS)[number]
const isComparison = (text: string): text is Comparison => (COMPARISONS as readonly string[]).includes(text)
const CONNECTIVES = ['and', 'or', 'not', '=>', 'xor', 'let', 'ite', '!']

/** Bytes that an inequality takes, and a place in a conjunction. */
const [INEQUALITY, PLACE] = [200, 64]

/** Reads terms and formulas at the cursor of a scanner. */
export const formulas = (s: Scanner, scope: Scope) => {
  let bytes = 0
  const charge = (n: number, at: number): void => {
    bytes += n
    if (bytes > scope.memory)
      fail(`the disjunctive normal form needs more than ${Math.floor(scope.memory / 2 ** 20)} MB of memory`, at)
  }

  const named = (atom: Atom, names: Names): Linear => {
    const indices = s.indices()
    const bound = names.get(atom.text)
    if (bound !== undefined && indices === undefined)
      return bound.kind === 'term' ? bound.value : fail(`${atom.text} is a formula, but a term is expected`, atom.at)
    const v = scope.variable(atom, indices)
    if (v !== undefined) return { variables: [v], coefficients: [ONE], constant: ZERO }
    const number = parseRational(atom.text)
    return number === undefined
      ? fail(
          /^[+-]?(0[xX][\da-fA-F]|\.?\d)/.test(atom.text)
            ? `the number ${quote(atom.text)} cannot be read: it is no decimal, too long, or out of range`
            : `expected a number or a variable, found ${quote(atom.text)}`,
          atom.at,
        )
      : constantOf(number)
  }

  const term = (names: Names): Linear => {
    if (!s.isOpen()) return named(s.atom('a term'), names)
    const start = s.open()
    const { text: op, at } = s.atom('an operator after the parenthesis')
    if (op === 'let') {
      const body = term(bindings(names))
      s.close('one term in let')
      return body
    }
    if (op === 'ite') return fail('ite between terms is not supported; write it as a disjunction of formulas', at)
    if (!['+', '-', '*', '/', 'to_real'].includes(op))
      return fail(`expected +, -, * or / in a term, found ${quote(op)}`, at)
    const terms: Linear[] = []
    while (!s.isClose()) terms.push(term(names))
    s.close('a term')
    if (terms.length === 0) return fail(`${op} has no operands`, at)
    switch (op) {
      case '+':
        return terms.length === 1 ? terms[0] : summed(terms, ONE)
      case '-':
        return terms.length === 1 ? scaled(terms[0], MINUS_ONE) : summed(terms, MINUS_ONE)
      case 'to_real':
        return terms.length === 1 ? terms[0] : fail('to_real takes one term', at)
      case '*':
        return terms.reduce((a, b) => {
          if (a.variables.length > 0 && b.variables.length > 0)
            return fail(
              `the product of ${scope.nameOf(a.variables[0])} and ${scope.nameOf(b.variables[0])} is not linear; constraints are linear in their variables`,
              start,
            )
          return bounded(a.variables.length > 0 ? scaled(a, b.constant) : scaled(b, a.constant), at)
        })
      default:
        return terms.slice(1).reduce((a, b) => {
          if (b.variables.length > 0) return fail(`a division by ${scope.nameOf(b.variables[0])} is not linear`, start)
          if (b.constant.numerator === 0n) return fail('a division by 0', start)
          return bounded(scaled(a, over(ONE, b.constant)), at)
        }, terms[0])
    }
  }

  /** The bindings of a `let`, all in the names outside of it. */
  const bindings = (names: Names): Names => {
    const more = new Map(names)
    s.open()
    while (!s.isClose()) {
      s.open()
      const { text } = s.atom('a name')
      more.set(text, binding(names))
      s.close('one term for a name')
    }
    s.close('a binding (NAME TERM)')
    return more
  }
  /** What a name is bound to: formulas are read where they are used, as what they become depends on whether they are negated. */
  const binding = (names: Names): Binding => {
    const mark = s.mark()
    if (!isFormula(names)) return { kind: 'term', value: term(names) }
    s.skip()
    return { kind: 'formula', mark, names }
  }

  /** Whether a formula comes next, not a term. */
  const isFormula = (names: Names): boolean => {
    const start = s.mark()
    let answer: boolean
    if (s.isOpen()) {
      s.open()
      const { text } = s.isOpen() || s.isClose() ? { text: '' } : s.atom('an operator')
      if (text === 'let') {
        const more = bindings(names)
        answer = isFormula(more)
      } else if (text === 'ite') {
        s.skip()
        answer = isFormula(names)
      } else answer = isComparison(text) || CONNECTIVES.includes(text)
      s.moveTo(start)
      return answer
    }
    const { text } = s.atom('a term or a formula')
    answer = text === 'true' || text === 'false' || names.get(text)?.kind === 'formula'
    s.moveTo(start)
    return answer
  }

  /** small <= large, or small < large: one inequality, or true, or false. */
  const inequality = (small: Linear, large: Linear, strict: boolean, at: number): Normal => {
    const difference =
      small.variables.length <= 1 && large.variables.length === 0
        ? { ...small, constant: plus(small.constant, minus(large.constant)) }
        : summed([small, large], MINUS_ONE)
    if (difference.variables.length === 0) {
      const side = compare(difference.constant, ZERO)
      return side < 0 || (side === 0 && !strict) ? [[]] : []
    }
    charge(INEQUALITY, at)
    const { variables, coefficients, constant } = difference
    return [[{ variables, coefficients, bound: minus(constant), strict, at }]]
  }

  const product = (a: Normal, b: Normal, at: number): Normal => {
    if (a.length === 1 && a[0].length === 0) return b
    if (b.length === 1 && b[0].length === 0) return a
    const places = (n: Normal) => n.reduce((sum, c) => sum + c.length + 4, 0)
    charge(PLACE * (places(a) * b.length + places(b) * a.length), at)
    return a.flatMap((p) => b.map((q) => [...p, ...q]))
  }

  /** The conjunction of parts; what is certain in all of them is gathered once. */
  const conjunction = (parts: Iterable<Normal>, at: number): Normal => {
    const certain: Inequality[] = []
    let open: Normal = [[]]
    for (const part of parts) {
      if (part.length === 1) for (const i of part[0]) certain.push(i)
      else open = product(open, part, at)
    }
    return product([certain], open, at)
  }
  const disjunction = (parts: Iterable<Normal>): Normal => {
    const all: Conjunction[] = []
    for (const part of parts) for (const c of part) all.push(c)
    return all
  }

  /** a < b and the like between two terms; negated, the opposite. */
  const compared = (op: Comparison, a: Linear, b: Linear, negated: boolean, at: number): Normal => {
    switch (op) {
      case '<=':
        return negated ? inequality(b, a, true, at) : inequality(a, b, false, at)
      case '<':
        return negated ? inequality(b, a, false, at) : inequality(a, b, true, at)
      case '>=':
        return compared('<=', b, a, negated, at)
      case '>':
        return compared('<', b, a, negated, at)
      case '=':
      case '==':
        return negated
          ? disjunction([inequality(a, b, true, at), inequality(b, a, true, at)])
          : conjunction([inequality(a, b, false, at), inequality(b, a, false, at)], at)
      default:
        return compared('=', a, b, !negated, at)
    }
  }

  /** The operands of a list, read one by one up to its end. */
  function* operands(read: () => Normal): Iterable<Normal> {
    while (!s.isClose()) yield read()
  }

  /** A formula, or its negation, in disjunctive normal form. */
  const formula = (names: Names, negated = false): Normal => {
    if (!s.isOpen()) {
      const { text, at } = s.atom('a formula')
      const bound = names.get(text)
      if (bound?.kind === 'formula') {
        const back = s.mark()
        s.moveTo(bound.mark)
        const value = formula(bound.names, negated)
        s.moveTo(back)
        return value
      }
      if (text === 'true' || text === 'false') return (text === 'true') !== negated ? [[]] : []
      return fail(`expected a formula, found ${quote(text)}`, at)
    }
    s.open()
    const { text: op, at } = s.atom('an operator after the parenthesis')
    const value = applied(op, at, names, negated)
    s.close(op === 'not' || op === '=>' || op === 'ite' || op === 'let' ? `the end of ${op}` : 'a formula')
    return value
  }

  /** Reads the same operand twice: as it is, and negated. */
  const twice = (names: Names): readonly [Normal, Normal] => {
    const start = s.mark()
    const yes = formula(names)
    s.moveTo(start)
    return [yes, formula(names, true)]
  }

  const applied = (op: string, at: number, names: Names, negated: boolean): Normal => {
    switch (op) {
      case 'and':
      case 'or': {
        const parts = operands(() => formula(names, negated))
        return (op === 'and') !== negated ? conjunction(parts, at) : disjunction(parts)
      }
      case 'not':
        return formula(names, !negated)
      case '=>': {
        // (=> a b c) is (or (not a) (not b) c).
        const start = s.mark()
        let count = 0
        for (; !s.isClose(); count++) s.skip()
        s.moveTo(start)
        if (count < 2) fail('=> takes two formulas or more', at)
        let k = 0
        const parts = operands(() => formula(names, ++k < count ? !negated : negated))
        return negated ? conjunction(parts, at) : disjunction(parts)
      }
      case 'ite': {
        const [yes, no] = twice(names)
        const [then, otherwise] = [formula(names, negated), formula(names, negated)]
        return disjunction([conjunction([yes, then], at), conjunction([no, otherwise], at)])
      }
      case 'xor': {
        const [[a, notA], [b, notB]] = [twice(names), twice(names)]
        return negated
          ? disjunction([conjunction([a, b], at), conjunction([notA, notB], at)])
          : disjunction([conjunction([a, notB], at), conjunction([notA, b], at)])
      }
      case 'let':
        return formula(bindings(names), negated)
      case '!': {
        const value = formula(names, negated)
        while (!s.isClose()) s.skip()
        return value
      }
      default:
        return isComparison(op)
          ? comparison(op, at, names, negated)
          : fail(`expected and, or, not, <=, <, >=, > or =, found ${quote(op)}`, at)
    }
  }

  /** A chain of comparisons: (<= a b c) is (and (<= a b) (<= b c)); distinct is about all pairs. */
  const comparison = (op: Comparison, at: number, names: Names, negated: boolean): Normal => {
    if ((op === '=' || op === '==' || op === 'distinct' || op === '!=') && !s.isClose() && isFormula(names))
      return applied('xor', at, names, (op === '=' || op === '==') !== negated)
    const terms: Linear[] = []
    while (!s.isClose()) terms.push(term(names))
    if (terms.length < 2) fail(`${op} takes two terms or more, found ${terms.length}`, at)
    if (terms.length === 2) return compared(op, terms[0], terms[1], negated, at)
    const pairs =
      op === 'distinct' || op === '!='
        ? terms.flatMap((a, i) => terms.slice(i + 1).map((b) => [a, b] as const))
        : terms.slice(1).map((b, i) => [terms[i], b] as const)
    const parts = pairs.map(([a, b]) => compared(op, a, b, negated, at))
    return negated ? disjunction(parts) : conjunction(parts, at)
  }

  return {
    formula,
    binding,
    conjunction,
    /** What was read so far is not kept. */
    release: () => {
      bytes = 0
    },
  }
}
