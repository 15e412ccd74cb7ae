import { type Environment, type FinalRecord, METHODS, type Method, type RaceRecord } from './race-records.ts'
import { mean } from './statistics.ts'

/** The authors' measured steps on one thread, batch 50, `mnist small`, in seconds: whole-batch symbolic, and natural in PyTorch. */
export const AUTHORS = { symbolic: 7.6, natural: 0.0035 } as const

/** All seeds of a method (and its k), by name. */
export interface Contender {
  readonly name: string
  readonly method: Method
  readonly k: number | null
  /** One curve for each seed, ascending in epoch. */
  readonly runs: readonly (readonly RaceRecord[])[]
}

const at = <A>(xs: readonly A[], i: number): A => xs.at(i) as A
/** Largest minus smallest. */
export const spread = (xs: readonly number[]): number => Math.max(...xs) - Math.min(...xs)

export const contenders = (records: readonly RaceRecord[]): readonly Contender[] => {
  const sorted = [...records].sort(
    (a, b) => METHODS.indexOf(a.method) - METHODS.indexOf(b.method) || (a.k ?? 0) - (b.k ?? 0),
  )
  const names = [...new Set(sorted.map((r) => (r.k === null ? r.method : `${r.method} k=${r.k}`)))]
  return names.map((name) => {
    const own = records.filter((r) => (r.k === null ? r.method : `${r.method} k=${r.k}`) === name)
    const runs = [...new Set(own.map((r) => r.run))].map((run) =>
      own.filter((r) => r.run === run).sort((a, b) => a.epoch - b.epoch),
    )
    return { name, method: own[0].method, k: own[0].k, runs }
  })
}

/** Seconds of training for each epoch. */
const pace = ({ runs }: Contender): number => mean(runs.map((run) => at(run, -1).seconds / run.length))

/** What trains boxes: neither the yardsticks (natural, PGD-40, the whole batch) nor what they are held against. */
const robust = (all: readonly Contender[]): readonly Contender[] =>
  all.filter(({ method }) => method !== 'natural' && method !== 'pgd' && method !== 'symbolic')

/** By when every seed of a contender has done something; Infinity if one never does. Mean over the seeds. */
const time = ({ runs }: Contender, holds: (r: RaceRecord) => boolean): number =>
  mean(runs.map((run) => run.find(holds)?.seconds ?? Number.POSITIVE_INFINITY))

export interface TimeBar {
  /** The whole batch's highest VRA, its ACC in that epoch, and when it was reached. */
  readonly vra: number
  readonly acc: number
  readonly seconds: number
  readonly rows: readonly {
    readonly name: string
    readonly seconds: number
    readonly ratio: number
    /** The same ratio if the whole batch had taken the authors' time. */
    readonly authors: number | undefined
    /** How much less time an epoch takes than one of the whole batch. */
    readonly cheaper: number
  }[]
}

/** What ACC may be lower than the whole batch's. */
const ACC_LESS = 0.003

/** Fractions of whole images: a point is a point, whatever the last bit says. */
const LAST_BIT = 1e-9

/**
 * How much sooner each robust method reaches the whole batch's highest VRA, and its ACC but for 0.3 points, in one epoch. `authors` is that ratio with the authors' whole-batch step in the place of
 * ours: as many epochs, each of 7.6 s / 3.5 ms of our natural ones.
 */
export const timeBar = (all: readonly Contender[]): TimeBar | undefined => {
  const whole = all.find((c) => c.method === 'symbolic')
  if (whole === undefined) return undefined
  const best = whole.runs.flat().reduce((a, b) => (b.vra > a.vra || (b.vra === a.vra && b.seconds < a.seconds) ? b : a))
  const natural = all.find((c) => c.method === 'natural')
  return {
    vra: best.vra,
    acc: best.acc,
    seconds: best.seconds,
    rows: robust(all).map((c) => {
      const seconds = time(c, (r) => r.vra >= best.vra && r.acc >= best.acc - ACC_LESS - LAST_BIT)
      return {
        name: c.name,
        seconds,
        ratio: best.seconds / seconds,
        cheaper: pace(whole) / pace(c),
        authors:
          natural === undefined
            ? undefined
            : ((best.epoch + 1) * pace(natural) * AUTHORS.symbolic) / AUTHORS.natural / seconds,
      }
    }),
  }
}

export interface AdversarialBar {
  readonly acc: number
  readonly era: number
  readonly vra: number
  /** End of the last epoch of PGD-40. */
  readonly seconds: number
  /** For each robust method: when ACC and ERA are within a point of PGD-40's last ones, as a share of its time, and VRA then. */
  readonly rows: readonly {
    readonly name: string
    readonly seconds: number
    readonly share: number
    readonly vra: number | undefined
  }[]
}

