import { mean } from '../ops/index.ts'
import { type Attack, pgd } from '../robust/attack.ts'
import * as B from '../robust/bounds.ts'
import { ball } from '../robust/perturbation.ts'
import { rivals, worstCaseLogits } from '../robust/specification.ts'
import { type Criterion, crossEntropy } from './criterion.ts'
import {
  always,
  type Bounds,
  type Gate,
  gate,
  type Logits,
  type Loss,
  mix,
  named,
  type Schedule,
  sampled,
  type Weight,
} from './loss.ts'

// ---- from logits to losses -----------------------------------------------------------------------------------------

/** The criterion's mean over the images of the step. */
export const judged =
  (criterion: Criterion) =>
  (logits: Logits): Loss =>
  (step) =>
  (model) =>
    mean(criterion(logits(step)(model), step.labels))

/** Logits of the clean inputs. */
export const forward: Logits = (step) => (model) => model.logits(step.inputs)

/** Logits of the inputs that an attack proposes. */
export const attacked =
  (attack: Attack): Logits =>
  (step) =>
  (model) =>
    model.logits(attack({ ...step, logits: model.logits }))

/** Worst-case logits `[n, classes]` over the step's box: m_j >= z_j - z_y for every image of it, m_y = 0. */
export const worstLogits =
  (bounds: Bounds): Logits =>
  (step) =>
  (model) =>
    worstCaseLogits(bounds(step)(model)(rivals(step.labels, step.classes)).lower, step.labels)

// ---- bounds as values of the algebra ---------------------------------------------------------------------------------

/** Bounds over the step's ball by a method. */
export const bounded =
  (method: B.Bounder): Bounds =>
  (step) =>
  (model) => {
    const box = ball(step.inputs, step.epsilon, step.range)
    return (spec) => B.boundsOf(method)(model.logits, box).rows(spec)
  }

/** The criterion on clean inputs: mean CE(f(x), y). */
export const natural = (criterion: Criterion): Loss => named('natural')(judged(criterion)(forward))

/** A criterion made for margins: mean over images of the criterion on worst-case logits. */
export const worstCase =
  (criterion: Criterion) =>
  (bounds: Bounds): Loss =>
    judged(criterion)(worstLogits(bounds))

/** A verifiable loss: `robust(symbolic, worstCase(crossEntropy))` = mean CE(m, y), an upper bound of the loss under any attack. */
export const robust = (method: B.Bounder, criterion: (bounds: Bounds) => Loss): Loss =>
  named('robust')(criterion(bounded(method)))

// ---- named losses ----------------------------------------------------------------------------------------------------

/** The dynamic balance of the epoch: the weight of the robust term, as the rule of the run sets it from the history. */
export const balance: Schedule = (h) => h.balance

/** CE under PGD with random starts (arXiv:1706.06083): 40 steps of epsilon / 30, 0.01 at 0.3. */
export const adversarial = (steps = 40): Loss =>
  named('robust')(
    judged(crossEntropy)(
      attacked(pgd({ steps, stepSize: steps >= 40 ? 1 / 30 : 2.5 / steps, start: 'random' }, crossEntropy)),
    ),
  )

/** (1 - balance) CE + balance CE(m), m by the method: IBP (1810.12715), CROWN-IBP (1906.06316) or symbolic on the whole batch. */
export const verifiable = (method: B.Bounder, weight: Weight = balance): Loss =>
  mix(weight)(natural(crossEntropy), robust(method, worstCase(crossEntropy)))

export interface MixTrain {
  /** Images per batch that the sound bound is computed for. */
  readonly k: number
  readonly weight?: Weight
  readonly gate?: Gate
  readonly method?: B.Bounder
}

/**
 * MixTrain (arXiv:1811.02625): mix(balance)(mean CE over the batch, mean CE(m) over k images drawn from it), m by symbolic intervals.
 */
export const mixTrain = ({ k, weight = balance, gate: open = always, method = B.symbolic }: MixTrain): Loss =>
  mix(weight)(natural(crossEntropy), gate(open)(sampled(k)(robust(method, worstCase(crossEntropy)))))

/** The objectives that the command line trains by name. */
export const objectives = {
  mixtrain: (o: { readonly k: number }) => mixTrain(o),
  natural: () => natural(crossEntropy),
  pgd: () => adversarial(),
  ibp: () => verifiable(B.ibp),
  'crown-ibp': () => verifiable(B.blend(0.5)(B.ibp, B.crownIbp)),
  symbolic: () => verifiable(B.symbolic),
} as const
export type ObjectiveName = keyof typeof objectives
