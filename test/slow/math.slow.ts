import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Micro } from '../../src/core/lowering.ts'
import { micro, open, runPlan, unaryPlan } from '../backend/wasm-programs.ts'

/**
 * What outward bounds rest on (ops/smooth.ts, ops/periodic.ts): exp, log, tanh, sigmoid and erf at every float32 where they are not constant, against doubles, whose
 * own error is below a 2^-28 of a unit in the last place of a float32.
 */
const BLOCK = 2 ** 22
const MANTISSAS = 2 ** 23

const bits = new Uint32Array(BLOCK)
const numbers = new Float32Array(bits.buffer)

for (const [m, bound, low, high, negative] of [
  // Exponents of |x|: below the first the result is the nearest float to 1, x or 1/2, above the last it does not change.
  [Micro.exp, 2, -27, 6, true],
  [Micro.log, 2, -127, 127, false],
  [Micro.tanh, 3, -14, 5, true],
  [Micro.sigmoid, 4, -27, 6, true],
  [Micro.erf, 4, -14, 2, true],
] as const)
  test(`${Micro[m]} is within ${bound} units in the last place at every float32`, async () => {
    const b = await open({ threads: 2 })
    let [worst, where, count] = [0, 0, 0]
    for (const sign of negative ? [0, 0x80000000] : [0])
      for (let e = low; e <= high; e++)
        for (let from = 0; from < MANTISSAS; from += BLOCK) {
          const start = (sign | ((e + 127) << 23) | from) >>> 0
          for (let i = 0; i < BLOCK; i++) bits[i] = start + i
          const [got] = await runPlan(b, unaryPlan(m, BLOCK), [numbers])
          for (let i = 0; i < BLOCK; i++) {
            const exact = micro(m, numbers[i], 0, 0)
            const off = Math.abs(got[i] - exact)
            // Half a unit is the least there is; only what is further is looked at.
            if (off <= 2 ** -25 * Math.abs(exact)) continue
            if (got[i] === Math.fround(exact)) continue
            const spacing = 2 ** Math.max(-149, Math.floor(Math.log2(Math.abs(exact))) - 23)
            if (!(off / spacing <= worst)) [worst, where] = [off / spacing, numbers[i]]
          }
          count += BLOCK
        }
    b.dispose()
    console.info(`${Micro[m]}: ${count} numbers, at most ${worst.toFixed(3)} units, at ${where}`)
    assert.ok(worst <= bound, `${worst} units at ${where}`)
  })

for (const m of [Micro.sin, Micro.cos])
  test(`${Micro[m]} is off by 2^-23 at most, at every fifth float32 up to 8192`, async () => {
    const b = await open({ threads: 2 })
    let worst = 0
    // Fifths of a sign and an exponent, in blocks; |x| < 2^-13 is next to 0, where the kernel is x or 1.
    for (const sign of [0, 0x80000000])
      for (let e = -13; e <= 12; e++) {
        const start = (sign | ((e + 127) << 23)) >>> 0
        for (let i = 0; i < BLOCK; i++) bits[i] = start + ((5 * i) % MANTISSAS)
        const [got] = await runPlan(b, unaryPlan(m, BLOCK), [numbers])
        for (let i = 0; i < BLOCK; i++) {
          const off = Math.abs(got[i] - micro(m, numbers[i], 0, 0))
          if (!(off <= worst)) worst = off
        }
      }
    b.dispose()
    console.info(`${Micro[m]}: at most ${worst / 2 ** -24} 2^-24`)
    assert.ok(worst <= 2 ** -23)
  })

test.run()
