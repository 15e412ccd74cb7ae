import { type Conjunction, formulas, type Inequality, type Names, type Normal, type Scope } from './formula.ts'
import type { Mark, Scanner } from './scan.ts'

/**
 * Assertions as they are met. What a disjunction says is read when the property is made: if it is the only one, its parts go by one at a time and none is
 * kept.
 */
export const assertions = (s: Scanner, scope: Scope) => {
  const { formula, conjunction, binding, release } = formulas(s, scope)
  const certain: Normal[] = []
  const open: Normal[] = []
  const later: { readonly mark: Mark; readonly names: Names }[] = []
  const keep = (part: Normal): void => {
    ;(part.length === 1 ? certain : open).push(part)
  }

  const head = (): string => {
    const mark = s.mark()
    if (!s.isOpen()) return ''
    s.open()
    const text = s.isOpen() || s.isClose() ? '' : s.atom('an operator').text
    s.moveTo(mark)
    return text
  }

  /** The parts of the disjunction at a mark, one after the other. */
  function* parts({ mark, names }: (typeof later)[number]): Iterable<Conjunction> {
    s.moveTo(mark)
    s.open()
    s.atom('or')
    while (!s.isClose()) {
      yield* formula(names)
      release()
    }
  }

  return {
    binding,
    /** Reads the formula of an assertion. */
    read: (names: Names): void => {
      if (head() === 'or') {
        later.push({ mark: s.mark(), names })
        s.skip()
      } else keep(formula(names))
    },
    /** To be called at the end of the text. */
    finish: (at: number): { readonly certain: Conjunction; readonly open: () => Iterable<Conjunction> } => {
      const streamed = later.length === 1 && open.length === 0 ? later[0] : undefined
      if (streamed === undefined)
        for (const { mark, names } of later) {
          s.moveTo(mark)
          keep(formula(names))
        }
      const all: Inequality[] = []
      for (const [part] of certain) for (const i of part) all.push(i)
      return { certain: all, open: streamed === undefined ? () => conjunction(open, at) : () => parts(streamed) }
    },
  }
}
