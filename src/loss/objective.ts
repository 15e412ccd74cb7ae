import { raise, usage } from '../core/error.ts'
import type { Apply, Tensor } from '../core/tensor.ts'
import { boostedCrossEntropy, type Criterion, crossEntropy, divergence } from '../nn/criterion.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { constant, logitOf, maximum, mean, mul, normalized, stopGradient, sub } from '../ops/index.ts'
import { type Attack, pgd, usualStep, wider } from '../robust/attack.ts'
import * as B from '../robust/bounds.ts'
import { rivals, worstCaseLogits } from '../robust/specification.ts'
import { controlled, hardest, importance, scored, stratified } from './choice.ts'
import { fusedCrossEntropy } from './fusion.ts'
import { featureBox, features, type Latent, latentLogits } from './latent.ts'
import {
  add,
  always,
  type Bounds,
  bernoulli,
  boundedLogits,
  complement,
  type Gate,
  gate,
  geometric,
  type Inputs,
  type Logits,
  type Loss,
  mix,
  mixBounds,
  mixLogits,
  named,
  once,
  product,
  type Region,
  type Schedule,
  type Step,
  sampled,
  scale,
  type Weight,
} from './loss.ts'
import { meanInParts, meanOver } from './parts.ts'
import { at, bounded, clean, hidden, perturbed, smallBox, wholeBall } from './region.ts'
import { reluBalance, tightness } from './regularizer.ts'
import { hydraWeight, linear, times } from './schedule.ts'

// ---- from logits to losses -----------------------------------------------------------------------------------------

/**
 * The criterion's mean over the images of the step, (1 / n) sum_i criterion(logits_i, y_i): a scalar.
 *
 * @example
 *   const loss = judged(crossEntropy)(forward)
 */
export const judged =
  (criterion: Criterion) =>
  (logits: Logits): Loss =>
  (step) =>
  (model) =>
    meanOver(step, criterion(logits(step)(model), step.labels))

/** The mean of a criterion on two sets of logits of the same images. */
const compared =
  (criterion: (p: Tensor, q: Tensor, labels: Tensor) => Tensor) =>
  (p: Logits, q: Logits): Loss =>
  (step) =>
  (model) =>
    meanOver(step, criterion(p(step)(model), q(step)(model), step.labels))

/** Logits `[n, classes]` of the clean inputs. */
export const forward: Logits = at(clean)

/**
 * Logits `[n, classes]` of the inputs that an attack proposes.
 *
 * @example
 *   const loss = judged(crossEntropy)(attacked(madry(8)))
 */
export const attacked = (attack: Attack): Logits => at(perturbed(attack))

/**
 * Worst-case logits `[n, classes]` over the step's box: m_j >= z_j - z_y for every image of it, m_y = 0.
 *
 * @example
 *   const loss = judged(crossEntropy)(worstLogits(bounded(crown)))
 */
export const worstLogits =
  (bounds: Bounds): Logits =>
  (step) =>
  (model) =>
    worstCaseLogits(bounds(step)(model)(rivals(step.labels, step.classes)).lower, step.labels)

/**
 * The criterion on clean inputs: mean CE(f(x), y).
 *
 * @example
 *   const loss = natural(crossEntropy)
 */
export const natural = (criterion: Criterion): Loss => named('natural')(judged(criterion)(forward))

/**
 * A criterion made for margins: mean over images of the criterion on worst-case logits, in as many parts as the step has.
 *
 * @example
 *   const loss = robust(symbolic, worstCase(crossEntropy))
 */
export const worstCase =
  (criterion: Criterion) =>
  (bounds: Bounds): Loss =>
  (step) =>
  (model) =>
    meanInParts((part) => criterion(worstLogits(bounds)(part)(model), part.labels), step)

/**
 * A verifiable loss: `robust(symbolic, worstCase(crossEntropy))` = mean CE(m, y), an upper bound of the loss under any attack in the region.
 *
 * @example
 *   const loss = robust(symbolic, worstCase(crossEntropy))
 */
export const robust = (method: B.Bounder, criterion: (bounds: Bounds) => Loss, region: Region = wholeBall): Loss =>
  named('robust')(criterion(bounded(method, region)))

/** The robust term of most losses: worst-case cross-entropy by a method. */
const certified = (method: B.Bounder, region: Region = wholeBall): Loss =>
  robust(method, worstCase(crossEntropy), region)

// ---- attacks of the papers -------------------------------------------------------------------------------------------

