import { accumulate } from '../compile/accumulate.ts'
import type { Tensor } from '../core/tensor.ts'
import { add, chooseOp, feedOf, greater, iota, mean, mul, select, sum } from '../ops/index.ts'
import { picked, type Step } from './loss.ts'

/** The mean over the images of a step of a value for each, `[n]`, under the step's weights. */
export const meanOver = ({ weights }: Pick<Step, 'weights'>, values: Tensor): Tensor =>
  mean(weights === undefined ? values : mul(weights, values))

/**
 * The mean over the images of a step of values `[n]` that are each one image's own, the images in `step.parts` parts one after the other: the
 * forward and the backward pass of a part are over before the next begins, and gradients are added in their order. Values that draw random
 * numbers for every image, or leave a choice to the host, are taken in one piece: parts would draw others.
 */
export const meanInParts = (values: (step: Step) => Tensor, step: Step): Tensor => {
  const [n] = step.inputs.shape
  const per = Math.ceil(n / (step.parts ?? 1))
  const given = [step.inputs, step.labels, ...(step.weights === undefined ? [] : [step.weights])]
  if (per >= n || !separable(values(step), given)) return meanOver(step, values(step))
  const [total] = accumulate({ count: n, per, capacity: n }, (round) => {
    const position = add(mul(round, per), iota(per))
    const valid = greater(n, position)
    const image: Tensor = select(valid, position, 0)
    const part = picked(step, image)
    const each = values({ ...part, parts: 1 })
    return [sum(select(valid, part.weights === undefined ? each : mul(part.weights, each), 0))]
  })
  return mul(total, 1 / n)
}

/** Whether nothing between the step and the values is drawn for each image, or chosen by the host. */
const separable = (values: Tensor, given: readonly Tensor[]): boolean => {
  const seen = new Set<Tensor>(given)
  const stack = [values]
  while (stack.length > 0) {
    const x = stack.pop() as Tensor
    if (seen.has(x)) continue
    seen.add(x)
    const drawn = feedOf(x) !== undefined && x.shape.length > 0
    if (x.op === chooseOp || drawn) return false
    stack.push(...x.inputs)
  }
  return true
}
