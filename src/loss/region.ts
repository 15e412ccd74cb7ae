import { anatomy } from '../bounds/anatomy.ts'
import { add, input, maximum, minimum, mul, sub } from '../ops/index.ts'
import type { Attack } from '../robust/attack.ts'
import { type Bounder, boundsOf } from '../robust/bounds.ts'
import { ball } from '../robust/perturbation.ts'
import { type Bounds, boundedLogits, type Hidden, type Inputs, type Logits, type Region } from './loss.ts'

/** The images of the step, `[n, ...shape]`. */
export const clean: Inputs = (step) => () => step.inputs

/**
 * What an attack makes of them, inside the ball of the step; no gradient flows through it.
 *
 * @example
 *   const logits = at(perturbed(madry(8)))
 */
export const perturbed =
  (attack: Attack): Inputs =>
  (step) =>
  (model) =>
    attack({ ...step, logits: model.logits })

/**
 * Logits `[n, classes]` of inputs `[n, ...shape]`.
 *
 * @example
 *   const logits = at(perturbed(madry(8)))
 */
export const at =
  (inputs: Inputs): Logits =>
  (step) =>
  (model) =>
    model.logits(inputs(step)(model))

/** The step's whole ball. */
export const wholeBall: Region = (step) => () => ball(step.inputs, step.epsilon, step.range)

/**
 * SABR's region (arXiv:2210.04871, section 3): the box of radius tau = lambda epsilon round an adversarial point that is moved towards
 * x until the box fits into the ball, x' = clip(x*, x - (epsilon - tau), x + (epsilon - tau)); cut to the valid range. lambda in [0, 1]: at 1
 * it is the whole ball, at 0 the point.
 *
 * @example
 *   const loss = robust(ibp, worstCase(crossEntropy), smallBox(0.4, perturbed(madry(8))))
 */
export const smallBox =
  (lambda: number, inputs: Inputs): Region =>
  (step) =>
  (model) => {
    const room = mul(step.epsilon, 1 - lambda)
    const centre =
      lambda === 1 ? step.inputs : minimum(maximum(inputs(step)(model), sub(step.inputs, room)), add(step.inputs, room))
    return ball(centre, mul(step.epsilon, lambda), step.range)
  }

/**
 * Bounds by a method, over the whole ball unless told otherwise.
 *
 * @example
 *   const loss = judged(crossEntropy)(worstLogits(bounded(crown)))
 */
export const bounded =
  (method: Bounder, region: Region = wholeBall): Bounds =>
  (step) =>
  (model) => {
    const box = region(step)(model)
    return (spec) => boundsOf(method)(boundedLogits(step, model), box).rows(spec)
  }

/**
 * Pre-activation bounds by a method, one box for each nonlinear op in the shape of its operand.
 *
 * @example
 *   const loss = scale(0.01)(regularizers.reluStability(hidden(ibp)))
 */
export const hidden =
  (method: Bounder, region: Region = wholeBall): Hidden =>
  (step) =>
  (model) => {
    const box = region(step)(model)
    const x = input('x', box.shape)
    const output = boundedLogits(step, model)(x)
    const boxes = new Map([[x, box]])
    const known = method(output, boxes)
    return anatomy(output, boxes).hidden.map(known.node)
  }