const POINT = 0.01

export const adversarialBar = (all: readonly Contender[]): AdversarialBar | undefined => {
  const pgd = all.find((c) => c.method === 'pgd')
  if (pgd === undefined) return undefined
  const last = pgd.runs.map((run) => at(run, -1))
  const [acc, era, vra] = (['acc', 'era', 'vra'] as const).map((f) => mean(last.map((r) => r[f])))
  const seconds = mean(last.map((r) => r.seconds))
  const near = (r: RaceRecord) => r.acc >= acc - POINT - LAST_BIT && r.era >= era - POINT - LAST_BIT
  return {
    acc,
    era,
    vra,
    seconds,
    rows: robust(all).map((c) => {
      const then = c.runs.map((run) => run.find(near)?.vra)
      const reached = time(c, near)
      return {
        name: c.name,
        seconds: reached,
        share: reached / seconds,
        vra: then.every((v) => v !== undefined) ? mean(then) : undefined,
      }
    }),
  }
}

export interface SamplingBar {
  /** The epochs that every run compared has done. */
  readonly epochs: number
  readonly vra: number
  readonly rows: readonly {
    readonly k: number
    readonly vra: number
    /** Over seeds, the larger of this k's and the whole batch's; undefined with one seed of each. */
    readonly spread: number | undefined
    readonly difference: number
    readonly holds: boolean | undefined
  }[]
  /** The smallest k from which on every larger one holds too. */
  readonly smallest: number | undefined
}

/** VRA of each k against the whole batch's after equally many epochs. */
export const samplingBar = (all: readonly Contender[]): SamplingBar | undefined => {
  const whole = all.find((c) => c.method === 'symbolic')
  const sampled = all.filter((c) => c.method === 'mixtrain').sort((a, b) => (a.k ?? 0) - (b.k ?? 0))
  if (whole === undefined || sampled.length === 0) return undefined
  const epochs = Math.min(...[whole, ...sampled].flatMap((c) => c.runs.map((run) => run.length)))
  const vras = (c: Contender) => c.runs.map((run) => run[epochs - 1].vra)
  const vra = mean(vras(whole))
  const rows = sampled.map((c) => {
    const own = vras(c)
    const several = own.length > 1 || whole.runs.length > 1
    const s = several ? Math.max(spread(own), spread(vras(whole))) : undefined
    const difference = mean(own) - vra
    return { k: c.k ?? 0, vra: mean(own), spread: s, difference, holds: s === undefined ? undefined : difference >= -s }
  })
  const lastFailing = rows.findLastIndex((r) => r.holds !== true)
  return { epochs, vra, rows, smallest: rows[lastFailing + 1]?.k }
}

// ---- as text ----------------------------------------------------------------------------------------------------------

const percent = (x: number): string => (Number.isFinite(x) ? (100 * x).toFixed(2) : '-')
const seconds = (x: number): string => (Number.isFinite(x) ? x.toFixed(x < 100 ? 1 : 0) : 'not reached')
const several = (xs: readonly number[]): string =>
  xs.length > 1
    ? `${percent(mean(xs))} (${percent(Math.min(...xs))} to ${percent(Math.max(...xs))})`
    : percent(mean(xs))

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')

const verdict = (holds: boolean): string => (holds ? 'met' : 'missed')

/** What a run had of the machine. */
export const share = ({ jobs, threads }: Environment): string =>
  `${jobs} ${jobs === 1 ? 'run' : 'runs'} at a time on ${threads} ${threads === 1 ? 'thread' : 'threads'}${jobs === 1 ? '' : ' each'}`

