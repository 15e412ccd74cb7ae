import { suited } from '../compile/accumulate.ts'
import type { Buffer, Data } from '../compile/backend.ts'
import { programOf } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import { type Shared, sharedIn } from '../compile/running.ts'
import { order, stage } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { joinedAs } from '../core/arrays.ts'
import { raise, usage } from '../core/error.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Named } from '../nn/layers.ts'
import {
  add,
  type BatchChoice,
  concat,
  constant,
  type Host,
  input,
  mul,
  probeName,
  reshape,
  scalar,
} from '../ops/index.ts'
import { choicesIn, type Images, sharedOut } from './choosing.ts'
import { mapNamed } from './optimizer.ts'
import { added as addedArrays, partOf, type Ranks, type Span, summedOver, sumOf } from './ranks.ts'
import {
  drawn,
  feedsIn,
  fittingStep,
  lossGraph,
  residentIn,
  stateOf,
  TOTAL,
  type TrainState,
  termsIn,
} from './resident.ts'
import { summingIn } from './statistics.ts'
import { MOMENTUM, type Snapshot, type Trainer, type TrainerOptions } from './step.ts'

/** Images and labels of a micro-batch, by its number. */
type MicroBatch = (micro: number) => Images

export interface MicroTrainer extends Omit<Trainer, 'step'> {
  /** One update on a batch of micro-batches; only those of this rank are asked for, and those that images were chosen of. */
  readonly step: (batch: MicroBatch, host: Host) => Promise<void>
}

export interface MicroOptions extends TrainerOptions {
  /** M, which divides the batch. */
  readonly microBatches: number
  readonly ranks: Ranks
}

// ---- graphs ------------------------------------------------------------------------------------------------------------

/** The loss of a micro-batch, and what of it is summed. */
const microGraph = (options: MicroOptions) => {
  const { batchSize, microBatches } = options
  const graph = lossGraph(options, batchSize / microBatches, microBatches)
  const objective = graph.objective(1)
  const choices = choicesIn([objective])
  const isRunning = graph.asksFor([objective, ...choices.map((c) => c.scores)])
  const averaged: Named<Tensor> = isRunning ? graph.population : {}
  return {
    ...{ ...graph, whole: objective, choices, averaged, terms: termsIn(objective) },
    given: { parameters: graph.parameters, inputs: graph.inputs, labels: graph.labels, population: averaged },
    /** What has a gradient or a statistic that is summed over micro-batches. */
    summed: { ...graph.parameters, ...averaged },
  }
}

type MicroGraph = ReturnType<typeof microGraph>

/** Inputs for what is summed over micro-batches: gradients and statistics by name, [value, count] of each term. */
const summedInputs = ({ summed, terms }: MicroGraph, prefix: string) => ({
  named: mapNamed(summed, ({ shape }, k): Tensor => input(`${prefix}.${k}`, shape)),
  terms: input(`${prefix}.terms`, [2 * terms.length]) as Tensor,
})

/** What is summed of one micro-batch, for a loss whose choices are made. */
const leafProgram = (graph: MicroGraph, loss: Tensor, keep: boolean) => {
  const gradients = grad(loss, Object.values(graph.parameters))
  const probes = order([loss]).filter((x) => probeName(x) !== undefined)
  // [value, count] of each term.
  const counted = (t: string): Tensor => {
    const own = probes.filter((p) => probeName(p) === t)
    const value = own.reduce<Tensor>((a, b) => add(a, b), scalar(0))
    return concat([reshape(value, [1]), constant([own.length], [1])], 0)
  }
  const gradientOf = Object.fromEntries(Object.keys(graph.parameters).map((k, i) => [k, gradients[i]]))
  const named = mapNamed(graph.summed, (_, k) => gradientOf[k] ?? graph.statistics[k])
  const sums = { named, terms: concat(graph.terms.map(counted), 0) }
  return programOf({ ...graph.given, feeds: feedsIn(sums) }, sums, keep)
}

/** The sum of two sums. */
const addProgram = (graph: MicroGraph) => {
  const [left, right] = [summedInputs(graph, 'left'), summedInputs(graph, 'right')]
  return programOf(
    { left, right },
    { named: mapNamed(left.named, (x, k) => add(x, right.named[k])), terms: add(left.terms, right.terms) },
  )
}

/** The numbers that choices are made by, of one micro-batch. */
const scoresProgram = ({ given }: MicroGraph, scores: readonly Tensor[]) =>
  programOf({ ...given, feeds: feedsIn(scores) }, { scores })

