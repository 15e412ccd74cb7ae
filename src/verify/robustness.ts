import { doublesOf, type Epsilon } from '../core/epsilon.ts'
import { nextDouble } from '../core/rounding.ts'
import type { Range } from '../robust/perturbation.ts'
import type { Constraint, UnsafeProperty } from './counterexample.ts'

/** a + b rounded towards infinity: the rounding error of a double sum is a double (TwoSum, Knuth). */
const sumUp = (a: number, b: number): number => {
  const s = a + b
  const other = s - a
  const error = a - (s - other) + (b - other)
  return error > 0 ? nextDouble(s) : s
}

/**
 * That an image keeps its label in the l-inf ball of radius epsilon, cut to the range, as a property: unsafe is z_y - z_j <= 0 for some j != y, the
 * opposite of what every verifier of margins claims. The ends of the box are rounded inward, its `outward` ones outward.
 *
 * @example
 *   robustness([0.5, 0.5], 0, 3, 0.1, [0, 1]).outputs // 3
 */
export const robustness = (
  pixels: ArrayLike<number>,
  label: number,
  classes: number,
  epsilon: Epsilon | number,
  [low, high]: Range,
): UnsafeProperty => {
  const { below, above } = doublesOf(epsilon)
  const ends = (end: (p: number) => number) => Float64Array.from(pixels, (p) => Math.min(high, Math.max(low, end(p))))
  const margin = (rival: number): Constraint => {
    const coefficients = new Float64Array(classes)
    coefficients[label] = 1
    coefficients[rival] = -1
    return { coefficients, bound: 0, outward: 0 }
  }
  const others = Array.from({ length: classes }, (_, j) => j).filter((j) => j !== label)
  return {
    inputs: pixels.length,
    outputs: classes,
    cases: [
      {
        lower: ends((p) => sumUp(p, -below)),
        upper: ends((p) => -sumUp(-p, -below)),
        outward: { lower: ends((p) => -sumUp(-p, above)), upper: ends((p) => sumUp(p, above)) },
        unsafe: others.map((j) => [margin(j)]),
      },
    ],
  }
}
