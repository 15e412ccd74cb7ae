import {
  type Backend,
  ball,
  boundsOf,
  type Compiled,
  compileIn,
  crossEntropy,
  input,
  type MethodName,
  methods,
  type Network,
  openRegion,
  pgdAttack,
  rivals,
  size,
} from '../src/index.ts'
import { pgdFrom } from '../src/robust/attack.ts'
import { type Adversarial, type Bounds, PIXELS, type Question } from './protocol.ts'

/** Starts of the attack: the image itself and random points of the box. */
const STARTS = 8
/** The attack of a report's ERA. */
const ATTACK = pgdAttack({ steps: 40, restarts: STARTS, seed: 0 })

type Parameters = Readonly<Record<string, Float32Array>>

/** Answers questions about single images. */
export interface Inspector {
  readonly network: Network
  readonly parameters: () => Parameters
  readonly set: (parameters: Parameters) => void
  readonly bounds: (q: Question) => Promise<Bounds>
  /** `label` is that of the bounds. */
  readonly attack: (q: Question, label: number) => Promise<Adversarial | undefined>
  readonly close: () => void
}

const largest = (xs: readonly number[]): number => xs.reduce((best, x, i) => (x > xs[best] ? i : best), 0)

/** The label alone has the largest logit. */
const wins = (logits: readonly number[], label: number): boolean =>
  logits.every((z, j) => j === label || logits[label] > z)

const verdictOf = (logits: readonly number[], margin: readonly number[], label: number): Bounds['verdict'] => {
  if (!wins(logits, label)) return 'misclassified'
  return margin.every((m, j) => j === label || (m > 0 && m < Number.POSITIVE_INFINITY)) ? 'certified' : 'open'
}

/** The points from which the attack starts, relative to the ball: 0, then a fixed spread of [-1, 1). */
const startsOf = (): Float32Array => {
  const noise = new Float32Array(STARTS * PIXELS)
  let state = 1
  for (let i = PIXELS; i < noise.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    noise[i] = state / 2 ** 31
  }
  return noise
}

/**
 * Bounds by `boundsOf(method)(network, ball(x, epsilon))`, margins merged into the last layer: the path of `mixtrain bounds`, and on the
 * same backend the same bits. One plan for each method, made when it is first asked for.
 */
export const inspector = (backend: Backend, network: Network, first: Parameters): Inspector => {
  const { region, close } = openRegion(backend)
  const names = Object.keys(network.parameters)
  let parameters = first
  const resident = names.map((name) => region.from(first[name]))
  const nodes = names.map((name) => input(name, network.parameters[name].shape))
  const apply = network.apply(Object.fromEntries(names.map((name, i) => [name, nodes[i]])))
  const epsilonNode = input('epsilon', [])
  const buffers = {
    image: region.alloc(PIXELS),
    label: region.alloc(1),
    epsilon: region.alloc(1),
    many: region.alloc(STARTS * PIXELS),
    labels: region.alloc(STARTS),
  }

  const boundsPlan = async (method: MethodName) => {
    const [x, y] = [input('x', [1, ...network.input]), input('label', [1])]
    const bounded = boundsOf(methods[method])(apply, ball(x, epsilonNode))
    const box = bounded.output()
    const outputs = [apply(x), box.lower, box.upper, bounded.rows(rivals(y, network.classes)).lower]
    const compiled = await compileIn(region)(outputs, [...nodes, x, y, epsilonNode])
    return { compiled, results: outputs.map((o) => region.alloc(size(o.shape))) }
  }

  const attackPlan = async () => {
    const inputs = input('inputs', [STARTS, ...network.input])
    const [labels, noise] = [input('labels', [STARTS]), input('noise', inputs.shape)]
    const target = { logits: apply, inputs, labels, epsilon: epsilonNode, range: [0, 1] as const }
    const found = pgdFrom(ATTACK, crossEntropy, noise)(target)
    const outputs = [found, apply(found)]
    const compiled = await compileIn(region)(outputs, [...nodes, inputs, labels, epsilonNode, noise])
    return { compiled, noise: region.from(startsOf()), results: outputs.map((o) => region.alloc(size(o.shape))) }
  }

  const plans = new Map<MethodName, ReturnType<typeof boundsPlan>>()
  const planOf = (method: MethodName) => {
    const plan = plans.get(method) ?? boundsPlan(method)
    plans.set(method, plan)
    return plan
  }
  let attacking: ReturnType<typeof attackPlan> | undefined

  /** Margins depend on the label, which may be the prediction: then the plan runs once more. */
  const runBounds = async (
    {
      compiled,
      results,
    }: { readonly compiled: Compiled; readonly results: Awaited<ReturnType<typeof boundsPlan>>['results'] },
    { image, epsilon }: Question,
    label: number,
  ) => {
    backend.write(buffers.image, image)
    backend.write(buffers.epsilon, Float32Array.of(epsilon))
    backend.write(buffers.label, Float32Array.of(label))
    compiled.run([...resident, buffers.image, buffers.label, buffers.epsilon, ...results])
    // Reads are queued at once: another question may write the same buffers meanwhile.
    return (await Promise.all(results.map((r) => backend.read(r)))).map((r) => [...r])
  }

  return {
    network,
    parameters: () => parameters,
    set: (next) => {
      parameters = next
      names.forEach((name, i) => backend.write(resident[i], next[name]))
    },
    bounds: async (q) => {
      const plan = await planOf(q.method)
      let rows = await runBounds(plan, q, q.label ?? 0)
      const prediction = largest(rows[0])
      const label = q.label ?? prediction
      if (q.label === undefined && prediction !== 0) rows = await runBounds(plan, q, label)
      const [logits, lower, upper, rival] = rows
      const margin = [...rival.slice(0, label), 0, ...rival.slice(label)]
      return { label, prediction, logits, lower, upper, margin, verdict: verdictOf(logits, margin, label) }
    },
    attack: async ({ image, epsilon }, label) => {
      attacking ??= attackPlan()
      const { compiled, noise, results } = await attacking
      for (let i = 0; i < STARTS; i++) backend.write(buffers.many, image, i * PIXELS)
      backend.write(buffers.labels, new Float32Array(STARTS).fill(label))
      backend.write(buffers.epsilon, Float32Array.of(epsilon))
      compiled.run([...resident, buffers.many, buffers.labels, buffers.epsilon, noise, ...results])
      const [images, logits] = await Promise.all(results.map((r) => backend.read(r)))
      const points = Array.from({ length: STARTS }, (_, i) => {
        const z = [...logits.subarray(i * network.classes, (i + 1) * network.classes)]
        const rival = Math.max(...z.filter((__, j) => j !== label))
        return { i, z, margin: z[label] - rival }
      }).filter(({ z }) => !wins(z, label))
      if (points.length === 0) return undefined
      const worst = points.reduce((a, b) => (b.margin < a.margin ? b : a))
      return {
        image: Float32Array.from(images.subarray(worst.i * PIXELS, (worst.i + 1) * PIXELS)),
        prediction: largest(worst.z),
        logits: worst.z,
      }
    },
    close,
  }
}
