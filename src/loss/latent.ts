import { dependents, isNonlinear } from '../bounds/anatomy.ts'
import { order, substitute } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { raise, usage } from '../core/error.ts'
import { interval } from '../core/op.ts'
import type { Apply, Interval, Tensor } from '../core/tensor.ts'
import { crossEntropy } from '../nn/criterion.ts'
import {
  add,
  broadcastTo,
  centre,
  div,
  greater,
  input,
  maximum,
  minimum,
  mul,
  radius,
  relu,
  reshape,
  select,
  sign,
  stopGradient,
  sub,
  sum,
} from '../ops/index.ts'
import { margin, noise, slopeOf } from '../robust/attack.ts'
import { type Bounder, ibp } from '../robust/bounds.ts'
import { rivals, worstCaseLogits } from '../robust/specification.ts'
import { boundedLogits, type Logits, type Region } from './loss.ts'

/** A network in two parts: `output` depends on its input through `latent` alone. */
interface Parts {
  readonly input: Tensor
  readonly latent: Tensor
  readonly output: Tensor
}

/**
 * Cuts a network, traced on inputs of a shape, before its last `layers` nonlinear ops, right behind the one before them. `layers: 0` leaves
 * the linear end of the network behind the cut; as many as there are, everything. Between the branches of a residual block there is
 * no cut: the next one towards the output is taken.
 */
export const cut = (logits: Apply, shape: readonly number[], layers: number): Parts => {
  const x: Tensor = input('x', shape)
  const output = logits(x)
  const nodes = order([output])
  const known = new Map([[x, interval(x, x)]])
  const boxed = dependents([output], known)
  if (!boxed.has(output)) return raise(usage('the logits do not depend on the input'))
  /** Nodes that depend on `from` without passing `wall`. */
  const reach = (from: Tensor, wall?: Tensor): ReadonlySet<Tensor> => {
    const seen = new Set<Tensor>(from === wall ? [] : [from])
    for (const n of nodes) if (n !== wall && n.inputs.some((i) => seen.has(i))) seen.add(n)
    return seen
  }
  const behind = (z: Tensor) =>
    [...reach(z)].filter((n) => n !== z && n.inputs.length > 0 && isNonlinear(n, boxed)).length
  const latent = nodes.find((z) => boxed.has(z) && behind(z) <= layers && !reach(x, z).has(output)) ?? output
  return { input: x, latent, output }
}

/** What a network's last layer takes, at a point: `[n, ...features]`. */
export const features = (logits: Apply, x: Tensor): Tensor => {
  const { input: from, latent } = cut(logits, x.shape, 0)
  return substitute([latent], new Map([[from, x]]))[0]
}

/** Interval-propagated bounds of the same over a box. */
export const featureBox = (logits: Apply, box: Interval): Interval => {
  const { input: from, latent, output } = cut(logits, box.shape, 0)
  return latent === from ? box : ibp(output, new Map([[from, box]])).node(latent)
}

/** The part behind a cut, as a function of as many latent values as there are. */
const tailOf =
  (logits: Apply, shape: readonly number[], layers: number) =>
  (z: Tensor): Tensor => {
    const parts = cut(logits, [z.shape[0], ...shape.slice(1)], layers)
    return substitute([parts.output], new Map([[parts.latent, z]]))[0]
  }

/**
 * A point of a box whose gradient goes on to the faces of the box that it lies near (the rectified linear connector of TAPS,
 * arXiv:2305.04574, section 3): dz/dl = max(0, 1 - (z - l) / (c (u - l))) and dz/du = max(0, 1 - (u - z) / (c (u - l))), c in (0, 1]. Its value is
 * the point's; a face without width shares the gradient evenly.
 */
export const linked = (point: Tensor, { lower, upper }: Interval, connector: number): Tensor => {
  const [z, l, u] = [point, lower, upper].map(stopGradient)
  const width = sub(u, l)
  const wide = greater(width, 0)
  const share = (distance: Tensor) =>
    select(wide, relu(sub(1, div(distance, mul(select(wide, width, 1), connector)))), 0.5)
  const moved = (end: Tensor, weight: Tensor) => mul(weight, sub(end, stopGradient(end)))
  return add(z, add(moved(lower, share(sub(z, l))), moved(upper, share(sub(u, z)))))
}

/** How the attack of TAPS goes in a latent box (arXiv:2305.04574). */
export interface Latent {
  /** Nonlinear ops behind the cut. */
  readonly layers: number
  /** Steps of the attack in the latent box, and their size as a share of its radius. */
  readonly steps: number
  readonly stepSize: number
  /** `margins`: one adversarial latent point for each rival class; `loss`: one for the cross-entropy, for many classes. */
  readonly estimate?: 'margins' | 'loss'
  /** Share of the box from which a face gets gradients. */
  readonly connector?: number
  /** How the latent box is bounded. */
  readonly method?: Bounder
}

/**
 * Worst-case logits estimated from a latent box (TAPS, arXiv:2305.04574, section 3): the box of the cut by interval propagation over a region, then projected
 * gradient ascent inside it, z <- clip(z + stepSize r sign(gradient)) from a random point. An estimate from below of what propagation to
 * the end would give, with gradients to the parameters of both parts. The linear end alone (`layers: 0`) with stepSize >= 2 is exact.
 *
 * @example
 *   const loss = judged(crossEntropy)(latentLogits({ layers: 4, steps: 20, stepSize: 0.1 }, wholeBall))
 */
export const latentLogits =
  ({ layers, steps, stepSize, estimate = 'margins', connector = 0.5, method = ibp }: Latent, region: Region): Logits =>
  (step) =>
  (model) => {
    const outer = region(step)(model)
    const [n, k] = [outer.shape[0], step.classes]
    const logits = boundedLogits(step, model)
    const parts = cut(logits, outer.shape, layers)
    const known = new Map([[parts.input, outer]])
    const box = parts.latent === parts.input ? outer : method(parts.output, known).node(parts.latent)
    const copies = estimate === 'margins' ? k - 1 : 1
    const repeat = (v: Tensor) => {
      const rest = v.shape.slice(1)
      return reshape(broadcastTo(reshape(v, [1, n, ...rest]), [copies, n, ...rest]), [copies * n, ...rest])
    }
    const latent = interval(repeat(box.lower), repeat(box.upper))
    const tail = tailOf(logits, outer.shape, layers)
    const rows = rivals(step.labels, k)
    const margins = (z: Tensor) => sum(select(rows, mul(rows, reshape(tail(z), [copies, n, k])), 0), 2)
    const uphill = (z: Tensor): Tensor =>
      estimate === 'margins'
        ? grad(sub(0, sum(margins(z))), [z])[0]
        : slopeOf(crossEntropy, margin, [z, tail(z), step.labels]).gradient
    const [low, high] = [stopGradient(latent.lower), stopGradient(latent.upper)]
    const [c, r] = [centre(interval(low, high)), radius(interval(low, high))]
    const project = (z: Tensor) => minimum(maximum(z, low), high)
    let z = project(add(c, mul(r, noise('latent', r.shape))))
    for (let t = 0; t < steps; t++) {
      const here = stopGradient(z)
      z = project(add(here, mul(mul(r, stepSize), sign(uphill(here)))))
    }
    const worst = linked(z, latent, connector)
    return estimate === 'margins' ? worstCaseLogits(margins(worst), step.labels) : tail(worst)
  }
