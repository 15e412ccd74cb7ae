/** x^n for a whole n >= 0, by squaring: the same bits on every engine, unlike Math.pow. */
export const power = (x: number, n: number): number => {
  let [result, base] = [1, x]
  for (let e = n; e > 0; e = Math.floor(e / 2)) {
    if (e % 2 === 1) result *= base
    base *= base
  }
  return result
}

/** The bits of a float32, as an i32. */
export const bitsOf = (value: number): number => new Int32Array(Float32Array.of(value).buffer)[0]

/** A number of things: `1 thread`, `2 threads`; regular plurals alone. */
export const counted = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`
