import { extents } from './axes.ts'
import { type Import, ints } from './values.ts'

const constant: Import = (s) => {
  if (s.given('value_int')) return ints([s.int('value_int', 0)], 0)
  if (s.given('value_ints')) return ints(s.list('value_ints') ?? [])
  for (const name of ['value_float', 'value_floats', 'value_string', 'value_strings', 'sparse_value'])
    if (s.given(name)) s.fail(`attribute ${name} is not supported`)
  return s.tensor('value')
}

/** The shape of a value, its batch as the symbol 'N'. */
const shapeOf: Import = (s) => {
  const all = extents(s.floats(0))
  const bound = (name: string, otherwise: number): number => {
    const v = s.int(name, otherwise)
    return Math.min(Math.max(v < 0 ? v + all.length : v, 0), all.length)
  }
  return ints(all.slice(bound('start', 0), bound('end', all.length)))
}
/** Integers to integers, float32 to float32: the identity. */
const cast: Import = (s) => {
  const to = s.int('to', 0)
  const v = s.either(0)
  return to === (v.kind === 'ints' ? 7 : 1) || (v.kind === 'ints' && to === 6)
    ? v
    : s.fail(`attribute to: type ${to} is not supported`)
}

const identity: Import = (s) => s.value(0)

export const imports: Readonly<Record<string, Import>> = {
  Cast: cast,
  Constant: constant,
  Identity: identity,
  Shape: shapeOf,
}