/** The next state from the sums over M micro-batches. */
const updateProgram = (graph: MicroGraph, { optimizer, microBatches }: MicroOptions) => {
  const { parameters, slots, averaged } = graph
  const { named: sums } = summedInputs(graph, 'sum')
  const mean = (k: string): Tensor => mul(sums[k], 1 / microBatches)
  const updated = optimizer.update(
    parameters,
    mapNamed(parameters, (_, k) => mean(k)),
    slots,
  )
  const outputs = {
    parameters: mapNamed(parameters, (_, k) => updated.parameters[k]),
    slots: mapNamed(slots, (own, s) => mapNamed(own, (_, k) => updated.state[s][k])),
    population: mapNamed(averaged, (p, k): Tensor => add(mul(1 - MOMENTUM, p), mul(MOMENTUM, mean(k)))),
  }
  return programOf({ parameters, slots, population: averaged, sums, feeds: feedsIn(outputs) }, outputs)
}

/** What lies one after the other in an array, by the names and the shapes of tensors. */
const parted = (array: Float32Array, tensors: Named<Tensor>): Named<Float32Array> => {
  let at = 0
  return mapNamed(tensors, ({ shape }) => {
    at += S.size(shape)
    return array.subarray(at - S.size(shape), at)
  })
}
/** The terms among what is summed, by a name that no parameter has. */
const TERMS = ' terms'

// ---- sums on a device --------------------------------------------------------------------------------------------------

/** Room on a device for what is summed. */
type Sums = Shared<ReturnType<typeof summedInputs>>

/**
 * The sums over a batch from those of its micro-batches. They stay on the device, where they are made: to read them back and add them here took a seventh of a step. Only
 * what goes to other ranks is read.
 */
const summing = async (region: Region, graph: MicroGraph, { microBatches: M, ranks }: MicroOptions) => {
  const { backend } = region
  const adding = await addProgram(graph).on(region)
  const inputs = summedInputs(graph, 'room')
  const parts: Named<Tensor> = { ...inputs.named, [TERMS]: inputs.terms }
  const spare: Sums[] = []
  const room = (): Sums => spare.pop() ?? sharedIn(region, inputs)
  const added = (left: Sums, right: Sums): Sums => {
    const sum = room()
    adding.run({ left: left.buffers, right: right.buffers }, sum.buffers)
    spare.push(left, right)
    return sum
  }
  const buffersOf = ({ buffers: { named, terms } }: Sums): readonly Buffer[] => [...Object.values(named), terms]
  const piecesOf = (numbers: Float32Array): readonly Float32Array[] => Object.values(parted(numbers, parts))
  const length = Object.values(parts).reduce((n, { shape }) => n + S.size(shape), 0)
  /** What was read last of this rank's sums, and what came of another's: new arrays in every step would cost more than to send them. */
  const [numbers, others] = [new Float32Array(length), new Float32Array(length)]
  const readBack = async (sums: Sums): Promise<Float32Array> => {
    const pieces = piecesOf(numbers)
    for (const [i, b] of buffersOf(sums).entries()) pieces[i].set(backend.view?.(b) ?? (await backend.read(b)))
    spare.push(sums)
    return numbers
  }
  const written = (all: Float32Array): Sums => {
    const { [TERMS]: terms, ...named } = parted(all, parts)
    const sums = room()
    sums.write({ named, terms })
    return sums
  }
  type Leaf = (micro: number, into: Sums) => Promise<void>
  const leafOf = (leaf: Leaf) => async (micro: number) => {
    const sums = room()
    await leaf(micro, sums)
    return sums
  }
  // Additions are rounded to float32, whoever does them: those of a device of doubles are left to this process.
  const partial = (span: Span, leaf: Leaf): Promise<Float32Array> =>
    backend.dtype === 'f32'
      ? summedOver(span, leafOf(leaf), added).then(readBack)
      : sumOf(span, async (micro) => Float32Array.from(await readBack(await leafOf(leaf)(micro))))
  /** The sum of two ranks' halves, in the device's memory where this process sees it. What the other has for a device does not matter. */
  const swapped = async (swap: NonNullable<Ranks['swap']>, leaf: Leaf): Promise<Sums> => {
    const inOrder = <A>(own: A, other: A): readonly [A, A] => (ranks.rank === 0 ? [own, other] : [other, own])
    const { view } = backend
    if (backend.dtype === 'f32' && view !== undefined) {
      const arraysOf = (sums: Sums) => buffersOf(sums).map((b) => view(b) as Float32Array)
      const other = room()
      const own = await swap(
        M,
        (half) => summedOver(half, leafOf(leaf), added),
        (sums) => ({ own: arraysOf(sums), other: arraysOf(other) }),
      )
      return added(...inOrder(own, other))
    }
    const own = await swap(
      M,
      (half) => partial(half, leaf),
      (sums) => ({ own: piecesOf(sums), other: piecesOf(others) }),
    )
    return written(addedArrays(...inOrder(own, others)))
  }
  return {
    /** The sums over all micro-batches, until they are freed. */
    over: async (leaf: Leaf): Promise<Sums> => {
      if (ranks.size === 1 && backend.dtype === 'f32') return summedOver([0, M], leafOf(leaf), added)
      return ranks.swap === undefined
        ? written(await ranks.reduce(M, (span) => partial(span, leaf)))
        : swapped(ranks.swap, leaf)
    },
    free: (sums: Sums): void => {
      spare.push(sums)
    },
  }
}

