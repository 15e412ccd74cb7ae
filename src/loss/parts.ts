import type { Tensor } from '../core/tensor.ts'
import { add, chooseOp, gather, greater, type InputAttrs, inputOp, iota, mean, mul, select, sum } from '../ops/index.ts'
import { accumulate } from '../tape/accumulate.ts'
import type { Step } from './loss.ts'

/**
 * The mean over the images of a step of values `[n]` that are each one image's own, the images in `step.parts` parts one after the other: the
 * forward and the backward pass of a part are over before the next begins, and gradients are added in their order. Values that draw random
 * numbers for every image, or leave a choice to the host, are taken in one piece: parts would draw others.
 */
export const meanInParts = (values: (step: Step) => Tensor, step: Step): Tensor => {
  const [n] = step.inputs.shape
  const per = Math.ceil(n / (step.parts ?? 1))
  if (per >= n || !separable(values(step), [step.inputs, step.labels])) return mean(values(step))
  const [total] = accumulate({ count: n, per, capacity: n }, (round) => {
    const position = add(mul(round, per), iota(per))
    const valid = greater(n, position)
    const image: Tensor = select(valid, position, 0)
    const each = values({ ...step, inputs: gather(step.inputs, image), labels: gather(step.labels, image), parts: 1 })
    return [sum(select(valid, each, 0) as Tensor)]
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
    const drawn = x.op === inputOp && (x.attrs as InputAttrs).feed !== undefined && x.shape.length > 0
    if (x.op === chooseOp || drawn) return false
    stack.push(...x.inputs)
  }
  return true
}