/**
 * PGD on cross-entropy (arXiv:1706.06083, section 2.1) with random starts and the usual step (`usualStep`).
 *
 * @example
 *   const loss = judged(crossEntropy)(attacked(madry(40)))
 */
export const madry = (steps = 40): Attack => pgd({ steps, stepSize: usualStep(steps), start: 'random' }, crossEntropy)

/** One step from a random point to the far end of the ball (arXiv:2305.13991, its settings for MNIST: step size 10 epsilon). */
export const farStep: Attack = pgd({ steps: 1, stepSize: 10, start: 'random' }, crossEntropy)

// ---- named losses ----------------------------------------------------------------------------------------------------
// What a log calls `natural` and `robust` are values before their weights: CE(f(x), y), and the term that a bound gives or, in losses without
// bounds, the one that an attack gives (MART's whole loss, TRADES's divergence). Of a product or a power it is the factor with the bound.

/** The dynamic balance of the epoch: the weight of the robust term, as the rule of the run sets it from the history. */
export const balance: Schedule = (h) => h.balance

/** Of the robust terms of `twofold`, the weight of the tight one, as the rule of the run sets it from the history. */
const share: Schedule = (h) => h.share ?? 0.5

/**
 * Adversarial training (arXiv:1706.06083, section 2): mean CE(f(x*), y), x* by PGD on CE from a random start. At epsilon = 0 it is natural.
 *
 * @example
 *   const loss = adversarial(10)
 */
export const adversarial = (steps = 40, attack: Attack = madry(steps)): Loss =>
  named('robust')(judged(crossEntropy)(attacked(attack)))

/** Inputs x' in the ball that raise KL(p(x) || p(x')) from a random start: the attack of TRADES. */
const diverging =
  (steps: number): Inputs =>
  (step) =>
  (model) => {
    const still = forward(step)(model)
    const attack = pgd({ steps, stepSize: usualStep(steps), start: 'random' }, (z) => divergence(still, z))
    return perturbed(attack)(step)(model)
  }

/**
 * TRADES (arXiv:1901.08573, algorithm 1): mean CE(f(x), y) + beta mean max_x' KL(p(x) || p(x')), the maximum by projected gradient ascent on the
 * divergence itself. Default: beta = 6; at 0 it is natural. A log has KL without beta.
 *
 * @example
 *   const loss = trades({ beta: 6 })
 */
export const trades = ({ beta = 6, steps = 10 }: { readonly beta?: Weight; readonly steps?: number } = {}): Loss =>
  add(natural(crossEntropy), scale(beta)(named('robust')(compared(divergence)(forward, at(diverging(steps))))))

/** KL(p || q) (1 - p_y). */
const mistaken = (p: Tensor, q: Tensor, labels: Tensor): Tensor => {
  const own = logitOf(normalized(p, [1]), labels)
  return mul(divergence(p, q), sub(1, own))
}

/**
 * MART (Wang et al., Improving adversarial robustness requires revisiting misclassified examples, ICLR 2020): mean BCE(p(x*), y) +
 * lambda mean KL(p(x) || p(x*)) (1 - p_y(x)), BCE = `boostedCrossEntropy`, x* by PGD on CE: images that are misclassified already count more. Default:
 * lambda = 5; at 0 it is boosted CE under attack. It has no natural term: a log has the whole loss as `robust`.
 *
 * @example
 *   const loss = mart({ lambda: 5, steps: 10 })
 */
export const mart = ({ lambda = 5, steps = 10 }: { readonly lambda?: Weight; readonly steps?: number } = {}): Loss => {
  const under = once(attacked(madry(steps)))
  return named('robust')(add(judged(boostedCrossEntropy)(under), scale(lambda)(compared(mistaken)(forward, under))))
}

/**
 * Verifiable training: (1 - a) mean CE(f(x), y) + a mean CE(m), m by the method on the whole batch. With IBP and a schedule for a from 0 to 1/2 it is IBP
 * training (arXiv:1810.12715, section 3; kappa = 1 - a); with symbolic intervals it is what MixTrain (arXiv:1811.02625) compares with. At a = 0 it is natural.
 *
 * @example
 *   const loss = verifiable(symbolic, 0.5)
 */
export const verifiable = (method: B.Bounder, weight: Weight = balance): Loss =>
  mix(weight)(natural(crossEntropy), certified(method))

