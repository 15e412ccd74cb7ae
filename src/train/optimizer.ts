import { power } from '../core/number.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Schedule } from '../loss/loss.ts'
import type { Named } from '../nn/layers.ts'
import { add, div, feed, greater, minimum, mul, select, sqrt, sub, sum } from '../ops/index.ts'

/** State of an optimizer: for each slot (such as the first moment), one tensor per parameter. */
export type Slots<A> = Named<Named<A>>

/**
 * A pure update rule on graphs. `slots` names the state, which starts at 0; `update` gives new parameters and new state.
 */
export interface Optimizer {
  readonly slots: readonly string[]
  /** The slot that stands for the parameters where a model is evaluated or saved; default: the parameters. */
  readonly evaluated?: string
  readonly update: (
    parameters: Named<Tensor>,
    gradients: Named<Tensor>,
    state: Slots<Tensor>,
  ) => { readonly parameters: Named<Tensor>; readonly state: Slots<Tensor> }
}

const fed = (name: string, f: Schedule): Tensor => feed(name, [], (h) => Float32Array.of(f(h)))
const rate = (lr: number | Schedule): Tensor => fed('learningRate', typeof lr === 'number' ? () => lr : lr)

export const mapNamed = <A, B>(named: Named<A>, f: (a: A, name: string) => B): Named<B> =>
  Object.fromEntries(Object.entries(named).map(([k, a]) => [k, f(a, k)]))

/**
 * Stochastic gradient descent: v <- momentum v + g, p <- p - lr v.
 *
 * @example
 *   const optimizer = sgd({ lr: 0.01, momentum: 0.9 })
 */
export const sgd = ({
  lr,
  momentum = 0,
}: {
  readonly lr: number | Schedule
  readonly momentum?: number
}): Optimizer => ({
  slots: momentum === 0 ? [] : ['velocity'],
  update: (parameters, gradients, state) => {
    const step = rate(lr)
    const velocity =
      momentum === 0 ? gradients : mapNamed(gradients, (g, k) => add(mul(momentum, state.velocity[k]), g))
    return {
      parameters: mapNamed(parameters, (p, k) => sub(p, mul(step, velocity[k]))),
      state: momentum === 0 ? {} : { velocity },
    }
  },
})

/** Settings of Adam (arXiv:1412.6980), with decoupled weight decay (arXiv:1711.05101). */
export interface Adam {
  readonly lr: number | Schedule
  readonly beta1?: number
  readonly beta2?: number
  readonly eps?: number
  /** Decoupled weight decay (AdamW, arXiv:1711.05101): p <- p - lr decay p. */
  readonly weightDecay?: number
}

/**
 * Adam (arXiv:1412.6980) with bias correction: p <- p - lr m' / (sqrt(v') + eps).
 *
 * @example
 *   const optimizer = adam({ lr: 0.001, weightDecay: 1e-4 })
 */
export const adam = ({ lr, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0 }: Adam): Optimizer => ({
  slots: ['first', 'second'],
  update: (parameters, gradients, { first, second }) => {
    const step = rate(lr)
    const correct1 = fed('correction1', (h) => 1 / (1 - power(beta1, h.count + 1)))
    const correct2 = fed('correction2', (h) => 1 / (1 - power(beta2, h.count + 1)))
    const m = mapNamed(gradients, (g, k) => add(mul(beta1, first[k]), mul(1 - beta1, g)))
    const v = mapNamed(gradients, (g, k) => add(mul(beta2, second[k]), mul(1 - beta2, mul(g, g))))
    const moved = mapNamed(parameters, (p, k) => {
      const direction = div(mul(m[k], correct1), add(sqrt(mul(v[k], correct2)), eps))
      return weightDecay === 0 ? direction : add(direction, mul(weightDecay, p))
    })
    return { parameters: mapNamed(parameters, (p, k) => sub(p, mul(step, moved[k]))), state: { first: m, second: v } }
  },
})

/**
 * RAdam (arXiv:1908.03265, algorithm 2): p <- p - lr r_t m' / (sqrt(v') + eps) with r_t = sqrt((rho_t - 4)(rho_t - 2) rho / ((rho - 4)(rho - 2) rho_t)), rho = 2 / (1 - beta2) - 1 and
 * rho_t = rho - 2 t beta2^t / (1 - beta2^t), once rho_t > 5 (as PyTorch has it; the paper: 4); before, while the second moment says little, p <- p - lr m'.
 *
 * @example
 *   const optimizer = radam({ lr: 0.001 })
 */
export const radam = ({ lr, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0 }: Adam): Optimizer => {
  const rho = 2 / (1 - beta2) - 1
  const rectification = (t: number): number => {
    const left = power(beta2, t)
    const r = rho - (2 * t * left) / (1 - left)
    return r > 5 ? Math.sqrt(((r - 4) * (r - 2) * rho) / ((rho - 4) * (rho - 2) * r)) : 0
  }
  return {
    slots: ['first', 'second'],
    update: (parameters, gradients, { first, second }) => {
      const step = rate(lr)
      const correct1 = fed('correction1', (h) => 1 / (1 - power(beta1, h.count + 1)))
      const correct2 = fed('correction2', (h) => 1 / (1 - power(beta2, h.count + 1)))
      const r = fed('rectification', (h) => rectification(h.count + 1))
      const m = mapNamed(gradients, (g, k) => add(mul(beta1, first[k]), mul(1 - beta1, g)))
      const v = mapNamed(gradients, (g, k) => add(mul(beta2, second[k]), mul(1 - beta2, mul(g, g))))
      const moved = mapNamed(parameters, (p, k) => {
        const momentum = mul(m[k], correct1)
        const adapted = mul(r, div(momentum, add(sqrt(mul(v[k], correct2)), eps)))
        const direction = select(greater(r, 0), adapted, momentum)
        return weightDecay === 0 ? direction : add(direction, mul(weightDecay, p))
      })
      return { parameters: mapNamed(parameters, (p, k) => sub(p, mul(step, moved[k]))), state: { first: m, second: v } }
    },
  }
}

/**
 * Gradients scaled so that their joint Euclidean norm is at most `limit`: g <- g min(1, limit / ||g||).
 *
 * @example
 *   const optimizer = clipGradients(10)(sgd({ lr: 0.01 }))
 */
export const clipGradients =
  (limit: number) =>
  (optimizer: Optimizer): Optimizer => ({
    ...optimizer,
    update: (parameters, gradients, state) => {
      const squares = Object.values(gradients).map((g) => sum(mul(g, g)))
      const norm = sqrt(squares.reduce((a, b) => add(a, b)))
      const factor = minimum(1, div(limit, select(greater(norm, 0), norm, 1))) as Tensor
      return optimizer.update(
        parameters,
        mapNamed(gradients, (g) => mul(g, factor)),
        state,
      )
    },
  })
