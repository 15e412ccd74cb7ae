import * as E from 'fp-ts/lib/Either.js'
import { apply, type Op } from '../core/op.ts'
import type { Operand, Tensor } from '../core/tensor.ts'
import { input } from './source.ts'

/**
 * An op with a gradient of one's own (straight-through estimators, clipped or linked gradients, implicit functions): the value is
 * that of `forward`, in terms of other ops; the vjp is taken as given and is, by this declaration, exempt from the test against
 * differences. `interval` and `relax` are rules of an op record, or `unsupported('reason')`; what else a record says of an op (outward rules, domains, linearity, a leak) may be
 * said, too, and then its bounds are those of any op: by every method, outward, in lists, with slopes to choose and neurons to split.
 *
 * @example round-to-step with a straight-through gradient
 *   custom({ name: 'heaviside', forward: ([x]) => greater(x, 0), vjp: (ct) => [ct], interval: unsupported('...'), relax: unsupported('...') })
 */
export const custom = (
  rules: Omit<Op<undefined>, 'shape' | 'kernel'> & {
    readonly forward: (inputs: readonly Tensor[]) => Tensor
  },
) => {
  const { forward, ...rest } = rules
  const op: Op<undefined> = {
    ...rest,
    shape: (shapes) => E.right(forward(shapes.map((s, i) => input(`${rest.name}.${i}`, s))).shape),
    kernel: { expand: forward },
  }
  return <T extends Operand>(...inputs: readonly T[]): T => apply(op, inputs, undefined) as T
}