/** Options of CROWN-IBP (arXiv:1906.06316, with loss fusion arXiv:2002.12920). */
export interface CrownIbp {
  /** Weight of the bound by CROWN, 1 - beta that of interval propagation: from 1 to 0 in the paper. */
  readonly beta?: Weight
  readonly weight?: Weight
  /** One backward row per image, by bounding the loss itself. */
  readonly fused?: boolean
}

/**
 * CROWN-IBP (arXiv:1906.06316, section 3): (1 - a) mean CE(f(x), y) + a mean CE(m), margins bounded by beta crown-ibp + (1 - beta) ibp. With loss fusion
 * (arXiv:2002.12920, "loss fusion"; `fusedCrossEntropy`) the mix is of bounds of the loss, a mean of (1 - beta) CE(m_ibp) + beta bound(CE). At beta = 0 both are
 * IBP, which alone is then computed; at beta = 1 it is the walk alone.
 *
 * @example
 *   const loss = crownIbp({ weight: 0.5 })
 */
export const crownIbp = ({ beta = 0.5, weight = balance, fused = false }: CrownIbp = {}): Loss =>
  mix(weight)(
    natural(crossEntropy),
    named('robust')(
      fused
        ? mix(beta)(worstCase(crossEntropy)(bounded(B.ibp)), fusedCrossEntropy())
        : worstCase(crossEntropy)(mixBounds(beta)(bounded(B.ibp), bounded(B.crownIbp))),
    ),
  )

/** Options of MixTrain (arXiv:1811.02625). */
export interface MixTrain {
  /** Images per batch that the sound bound is computed for. */
  readonly k: number
  readonly weight?: Weight
  readonly gate?: Gate
  readonly method?: B.Bounder
  /** Which images; default: random ones. */
  readonly choice?: ChoiceName
}

/**
 * MixTrain (arXiv:1811.02625, stochastic robust approximation and dynamic mixed training): (1 - b) mean_i CE(f(x_i), y_i) + b mean_{i in R} CE(m_i), R k images drawn
 * from the batch without replacement, m by symbolic intervals, b the balance of the epoch. Where the gate is shut it is (1 - b) mean CE alone. With k = n it is
 * verifiable training on the whole batch.
 *
 * @example
 *   const loss = mixTrain({ k: 5 })
 */
export const mixTrain = ({
  k,
  weight = balance,
  gate: open = always,
  method = B.symbolic,
  choice = 'random',
}: MixTrain): Loss => mix(weight)(natural(crossEntropy), gate(open)(choices[choice](k)(certified(method))))

/**
 * MixTrain with intervals as a control variate: (1 - b) mean CE(f(x), y) + b (mean_all CE(m_ibp) + mean_R (CE(m) - CE(m_ibp))), R k images drawn from the batch (`controlled`): tight bounds on
 * few images, cheap ones on all, and the mean over all draws is verifiable training on the whole batch.
 *
 * @example
 *   const loss = controlledMixTrain({ k: 5 })
 */
export const controlledMixTrain = ({
  k,
  weight = balance,
  method = B.symbolic,
}: Omit<MixTrain, 'gate' | 'choice'>): Loss => {
  const plain = (m: B.Bounder) => worstCase(crossEntropy)(bounded(m))
  return mix(weight)(natural(crossEntropy), named('robust')(controlled(k)(plain(method), plain(B.ibp))))
}

/**
 * Both conflicts balanced: (1 - b) mean CE(f(x), y) + b ((1 - s) mean_all CE(m_ibp) + s mean_R CE(m)), R as in MixTrain, b the balance between accuracy and robustness, s the share of tight bounds
 * among robust terms; a run's rules set both from the history (`adaptive`, `tightShare` of src/train/balance.ts).
 *
 * @example
 *   const loss = twofold({ k: 4 })
 */
export const twofold = ({
  k,
  weight = balance,
  method = B.symbolic,
  tight = share,
}: Omit<MixTrain, 'gate' | 'choice'> & { readonly tight?: Weight }): Loss => {
  const plain = (m: B.Bounder) => worstCase(crossEntropy)(bounded(m))
  return mix(weight)(natural(crossEntropy), named('robust')(mix(tight)(plain(B.ibp), sampled(k)(plain(method)))))
}

/**
 * MixTrain as HYDRA trains it (arXiv:2002.10509, its public MixTrain trainer): mean_i CE(f(x_i), y_i) + w mean_{i in R} CE(m_i) with probability 0.8, else the first term
 * alone; R k images drawn from the batch with replacement, w growing in steps to 50 (`hydraWeight`). At w = 0 it is natural.
 *
 * @example
 *   const loss = hydra({ k: 5 })
 */
