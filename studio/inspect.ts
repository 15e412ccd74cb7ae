// Answers questions about single images, by the public doors.
import { type Backend, type Network, openRegion, program } from 'mixtrain'
import { pgdAttack, search } from 'mixtrain/attacks'
import { ball, boundsOf, layerBounds, methods, rivals } from 'mixtrain/bounds'
import type { Adversarial, Bounds, Layer, Method, Question } from './protocol.ts'

/** The attack of a report's ERA, from more points; what it finds is confirmed in double precision. */
const ATTACK = pgdAttack({ steps: 40, restarts: 8, seed: 0 })
const RANGE = [0, 1] as const

export type Parameters = Readonly<Record<string, Float32Array>>

export interface Inspector {
  readonly network: Network
  readonly parameters: () => Parameters
  readonly set: (parameters: Parameters) => void
  readonly bounds: (q: Question) => Promise<Bounds>
  /** `label` is that of the bounds; `between` is called between searches, and ends them by throwing. */
  readonly attack: (q: Question, label: number, between: () => Promise<void>) => Promise<Adversarial | undefined>
  readonly layers: (q: Question) => Promise<readonly Layer[]>
  readonly close: () => void
}

const largest = (xs: readonly number[], but?: number): number =>
  xs.reduce((best, x, i) => (i !== but && (best < 0 || x > xs[best]) ? i : best), -1)

/** The label alone has the largest logit. */
const wins = (logits: readonly number[], label: number): boolean =>
  logits.every((z, j) => j === label || logits[label] > z)

export const verdictOf = (logits: readonly number[], margin: readonly number[], label: number): Bounds['verdict'] => {
  if (!wins(logits, label)) return 'misclassified'
  return margin.every((m, j) => j === label || (m > 0 && m < Number.POSITIVE_INFINITY)) ? 'certified' : 'open'
}

const inputsOf = (network: Network) => ({ parameters: network.inputs, x: [1, ...network.input], epsilon: [] })

/**
 * Bounds by `boundsOf(method)(network, ball(x, epsilon))`, margins merged into the last layer: the path of `mixtrain bounds`, and on the
 * same backend the same bits.
 */
const boundsProgram = (network: Network, method: Method) =>
  program({ ...inputsOf(network), label: [1] }, ({ parameters, x, epsilon, label }) => {
    const apply = network.apply(parameters)
    const bounded = boundsOf(methods[method])(apply, ball(x, epsilon))
    return { logits: apply(x), box: bounded.output(), margin: bounded.rows(rivals(label, network.classes)).lower }
  })

const layersProgram = (network: Network, method: Method) => {
  let names: readonly string[] = []
  const made = program(inputsOf(network), ({ parameters, x, epsilon }) => {
    const layers = layerBounds(methods[method])(network.apply(parameters)(x), new Map([[x, ball(x, epsilon)]]))
    names = layers.map(({ name }) => name)
    return layers.map(({ bounds }) => bounds)
  })
  return { made, names }
}

const describe = (name: string, lower: ArrayLike<number>, upper: ArrayLike<number>): Layer => {
  const [a, b] = [Array.from(lower), Array.from(upper)]
  const widths = a.map((l, i) => b[i] - l)
  const signs = {
    below: a.filter((_, i) => b[i] <= 0).length,
    above: a.filter((l, i) => l >= 0 && b[i] > 0).length,
    open: a.filter((l, i) => l < 0 && b[i] > 0).length,
  }
  return {
    name,
    neurons: a.length,
    meanWidth: widths.reduce((s, w) => s + w, 0) / a.length,
    widest: widths.reduce((s, w) => Math.max(s, w), 0),
    signs: name.startsWith('relu') ? signs : undefined,
  }
}

/** One plan for each method and kind of question, made when it is first asked for. */
export const inspector = (backend: Backend, network: Network, first: Parameters): Inspector => {
  const { region, close } = openRegion(backend)
  let current = first
  const names = Object.keys(network.parameters)
  const resident = Object.fromEntries(names.map((name) => [name, region.from(first[name])]))
  const attack = search(region)
  const kept = new Map<string, unknown>()
  const once = <A>(key: string, make: () => A): A => {
    if (!kept.has(key)) kept.set(key, make())
    return kept.get(key) as A
  }
  const bounder = (method: Method) => once(`bounds ${method}`, () => boundsProgram(network, method).on(region))
  const about = ({ image, epsilon }: Question) => ({ parameters: resident, x: image, epsilon })

  return {
    network,
    parameters: () => current,
    set: (next) => {
      current = next
      for (const name of names) backend.write(resident[name], next[name])
    },
    bounds: async (q) => {
      const ask = await bounder(q.method)
      // Margins depend on the label, which may be the prediction: then the plan runs once more.
      let found = await ask({ ...about(q), label: q.label ?? 0 })
      const prediction = largest([...found.logits])
      const label = q.label ?? prediction
      if (q.label === undefined && label !== 0) found = await ask({ ...about(q), label })
      const [logits, lower, upper, rival] = [found.logits, found.box.lower, found.box.upper, found.margin].map((v) => [
        ...v,
      ])
      const margin = [...rival.slice(0, label), 0, ...rival.slice(label)]
      return { label, prediction, logits, lower, upper, margin, verdict: verdictOf(logits, margin, label) }
    },
    attack: async (q, label, between) => {
      const { run } = await once('attack', () =>
        attack({ network, range: RANGE, norm: 'linf', attack: ATTACK, batch: 1 }),
      )
      const attacked = { indices: [0], pixels: () => q.image, labels: () => Float32Array.of(label) }
      const point = (await run(resident, attacked, q.epsilon, between)).get(0)?.point
      if (point === undefined) return undefined
      const image = Float32Array.from(point)
      const { logits } = await (await bounder('ibp'))({ ...about(q), x: image, label })
      return { image, prediction: largest([...logits], label) }
    },
    layers: async (q) => {
      const { made, names: layers } = once(`layers of ${q.method}`, () => layersProgram(network, q.method))
      const found = await (await once(`layers ${q.method}`, () => made.on(region)))(about(q))
      return found.map(({ lower, upper }, i) => describe(layers[i], lower, upper))
    },
    close,
  }
}
