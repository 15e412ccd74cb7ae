import { Micro } from '../core/lowering.ts'
import { interval, type Op, unsupported } from '../core/op.ts'
import { nextDouble } from '../core/rounding.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { elementwise, unary } from './maker.ts'
import { increasing } from './shape.ts'

/**
 * Steps to the neighbouring number of the arithmetic at hand (float32, or float64 on the reference backend), as IEEE 754 has it: NaN stays,
 * up(inf) = inf, up(-inf) is the least finite number. What was rounded to nearest once is not above its `up`, whatever it was: a
 * result that overflowed or underflowed included.
 */
const step = (name: 'up' | 'down', micro: Micro, f: (x: number) => number): Op<undefined> => {
  const op: Op<undefined> = elementwise(
    {
      name,
      // As far as a gradient can tell, a step is the identity.
      vjp: (ct) => [ct],
      interval: increasing(() => op),
      relax: unsupported('it rounds bounds, which are not bounded again'),
      outward: { interval: 'directed' },
    },
    micro,
    f,
  )
  return op
}

/** The next number above. */
export const upOp = step('up', Micro.up, nextDouble)
/** The next number below. */
export const downOp = step('down', Micro.down, (x) => -nextDouble(-x))

export const up = unary(upOp, undefined) as (x: Tensor) => Tensor
export const down = unary(downOp, undefined) as (x: Tensor) => Tensor

/** An interval whose ends were rounded to nearest once, one step further out. */
export const stepOut = ({ lower, upper }: Interval): Interval => interval(down(lower), up(upper))
