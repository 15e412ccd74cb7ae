import { suited } from '../compile/accumulate.ts'
import type { Buffer } from '../compile/backend.ts'
import type { Region } from '../compile/region.ts'
import { type Compiled, compileIn, compilePlanIn, planFor } from '../compile/run.ts'
import { order, stage } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { raise, usage } from '../core/error.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { isTrained, trainedOf } from '../nn/layers.ts'
import {
  add,
  type BatchChoice,
  concat,
  constant,
  type Host,
  input,
  mul,
  probe,
  probeName,
  reshape,
  scalar,
} from '../ops/index.ts'
import { choicesIn, type Images, sharedOut } from './choosing.ts'
import { partOf, type Ranks } from './ranks.ts'
import {
  evaluatedIn,
  type Feed,
  feedsIn,
  feedsOf,
  fittingStep,
  inOrder,
  requireParameters,
  stateOf,
} from './resident.ts'
import { summed } from './statistics.ts'
import {
  emptySlots,
  epsilonFeed,
  MOMENTUM,
  type Snapshot,
  TOTAL,
  type Trainer,
  type TrainerOptions,
  type TrainState,
} from './step.ts'

/** Images and labels of a micro-batch, by its number. */
export type MicroBatch = (micro: number) => Images

export interface MicroTrainer extends Omit<Trainer, 'step'> {
  /** One update on a batch of micro-batches; only those of this rank are asked for, and those that images were chosen of. */
  readonly step: (batch: MicroBatch, host: Host) => Promise<void>
}

export interface MicroOptions extends TrainerOptions {
  /** M, which divides the batch. */
  readonly microBatches: number
  readonly ranks: Ranks
}

/** A plan of parameters, images and what it is fed, and where its results go. */
interface Running {
  readonly compiled: Compiled
  readonly feeds: readonly Feed[]
  readonly outputs: readonly Buffer[]
}

/**
 * (state, batch) -> state, the batch as the mean over micro-batches: gradients, statistics and loss terms of each are summed by the ranks' tree, then one plan updates the state, on every
 * rank alike. A micro-batch has draws of its own (`Host.micro`), and its images are normalized by statistics of its own where the network has batch norm (ghost batch norm,
 * arXiv:1705.08741); running means of these, and the means over all training images that an evaluation takes, go through the tree.
 */