export const hydra = ({
  k,
  weight = hydraWeight(),
  method = B.symbolic,
}: {
  readonly k: number
  readonly weight?: Weight
  readonly method?: B.Bounder
}): Loss =>
  add(natural(crossEntropy), scale(weight)(gate(bernoulli(0.8))(sampled(k, 'with replacement')(certified(method)))))

/** Options of SABR (arXiv:2210.04871). */
export interface Sabr {
  /** Radius of the propagated box, as a share of epsilon. */
  readonly lambda?: number
  readonly attack?: Attack
}

/**
 * SABR (arXiv:2210.04871): mean CE(m), m by interval propagation of a small box round an adversarial point inside the ball (`smallBox`). At
 * lambda = 1 it is IBP.
 *
 * @example
 *   const loss = sabr({ lambda: 0.4 })
 */
export const sabr = ({ lambda = 0.4, attack = madry(8) }: Sabr = {}): Loss =>
  certified(B.ibp, smallBox(lambda, perturbed(attack)))

/** What TAPS does behind the cut, by default: the last nonlinear layer, 8 steps. */
const LATENT: Latent = { layers: 1, steps: 8, stepSize: 0.5 }

/**
 * TAPS (arXiv:2305.04574, section 3): mean CE(m_taps) times mean CE(m_ibp), m_taps from an attack in the interval-propagated latent box (`latentLogits`). With
 * nothing nonlinear behind the cut m_taps is m_ibp. `region` makes it STAPS: SABR's small box.
 *
 * @example
 *   const loss = taps({ steps: 20 })
 */
export const taps = (latent: Partial<Latent> = {}, region: Region = wholeBall): Loss => {
  const outer = once(region)
  return product(judged(crossEntropy)(latentLogits({ ...LATENT, ...latent }, outer)), certified(B.ibp, outer))
}

/**
 * STAPS (arXiv:2305.04574, "STAPS"): TAPS from SABR's small box (`smallBox`). At lambda = 1 it is TAPS.
 *
 * @example
 *   const loss = staps({ lambda: 0.4 })
 */
export const staps = ({ lambda = 0.4, attack = madry(8), ...latent }: Sabr & Partial<Latent> = {}): Loss =>
  taps(latent, smallBox(lambda, perturbed(attack)))

/** Options of the losses that mix an attack and a bound (arXiv:2305.13991). */
export interface Expressive {
  /** Share of the IBP bound, in [0, 1]. */
  readonly a?: Weight
  readonly attack?: Attack
}

/**
 * MTL-IBP (arXiv:2305.13991, section 4): (1 - a) mean CE(f(x*), y) + a mean CE(m_ibp). At a = 0 it is adversarial training, at 1 IBP.
 *
 * @example
 *   const loss = mtlIbp({ a: 0.04 })
 */
export const mtlIbp = ({ a = balance, attack = farStep }: Expressive = {}): Loss =>
  mix(a)(judged(crossEntropy)(attacked(attack)), certified(B.ibp))

/**
 * CC-IBP (arXiv:2305.13991, section 4): mean CE((1 - a) m(x*) + a m_ibp), the mix taken of logit differences. At a = 0 it is adversarial training, at 1
 * IBP.
 *
 * @example
 *   const loss = ccIbp({ a: 0.3 })
 */
export const ccIbp = ({ a = balance, attack = farStep }: Expressive = {}): Loss =>
  named('robust')(judged(crossEntropy)(mixLogits(a)(attacked(attack), worstLogits(bounded(B.ibp)))))

/**
 * EXP-IBP (arXiv:2305.13991, section 4): (mean CE(f(x*), y))^(1 - a) (mean CE(m_ibp))^a. At a = 0 it is adversarial training, at 1 IBP.
 *
 * @example
 *   const loss = expIbp({ a: 0.5 })
 */
export const expIbp = ({ a = balance, attack = farStep }: Expressive = {}): Loss =>
  geometric(a)(judged(crossEntropy)(attacked(attack)), certified(B.ibp))