/** The race as Markdown: every method, the final models, and the claims of the paper as far as the runs can decide them. */
export const summary = (records: readonly RaceRecord[], finals: readonly FinalRecord[], e: Environment): string => {
  const all = contenders(records)
  const last = (c: Contender, f: 'acc' | 'era' | 'vra') => several(c.runs.map((run) => at(run, -1)[f]))
  const final = (c: Contender, f: 'acc' | 'era' | 'vra') => {
    const own = finals.filter((r) => c.runs.some((run) => run[0].run === r.run))
    return own.length === 0 ? '' : several(own.map((r) => r[f]))
  }
  const parts = [
    `# Race: ${e.data}, ${e.network}, epsilon ${e.epsilon}`,
    `${e.trainImages} training images, batch ${e.batchSize}, ${e.epochs} epochs, budget ${e.budgetSeconds} s of training for each run, balance ${Number(e.balance.toFixed(4))}; ${e.machine}, ${e.cores} cores, ${share(e)}, Node ${e.node}, ${e.date.slice(0, 10)}. Command: \`${e.command}\``,
    `VRA by ${e.verifier}; ERA by ${e.attack}. Of several seeds: mean (smallest to largest).`,
    `## After the last epoch, first ${e.slice} test images`,
    table(
      ['method', 'seeds', 'epochs', 's / epoch', 'training s', 'ACC %', 'ERA %', 'VRA %', 'step MB'],
      all.map((c) => [
        c.name,
        String(c.runs.length),
        [...new Set(c.runs.map((run) => run.length))].join(', '),
        pace(c).toFixed(2),
        mean(c.runs.map((run) => at(run, -1).seconds)).toFixed(1),
        last(c, 'acc'),
        last(c, 'era'),
        last(c, 'vra'),
        Math.max(...c.runs.flat().map((r) => r.memoryMB)).toFixed(1),
      ]),
    ),
  ]
  if (finals.length > 0)
    parts.push(
      `## Final models, all ${finals[0].images} test images`,
      table(
        ['method', 'ACC %', 'ERA %', 'VRA %'],
        all.map((c) => [c.name, final(c, 'acc'), final(c, 'era'), final(c, 'vra')]),
      ),
    )
  const sooner = timeBar(all)
  if (sooner !== undefined && sooner.rows.length > 0) {
    const best = sooner.rows.reduce((a, b) => (b.seconds < a.seconds ? b : a))
    parts.push(
      '## Time against whole-batch symbolic training',
      `Whole batch: highest VRA ${percent(sooner.vra)} % (ACC ${percent(sooner.acc)} %) after ${seconds(sooner.seconds)} s. Reached: that VRA, and that ACC but for 0.3 points.`,
      table(
        [
          'method',
          'epoch, times cheaper',
          's to both',
          'times sooner',
          "times sooner than by the authors' step (7.6 s : 3.5 ms natural)",
        ],
        sooner.rows.map((r) => [
          r.name,
          r.cheaper.toFixed(1),
          seconds(r.seconds),
          r.ratio > 0 ? r.ratio.toFixed(1) : '-',
          r.authors === undefined || r.authors === 0 ? '-' : r.authors.toFixed(0),
        ]),
      ),
      `Bar: at least 6 times sooner (the paper: 15): ${verdict(best.ratio >= 6)} (${best.ratio > 0 ? `${best.name}, ${best.ratio.toFixed(1)}` : 'none reached it'}).`,
    )
  }
  const adversarial = adversarialBar(all)
  if (adversarial !== undefined && adversarial.rows.length > 0) {
    const best = adversarial.rows.reduce((a, b) => (b.seconds < a.seconds ? b : a))
    parts.push(
      '## Against adversarial training (PGD-40)',
      `PGD-40 after its last epoch, ${seconds(adversarial.seconds)} s: ACC ${percent(adversarial.acc)} %, ERA ${percent(adversarial.era)} %, VRA ${percent(adversarial.vra)} %.`,
      table(
        ['method', 's until ACC and ERA are within a point', "share of PGD-40's time", 'VRA % then'],
        adversarial.rows.map((r) => [
          r.name,
          seconds(r.seconds),
          Number.isFinite(r.share) ? r.share.toFixed(3) : '-',
          r.vra === undefined ? '-' : percent(r.vra),
        ]),
      ),
      `Bar: at most a quarter of the time (the paper: a third): ${verdict(best.share <= 1 / 4)} (${Number.isFinite(best.share) ? `${best.name}, ${best.share.toFixed(3)}` : 'none got there'}).`,
    )
  }
  const sampling = samplingBar(all)
  if (sampling !== undefined)
    parts.push(
      '## Subsampling',
      `VRA after ${sampling.epochs} epochs; whole batch ${percent(sampling.vra)} %.`,
      table(
        ['k', 'VRA %', 'minus whole batch', 'spread over seeds', 'within'],
        sampling.rows.map((r) => [
          String(r.k),
          percent(r.vra),
          percent(r.difference),
          r.spread === undefined ? 'one seed' : percent(r.spread),
          r.holds === undefined ? '' : r.holds ? 'yes' : 'no',
        ]),
      ),
      sampling.rows.some((r) => r.holds === undefined)
        ? 'Bar: needs several seeds of every k.'
        : `Bar: smallest k within the spread of the whole batch: ${sampling.smallest ?? 'none'}.`,
    )
  return `${parts.join('\n\n')}\n`
}