export const microTrainer =
  (region: Region) =>
  async (
    {
      network,
      loss,
      optimizer,
      batchSize,
      range,
      memory = Number.POSITIVE_INFINITY,
      microBatches: M,
      ranks,
    }: MicroOptions,
    start: TrainState & Partial<Snapshot>,
  ): Promise<MicroTrainer> => {
    if (batchSize % M !== 0) raise(usage(`${M} micro-batches do not divide a batch of ${batchSize} images`))
    if (ranks.size > M)
      raise(usage(`${M} micro-batches are not enough for ${ranks.size} ranks: each needs one at least`))
    const { backend } = region
    const n = batchSize / M
    const shapeOf = (k: string) => network.parameters[k].shape
    const names = Object.keys(trainedOf(network.parameters))
    const statisticNames = Object.keys(network.parameters).filter((k) => !isTrained(network.parameters[k]))
    const inputs = input('inputs', [n, ...network.input])
    const labels = input('labels', [n])
    const parameterOf = Object.fromEntries(names.map((k) => [k, input(k, shapeOf(k))]))
    const statistics = network.statistics(parameterOf)(inputs)
    const populationOf = Object.fromEntries(statisticNames.map((k) => [k, input(`population.${k}`, shapeOf(k))]))
    const objectiveIn = (parts: number) =>
      probe(
        TOTAL,
        loss({ inputs, labels, classes: network.classes, epsilon: epsilonFeed(), range, parts, microBatches: M })({
          logits: network.apply({ ...parameterOf, ...statistics }),
          parameters: parameterOf,
          ...(statisticNames.length === 0 ? {} : { population: network.apply({ ...parameterOf, ...populationOf }) }),
        }),
      )
    const objective = objectiveIn(1)
    const populationNodes = Object.values(populationOf)
    const choices = choicesIn([objective])
    const nodes = order([objective, ...choices.map((c) => c.scores)])
    const isRunning = nodes.some((x) => populationNodes.includes(x))
    const termNames = [...new Set(order([objective]).flatMap((x) => probeName(x) ?? []))]
    const running = isRunning ? statisticNames : []

    // What is summed over micro-batches, one after the other: gradients, statistics, then [value, count] of each term.
    const sizes = [...names, ...running].map((k) => S.size(shapeOf(k)))
    const offsets = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0))
    const termsAt = sizes.reduce((a, b) => a + b, 0)
    const length = termsAt + 2 * termNames.length

    // ---- a micro-batch -------------------------------------------------------------------------------------------------
    const staging = stage([objective])
    const variants = new Map<string, Running>()
    const planOf = (resolved: Tensor, keep: boolean) => {
      const [staged] = suited([resolved], backend.rounds ?? false)
      const gradients = grad(
        staged,
        names.map((k) => parameterOf[k]),
      )
      const probes = order([staged]).filter((x) => probeName(x) !== undefined)
      // [value, count] of each term.
      const counted = (t: string): Tensor => {
        const own = probes.filter((p) => probeName(p) === t)
        const value = own.reduce<Tensor>((a, b) => add(a, b), scalar(0))
        return concat([reshape(value, [1]), constant([own.length], [1])], 0)
      }
      // One array, as it is summed: it is read back at once.
      const flat = [...gradients, ...running.map((k) => statistics[k])].map((x) => reshape(x, [S.size(x.shape)]))
      const outputs = [concat([...flat, ...termNames.map(counted)], 0)]
      const feedNodes = feedsIn(outputs)
      const given = [
        ...names.map((k) => parameterOf[k]),
        inputs,
        labels,
        ...(isRunning ? populationNodes : []),
        ...feedNodes,
      ]
      return { plan: planFor(backend, keep)(outputs, given), feedNodes }
    }
    const fitting = (host: Host) => {
      const whole = staging.resolve(host)[0]
      return fittingStep(backend, { memory, images: n }, (parts, keep) =>
        planOf(parts === 1 ? whole : stage([objectiveIn(parts)]).resolve(host)[0], keep),
      )
    }
    const build = async (host: Host): Promise<Running> => {
      const { plan, feedNodes } = fitting(host)
      return {
        compiled: await compilePlanIn(region)(plan),
        feeds: feedsOf(region, feedNodes),
        outputs: [region.alloc(length)],
      }
    }

    // ---- images chosen of the whole batch ------------------------------------------------------------------------------
    const choicesOf = new Map<string, readonly BatchChoice[]>()
    /** The choices that any micro-batch of a step has images of. */
    const choicesAt = (host: Host): readonly BatchChoice[] => {
      const needed = new Set<string>()
      for (let index = 0; index < (choices.length === 0 ? 0 : M); index++) {
        const own = { ...host, micro: { index, of: M } }
        const key = staging.key(own)
        const there = choicesOf.get(key) ?? choicesIn(staging.resolve(own))
        choicesOf.set(key, there)
        for (const { name } of there) needed.add(name)
      }
      return choices.filter(({ name }) => needed.has(name))
    }
    const scorers = new Map<string, Running>()
    /** The scores of a micro-batch for each choice. */
    const scored = async (
      asked: readonly BatchChoice[],
      part: Images,
      host: Host,
    ): Promise<readonly Float32Array[]> => {
      const stages = stage(asked.map((c) => c.scores))
      const key = `${asked.map((c) => c.name)} ${stages.key(host)}`
      const made = async (): Promise<Running> => {
        const outputs = suited(stages.resolve(host), backend.rounds ?? false)
        const feedNodes = feedsIn(outputs)
        const given = [...names.map((k) => parameterOf[k]), inputs, labels, ...(isRunning ? populationNodes : [])]
        return {
          compiled: await compileIn(region)(outputs, [...given, ...feedNodes]),
          feeds: feedsOf(region, feedNodes),
          outputs: outputs.map((x) => region.alloc(S.size(x.shape))),
        }
      }
      const scorer = scorers.get(key) ?? (await made())
      scorers.set(key, scorer)
      runOn(scorer, part, host)
      return Promise.all(scorer.outputs.map(async (b) => Float32Array.from(await backend.read(b))))
    }
    /** What each micro-batch gets of the choices of a step. */
    const chosenAt = async (batch: MicroBatch, host: Host): Promise<(micro: number) => NonNullable<Host['chosen']>> => {
      const asked = choicesAt(host)
      if (asked.length === 0) return () => ({})
      const scores = await ranks.sum(M, async (index) => {
        const all = new Float32Array(asked.length * batchSize)
        const own = await scored(asked, batch(index), { ...host, micro: { index, of: M } })
        own.forEach((x, i) => {
          all.set(x, i * batchSize + index * n)
        })
        return all
      })
      return sharedOut(asked, scores, host, { batch, perMicro: n, of: M })
    }

    // ---- the update ----------------------------------------------------------------------------------------------------
    const slotNames = optimizer.slots
    const slotOf = Object.fromEntries(
      slotNames.map((s) => [s, Object.fromEntries(names.map((k) => [k, input(`${s}.${k}`, shapeOf(k))]))]),
    )
    const sumNodes = [...names, ...running].map((k) => input(`sum.${k}`, shapeOf(k)))
    const mean = (x: Tensor): Tensor => mul(x, 1 / M)
    const updated = optimizer.update(
      parameterOf,
      Object.fromEntries(names.map((k, i) => [k, mean(sumNodes[i])])),
      slotOf,
    )
    const next = [
      ...names.map((k) => updated.parameters[k]),
      ...slotNames.flatMap((s) => names.map((k) => updated.state[s][k])),
      ...running.map((k, i) =>
        add(mul(1 - MOMENTUM, populationOf[k]), mul(MOMENTUM, mean(sumNodes[names.length + i]))),
      ),
    ]
    const updateNodes = feedsIn(next)
    const stateNodes = [
      ...names.map((k) => parameterOf[k]),
      ...slotNames.flatMap((s) => names.map((k) => slotOf[s][k])),
    ]
    const update = await compileIn(region)(next, [
      ...stateNodes,
      ...running.map((k) => populationOf[k]),
      ...sumNodes,
      ...updateNodes,
    ])
    const updateFeeds = feedsOf(region, updateNodes)

    // ---- the state -----------------------------------------------------------------------------------------------------
    requireParameters(network, start.parameters)
    const slots = { ...emptySlots(optimizer, network.parameters), ...start.slots }
    const initial = [
      ...names.map((k) => start.parameters[k]),
      ...slotNames.flatMap((s) => names.map((k) => slots[s][k])),
    ]
    let [front, back] = [initial.map((d) => region.from(d)), initial.map((d) => region.alloc(d.length))]
    let statisticBuffers = statisticNames.map((k) => region.from(start.parameters[k]))
    let statisticSpares = running.map((k) => region.alloc(S.size(shapeOf(k))))
    const sumBuffers = sizes.map((size) => region.alloc(size))
    const [inputBuffer, labelBuffer] = [region.alloc(S.size(inputs.shape)), region.alloc(n)]
    const terms = new Map(termNames.map((t) => [t, Float32Array.from(start.terms?.[t] ?? [0, 0])]))
    let last = Number.NaN

    /** Runs a plan of parameters, images and what it is fed. */
    const runOn = ({ compiled, feeds, outputs }: Running, part: Images, host: Host): void => {
      backend.write(inputBuffer, part.inputs)
      backend.write(labelBuffer, part.labels)
      for (const { draw, buffer } of feeds) backend.write(buffer, draw(host))
      compiled.run([
        ...front.slice(0, names.length),
        inputBuffer,
        labelBuffer,
        ...(isRunning ? statisticBuffers : []),
        ...feeds.map((f) => f.buffer),
        ...outputs,
      ])
    }

    const leaf = async (batch: MicroBatch, step: Host, index: number): Promise<Float32Array> => {
      const host = { ...step, micro: { index, of: M } }
      const key = staging.key(host)
      const variant = variants.get(key) ?? (await build(host))
      variants.set(key, variant)
      runOn(variant, batch(index), host)
      const sum = await backend.read(variant.outputs[0])
      return sum instanceof Float32Array ? sum : Float32Array.from(sum)
    }

    const copied = (buffers: readonly Buffer[]): Promise<readonly Float32Array[]> =>
      Promise.all(buffers.map(async (b) => Float32Array.from(await backend.read(b))))
    const state = async (): Promise<TrainState> => {
      const [data, measuredNow] = [await copied(front), await copied(statisticBuffers)]
      const own = Object.fromEntries(statisticNames.map((k, i) => [k, measuredNow[i]]))
      return stateOf(network, optimizer, names, data, own)
    }
    const evaluated = () => evaluatedIn(optimizer, names, front)
    let measuring: Promise<Compiled> | undefined

    return {
      step: async (batch, host) => {
        const parts = new Map<number, Images>()
        /** A micro-batch is made once, however many choices have images of it. */
        const kept: MicroBatch = (micro) => {
          const part = parts.get(micro) ?? batch(micro)
          if (choices.length > 0) parts.set(micro, part)
          return part
        }
        const chosenOf = await chosenAt(kept, host)
        const sum = await ranks.sum(M, (index) => leaf(kept, { ...host, chosen: chosenOf(index) }, index))
        offsets.forEach((at, i) => {
          backend.write(sumBuffers[i], sum.subarray(at, at + sizes[i]))
        })
        for (const { draw, buffer } of updateFeeds) backend.write(buffer, draw(host))
        update.run([
          ...front,
          ...(isRunning ? statisticBuffers : []),
          ...sumBuffers,
          ...updateFeeds.map((f) => f.buffer),
          ...back,
          ...statisticSpares,
        ])
        ;[front, back] = [back, front]
        if (isRunning) [statisticBuffers, statisticSpares] = [statisticSpares, statisticBuffers]
        // A step counts a term once, by its mean over the micro-batches that had it.
        for (const [i, t] of termNames.entries()) {
          const [value, count] = sum.subarray(termsAt + 2 * i, termsAt + 2 * i + 2)
          if (count === 0) continue
          const [before, steps] = terms.get(t) ?? [0, 0]
          terms.set(t, Float32Array.of(before + Math.fround(value / count), steps + 1))
          if (t === TOTAL) last = Math.fround(value / count)
        }
      },
      calibrate: async (batches) => {
        if (statisticNames.length === 0) return
        measuring ??= compileIn(region)(
          statisticNames.map((k) => statistics[k]),
          [...names.map((k) => parameterOf[k]), inputs],
        )
        const compiled = await measuring
        const { count } = batches
        // M runs of batches, whoever takes which: their shares of the mean go through the tree, as gradients do.
        const mean = await ranks.sum(M, async (run) => {
          const part = partOf(count, { rank: run, size: M })
          const sums = await summed(backend, compiled, evaluated(), inputBuffer, statisticBuffers, batches, part)
          return Float32Array.from(
            sums.flatMap((sum) => [...sum]),
            (v) => v / count,
          )
        })
        let at = 0
        for (const b of statisticBuffers) {
          backend.write(b, mean.subarray(at, at + b.length))
          at += b.length
        }
      },
      terms: async () => {
        const means = Object.fromEntries(
          [...terms].flatMap(([t, [sum, count]]) => (count > 0 ? [[t, sum / count]] : [])),
        )
        for (const t of termNames) terms.set(t, new Float32Array(2))
        return means
      },
      loss: async () => last,
      state,
      snapshot: async () => ({ ...(await state()), terms: Object.fromEntries(terms) }),
      parameters: () =>
        inOrder(
          network,
          Object.fromEntries([
            ...evaluated().map((b, i) => [names[i], b] as const),
            ...statisticNames.map((k, i) => [k, statisticBuffers[i]] as const),
          ]),
        ),
      variants: () => variants.size,
      scratchBytes: () => Math.max(0, ...[...variants.values()].map((v) => v.compiled.scratchBytes)),
    }
  }