// ---- micro-batches on a device -----------------------------------------------------------------------------------------

/** Runs the graphs of micro-batches, by their programs, on the state that is there: what one comes to, and the scores of its images. */
const micros = (
  region: Region,
  graph: MicroGraph,
  options: MicroOptions,
  { trained, statistics }: ReturnType<typeof residentIn>,
) => {
  const { batchSize, microBatches: M, memory = Number.POSITIVE_INFINITY } = options
  const rounds = region.backend.rounds ?? false
  const staging = stage([graph.whole])
  const images = sharedIn(region, { inputs: graph.inputs, labels: graph.labels })
  const leafFor = async (host: Host) => {
    const whole = staging.resolve(host)[0]
    const made = fittingStep(region.backend, { memory, images: batchSize / M }, (parts, keep) => {
      const resolved = parts === 1 ? whole : stage([graph.objective(parts)]).resolve(host)[0]
      return leafProgram(graph, suited([resolved], rounds)[0], keep)
    })
    return { feeds: made.inputs.feeds, running: await made.on(region) }
  }
  const scorerFor = async (scores: readonly Tensor[]) => {
    const made = scoresProgram(graph, suited(scores, rounds))
    return { feeds: made.inputs.feeds, running: await made.on(region) }
  }
  const leaves = new Map<string, Awaited<ReturnType<typeof leafFor>>>()
  const scorers = new Map<string, Awaited<ReturnType<typeof scorerFor>>>()
  const given = (part: Images, feeds: readonly Tensor[], host: Host) => {
    images.write(part)
    const front = statistics.front()
    const population = mapNamed(graph.averaged, (_, k) => front[k])
    return { parameters: trained.front().parameters, ...images.buffers, population, feeds: drawn(feeds, host) }
  }
  return {
    staging,
    leaf: async (part: Images, host: Host, into: Sums): Promise<void> => {
      const key = staging.key(host)
      const { feeds, running } = leaves.get(key) ?? (await leafFor(host))
      leaves.set(key, { feeds, running })
      running.run(given(part, feeds, host), into.buffers)
    },
    /** The scores for each choice. */
    scores: async (asked: readonly BatchChoice[], part: Images, host: Host): Promise<readonly Float32Array[]> => {
      const stages = stage(asked.map((c) => c.scores))
      const key = `${asked.map((c) => c.name)} ${stages.key(host)}`
      const { feeds, running } = scorers.get(key) ?? (await scorerFor(stages.resolve(host)))
      scorers.set(key, { feeds, running })
      const { scores } = await running(given(part, feeds, host))
      return scores.map((x) => Float32Array.from(x))
    },
    variants: () => leaves.size,
    scratchBytes: () => Math.max(0, ...[...leaves.values()].map((v) => v.running.scratchBytes)),
  }
}

/** What each micro-batch gets of the choices of a step, which are made of the scores of all. */
const choosing = (
  { choices }: MicroGraph,
  { batchSize, microBatches: M, ranks }: MicroOptions,
  { staging, scores }: Pick<ReturnType<typeof micros>, 'staging' | 'scores'>,
) => {
  const known = new Map<string, readonly BatchChoice[]>()
  /** The choices that any micro-batch of a step has images of. */
  const choicesAt = (host: Host): readonly BatchChoice[] => {
    const needed = new Set<string>()
    for (let index = 0; index < (choices.length === 0 ? 0 : M); index++) {
      const own = { ...host, micro: { index, of: M } }
      const key = staging.key(own)
      const there = known.get(key) ?? choicesIn(staging.resolve(own))
      known.set(key, there)
      for (const { name } of there) needed.add(name)
    }
    return choices.filter(({ name }) => needed.has(name))
  }
  return async (batch: MicroBatch, host: Host): Promise<(micro: number) => NonNullable<Host['chosen']>> => {
    const asked = choicesAt(host)
    if (asked.length === 0) return () => ({})
    const n = batchSize / M
    const all = await ranks.sum(M, async (index) => {
      const flat = new Float32Array(asked.length * batchSize)
      const own = await scores(asked, batch(index), { ...host, micro: { index, of: M } })
      own.forEach((x, i) => {
        flat.set(x, i * batchSize + index * n)
      })
      return flat
    })
    return sharedOut(asked, all, host, { batch, perMicro: n, of: M })
  }
}