/**
 * Wong-Kolter (arXiv:1711.00851, section 3): mean CE(m), m by their dual network, which equals symbolic intervals given the same
 * pre-activation bounds. `wongKolter(dual())` is their own construction (algorithm 1), `wongKolter(dual({ projections: 50 }))` trains on its estimate
 * by random projections (arXiv:1805.12514), which is no bound; the networks of a cascade (the same paper) each train on what `cascade.remaining` leaves.
 *
 * @example
 *   const loss = wongKolter(dual({ projections: 50 }))
 */
export const wongKolter = (method: B.Bounder = B.symbolic): Loss => certified(method)

/** lambda of Fast-IBP where nothing else is said: the recipes of interval propagation let epsilon grow for half of the training. */
const WARM_UP = linear(0.5, 0, 0, 0.5)

/**
 * Fast-IBP (arXiv:2103.17268): (1 - a) mean CE(f(x), y) + a mean CE(m_ibp) + lambda (`tightness` + `reluBalance`), lambda from 1/2 to 0 while epsilon grows. An
 * expression does not see how far epsilon has come: by default lambda falls linearly over the first half of the training, and `warmUp` is to be given where epsilon
 * grows otherwise (`objectives` does). At lambda = 0 it is IBP. Meant for weights that start by `ibpInit` and for networks with batch norm.
 *
 * @example
 *   const loss = fastIbp({ weight: 0.5 })
 */
export const fastIbp = ({
  weight = balance,
  warmUp = WARM_UP,
}: {
  readonly weight?: Weight
  readonly warmUp?: Weight
} = {}): Loss => {
  const boxes = hidden(B.ibp)
  return add(verifiable(B.ibp, weight), scale(warmUp)(add(tightness(boxes, wholeBall), reluBalance(boxes))))
}

/**
 * Logits of a network that is not trained: a teacher. Its parameters become constants, and no gradient flows into it.
 *
 * @example
 *   const network = networks.small({ input: [1, 28, 28], classes: 10 })
 *   const teacher = frozen(network, network.init(key(1)))
 */
export const frozen =
  (network: Pick<Network, 'apply' | 'parameters'>, parameters: Named<ArrayLike<number>>): Logits =>
  (step) =>
  () => {
    const constants = Object.entries(network.parameters).map(([k, { shape }]) => [k, constant(parameters[k], shape)])
    return stopGradient(network.apply(Object.fromEntries(constants))(step.inputs))
  }

/** Options of distilled training. */
export interface Distilled {
  /** Share of the certified term, in [0, 1]. */
  readonly a?: Weight
  readonly attack?: Attack
}

/**
 * Distillation (AD-CERT, arXiv:2606.31653): (1 - a) mean KL(p_teacher(x) || p(x*)) + a mean CE(m_ibp), x* by PGD on CE, the teacher a network that PGD trained (`frozen`). At a = 1 it
 * is IBP.
 *
 * @example
 *   const network = networks.small({ input: [1, 28, 28], classes: 10 })
 *   const loss = distilled(frozen(network, network.init(key(1))))
 */
export const distilled = (teacher: Logits, { a = balance, attack = madry(8) }: Distilled = {}): Loss =>
  mix(a)(compared(divergence)(teacher, attacked(attack)), certified(B.ibp))

/**
 * CC-Dist (arXiv:2602.02626): CC-IBP(a) + (w / d) mean_i sum_j max((l_ij - t_ij)^2, (u_ij - t_ij)^2), t the teacher's features of x, the d inputs of its last layer, and [l, u] the
 * student's, mixed as the logits are: l = (1 - a) f(x*) + a f_lower over the ball. Default: w = 5. The teacher has the student's architecture.
 *
 * @example
 *   const teacher = networks.small({ input: [1, 28, 28], classes: 10 }).apply(weights)
 *   const loss = featureDistilled(() => teacher)
 */
export const featureDistilled = (
  teacher: (step: Step) => Apply,
  { a = balance, attack = farStep, weight = 5 }: Distilled & { readonly weight?: Weight } = {},
): Loss => {
  const inputs = once(perturbed(attack))
  const distance: Loss = (step) => (model) => {
    const t = stopGradient(features(teacher(step), step.inputs))
    const box = featureBox(boundedLogits(step, model), wholeBall(step)(model))
    const own = features(model.logits, inputs(step)(model))
    const square = (end: Tensor) => {
      const mixed = mixLogits(a)(
        () => () => own,
        () => () => end,
      )(step)(model)
      const off = sub(mixed, t)
      return mul(off, off)
    }
    const worst = maximum(square(box.lower), square(box.upper))
    return meanOver(step, mean(worst, [...worst.shape.keys()].slice(1)))
  }
  return add(
    named('robust')(judged(crossEntropy)(mixLogits(a)(at(inputs), worstLogits(bounded(B.ibp))))),
    scale(weight)(distance),
  )
}