/** The loss terms: a step counts one once, by its mean over the micro-batches that had it. */
const termsOf = (names: readonly string[], start: Named<Float32Array> = {}) => {
  const terms = new Map(names.map((t) => [t, Float32Array.from(start[t] ?? [0, 0])]))
  let last = Number.NaN
  return {
    /** `[value, count]` of each, summed. */
    count: (sums: Data): void => {
      for (const [i, t] of names.entries()) {
        const [value, count] = sums.subarray(2 * i, 2 * i + 2)
        if (count === 0) continue
        const [before, steps] = terms.get(t) ?? [0, 0]
        terms.set(t, Float32Array.of(before + Math.fround(value / count), steps + 1))
        if (t === TOTAL) last = Math.fround(value / count)
      }
    },
    named: (): Named<Float32Array> => Object.fromEntries(terms),
    /** The means, which begin anew. */
    means: (): Named<number> => {
      const means = Object.fromEntries([...terms].flatMap(([t, [sum, count]]) => (count > 0 ? [[t, sum / count]] : [])))
      for (const t of names) terms.set(t, new Float32Array(2))
      return means
    },
    last: () => last,
  }
}

/**
 * (state, batch) -> state, the batch as the mean over micro-batches: gradients, statistics and loss terms of each are summed by the ranks' tree, then one plan updates the state, on every
 * rank alike. A micro-batch has draws of its own (`Host.micro`), and its images are normalized by statistics of its own where the network has batch norm (ghost batch norm,
 * arXiv:1705.08741); running means of these, and the means over all training images that an evaluation takes, go through the tree.
 */
export const microTrainer =
  (region: Region) =>
  async (options: MicroOptions, start: TrainState & Partial<Snapshot>): Promise<MicroTrainer> => {
    const { batchSize, microBatches: M, ranks } = options
    if (batchSize % M !== 0) raise(usage(`${M} micro-batches do not divide a batch of ${batchSize} images`))
    if (ranks.size > M)
      raise(usage(`${M} micro-batches are not enough for ${ranks.size} ranks: each needs one at least`))
    const graph = microGraph(options)
    const resident = residentIn(region, options, graph, {}, start)
    const { trained, statistics } = resident
    const own = micros(region, graph, options, resident)
    const chosenFor = choosing(graph, options, own)
    const made = updateProgram(graph, options)
    const update = await made.on(region)
    const statisticsOf = summingIn(region, graph, resident)
    const sums = await summing(region, graph, options)
    const terms = termsOf(graph.terms, start.terms)
    const stateIn = (side: 'front' | 'back') => {
      const [{ parameters, slots }, buffers] = [trained[side](), statistics[side]()]
      return { parameters, slots, population: mapNamed(graph.averaged, (_, k) => buffers[k]) }
    }

    return {
      step: async (batch, host) => {
        const parts = new Map<number, Images>()
        /** A micro-batch is made once, however many choices have images of it. */
        const kept: MicroBatch = (micro) => {
          const part = parts.get(micro) ?? batch(micro)
          if (graph.choices.length > 0) parts.set(micro, part)
          return part
        }
        const chosenOf = await chosenFor(kept, host)
        const sum = await sums.over((index, into) =>
          own.leaf(kept(index), { ...host, chosen: chosenOf(index), micro: { index, of: M } }, into),
        )
        const { named, terms: counted } = sum.buffers
        update.run({ ...stateIn('front'), sums: named, feeds: drawn(made.inputs.feeds, host) }, stateIn('back'))
        trained.turn()
        if (Object.keys(graph.averaged).length > 0) statistics.turn()
        terms.count(await region.backend.read(counted))
        sums.free(sum)
      },
      calibrate: async (batches) => {
        if (!graph.hasStatistics) return
        // M runs of batches, whoever takes which: their shares of the mean go through the tree, as gradients do.
        const mean = await ranks.sum(M, async (run) => {
          const means = await statisticsOf(batches, partOf(batches.count, { rank: run, size: M }))
          return joinedAs(
            Float32Array,
            Object.values(means).map((sum) => sum.map((v) => v / batches.count)),
          )
        })
        statistics.write(parted(mean, graph.population))
      },
      terms: async () => terms.means(),
      loss: async () => terms.last(),
      state: async () => stateOf(await resident.read()),
      snapshot: async () => ({ ...(await resident.read()), terms: terms.named() }),
      parameters: resident.parameters,
      variants: own.variants,
      scratchBytes: own.scratchBytes,
    }
  }