/** What the recipe of a run lets an objective know. */
export interface ObjectiveOptions {
  /** Images per batch that MixTrain bounds. */
  readonly k: number
  /** From 0 to 1 while epsilon grows to its full size, then 1: how far the warm-up has come. */
  readonly ramp?: Weight
  /** SABR's and STAPS's share of epsilon. */
  readonly lambda?: number
  /** Radius of the attacks of adversarial terms, as a factor of that of the ball. */
  readonly attackRadius?: number
  /** Start of Fast-IBP's regularizers; default 1/2. */
  readonly regularizer?: number
  /** Which images MixTrain bounds. */
  readonly choice?: ChoiceName
  /** Logits to learn from. */
  readonly teacher?: Logits | undefined
}

/** How MixTrain chooses the images of a batch that it bounds. Scores are interval-propagated cross-entropies: an upper bound of what could be lost, at the cost of two passes. */
export const choices = {
  random: (k: number) => sampled(k),
  stratified: (k: number) => stratified(k),
  hardest: (k: number) => hardest(k, scored(crossEntropy)(worstLogits(bounded(B.ibp)))),
  importance: (k: number) => importance(k, scored(crossEntropy)(worstLogits(bounded(B.ibp)))),
} as const
/** A name of `--choice`: how the k images that are bounded are drawn. */
export type ChoiceName = keyof typeof choices

const ofBalance = (ramp: Weight = 1): Weight => times(balance, ramp)

/** The objectives that the command line trains by name, each a function of `ObjectiveOptions`. `distilled` raises a usage error without a teacher. */
export const objectives = {
  mixtrain: ({ k, choice }: ObjectiveOptions) => mixTrain({ k, ...(choice === undefined ? {} : { choice }) }),
  controlled: ({ k }: ObjectiveOptions) => controlledMixTrain({ k }),
  twofold: ({ k }: ObjectiveOptions) => twofold({ k }),
  natural: () => natural(crossEntropy),
  pgd: ({ attackRadius = 1 }: ObjectiveOptions) => adversarial(40, wider(attackRadius)(madry())),
  trades: () => trades(),
  mart: () => mart(),
  ibp: ({ ramp }: ObjectiveOptions) => verifiable(B.ibp, ofBalance(ramp)),
  'fast-ibp': ({ ramp, regularizer = 0.5 }: ObjectiveOptions) =>
    fastIbp({
      weight: ofBalance(ramp),
      ...(ramp === undefined ? {} : { warmUp: times(regularizer, complement(ramp)) }),
    }),
  'crown-ibp': ({ ramp }: ObjectiveOptions) =>
    crownIbp({ weight: ofBalance(ramp), ...(ramp === undefined ? {} : { beta: complement(ramp) }) }),
  'crown-ibp-fused': ({ ramp }: ObjectiveOptions) =>
    crownIbp({ weight: ofBalance(ramp), fused: true, ...(ramp === undefined ? {} : { beta: complement(ramp) }) }),
  symbolic: () => verifiable(B.symbolic),
  'wong-kolter': () => wongKolter(),
  hydra: ({ k }: ObjectiveOptions) => hydra({ k }),
  sabr: ({ lambda = 0.4 }: ObjectiveOptions) => sabr({ lambda }),
  taps: () => taps(),
  staps: ({ lambda = 0.4 }: ObjectiveOptions) => staps({ lambda }),
  'mtl-ibp': ({ attackRadius = 1 }: ObjectiveOptions) => mtlIbp({ attack: wider(attackRadius)(farStep) }),
  'cc-ibp': ({ attackRadius = 1 }: ObjectiveOptions) => ccIbp({ attack: wider(attackRadius)(farStep) }),
  'exp-ibp': ({ attackRadius = 1 }: ObjectiveOptions) => expIbp({ attack: wider(attackRadius)(farStep) }),
  distilled: ({ attackRadius = 1, teacher }: ObjectiveOptions) =>
    teacher === undefined
      ? () => raise(usage('the loss distilled learns from a trained network, its teacher (--teacher MODEL)'))
      : distilled(teacher, { attack: wider(attackRadius)(madry(8)) }),
} as const
/** A name of `objectives`: what `--loss` takes. */
export type ObjectiveName = keyof typeof objectives
