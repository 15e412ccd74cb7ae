import process from 'node:process'
import Table from 'cli-table3'
import type { Device } from '../backend/device.ts'
import { counted } from '../core/number.ts'
import type { Rounding, Semantics } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import { type Dataset, nounOf } from '../data/dataset.ts'
import type { MethodName } from '../robust/bounds.ts'
import type { AttackOptions } from '../robust/search.ts'
import type { EpochRecord } from '../train/fit.ts'
import type { Verified } from '../train/verify.ts'

/** What `evaluate` and `report.json` say: fractions of `count` images; era null where no attack was asked for. */
export interface Report {
  readonly model: string
  readonly count: number
  readonly epsilon: number
  /** Of the ball; absent for linf. */
  readonly norm?: Norm
  readonly acc: number
  readonly era: number | null
  readonly vra: number
  readonly attack: Attack | null
  readonly method: MethodName
  /** Branch and bound on what the method left open: seconds for each image, and the verdicts. */
  readonly complete?: { readonly seconds: number } & NonNullable<Verified['decided']>
  readonly rounding: 'none' | 'outward'
  /** What outward bounds hold for. */
  readonly semantics?: Semantics
  readonly device: string
  readonly threads: number
  readonly seconds: number
}

interface Attack {
  readonly name: AttackOptions['name']
  readonly steps: number
  readonly restarts: number
  /** In units of the inputs. */
  readonly stepSize: number
  readonly seed: number
  readonly loss: 'ce' | 'margin' | 'both'
  readonly targeted: boolean
  /** Images where the gradient of the loss was 0 in some step: how many went by the margin's instead, and how many had none either. Absent if none. */
  readonly withoutGradient?: { readonly margin: number; readonly none: number }
  /** Of the ensemble, how many images each search broke, or came closest to breaking. */
  readonly strongest?: { readonly broken: Tally; readonly closest: Tally }
}

type Noun = ReturnType<typeof nounOf>
type Tally = Readonly<Record<string, number>>

export const reportOf = (
  about: {
    readonly model: string
    readonly count: number
    readonly epsilon: number
    readonly norm?: Norm
    readonly attack: AttackOptions | undefined
    readonly method: MethodName
    readonly complete?: number | undefined
    readonly device: { readonly backend: Pick<Device['backend'], 'name' | 'threads'> }
    readonly seconds: number
    readonly rounding?: Rounding
  },
  {
    acc,
    era,
    vra,
    ...verdicts
  }: Pick<Verified, 'acc' | 'era' | 'vra' | 'robust' | 'strongest' | 'decided' | 'withoutGradient'>,
): Report => {
  const { model, count, epsilon, norm = 'linf', attack, method, complete, device, seconds } = about
  const { rounding = 'none' } = about
  const { decided, withoutGradient: without } = verdicts
  return {
    model,
    count,
    epsilon,
    ...(norm === 'linf' ? {} : { norm }),
    acc,
    era,
    vra,
    attack:
      attack === undefined
        ? null
        : {
            name: attack.name,
            steps: attack.steps,
            restarts: attack.restarts,
            stepSize: attack.stepSize * epsilon,
            seed: attack.seed,
            loss: attack.name === 'ensemble' ? 'both' : (attack.loss ?? 'ce'),
            targeted: attack.targeted ?? false,
            ...(without !== undefined && without.margin + without.none > 0 ? { withoutGradient: without } : {}),
            ...(attack.name === 'ensemble' ? { strongest: talliesOf(verdicts) } : {}),
          },
    method,
    ...(complete === undefined || decided === undefined ? {} : { complete: { seconds: complete, ...decided } }),
    ...roundingRecord(rounding),
    device: device.backend.name,
    threads: device.backend.threads,
    seconds,
  }
}

const talliesOf = ({ robust, strongest = [] }: Pick<Verified, 'robust' | 'strongest'>) => {
  const names = [...new Set(strongest.filter((name) => name !== undefined))].sort()
  const tally = (still: 0 | 1): Tally =>
    Object.fromEntries(
      names.map((name) => [name, strongest.filter((s, i) => s === name && robust?.[i] === still).length]),
    )
  return { broken: tally(0), closest: tally(1) }
}

/** How an attack went about it. */
const attackLine = (a: Attack, noun: Noun): string => {
  const starts = `${counted(a.restarts, a.name === 'pgd' ? 'random start' : 'start')} per ${noun}`
  const how = [
    a.loss === 'ce' ? '' : a.loss === 'margin' ? 'on the margin' : 'on cross-entropy and margin',
    a.targeted ? 'towards each class' : '',
  ].filter((s) => s !== '')
  const broken = Object.entries(a.strongest?.broken ?? {}).map(([name, n]) => `${name} ${n}`)
  return [
    a.name === 'fgsm'
      ? `FGSM, one step of ${short(a.stepSize)}`
      : `${a.name === 'pgd' ? 'PGD' : a.name}, ${a.steps} steps of ${short(a.stepSize)} from ${starts}`,
    ...how,
    `seed ${a.seed}`,
    ...(broken.length === 0 ? [] : [`broken by ${broken.join(', ')}`]),
  ].join(', ')
}

/** How much the method and branch and bound decided. */
const methodLine = ({ method, complete: c }: Report, noun: Noun): string =>
  c === undefined
    ? `${method} bounds`
    : `${method} bounds, then branch and bound on ${c.unsat + c.sat + c.unknown + c.timeout} ${noun}s for up to ${short(c.seconds)} s: ${c.unsat} proved, ${c.sat} broken, ${c.timeout + c.unknown} open`

/** The members of a record that say how bounds were rounded. */
export const roundingRecord = (
  rounding: Rounding,
): { readonly rounding: 'none' | 'outward'; readonly semantics?: Semantics } =>
  rounding === 'none' ? { rounding } : { rounding: 'outward', semantics: rounding.outward }

/** A record as JSON, one member per line. NaN and infinity, which JSON lacks, are null. */
export const json = (record: object): string =>
  `{\n${Object.entries(record)
    .map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`)
    .join(',\n')}\n}`

export const percent = (x: number | null): string => (x === null ? '-' : `${(100 * x).toFixed(2)} %`)
const short = (x: number): string => String(Number(x.toPrecision(4)))

/** Cells of a last column that are longer are broken between words. */
const WIDEST = 80
/** And of a terminal that is narrower, at least so much is used. */
const NARROWEST = 24

/** Rows without colours, so that a table is the same in a file. */
export const table = (
  rows: readonly (readonly string[])[],
  head: readonly string[] = [],
  terminal: number | undefined = process.stdout.isTTY ? process.stdout.columns : undefined,
): string => {
  const columns = rows[0]?.length ?? 0
  const widthOf = (i: number) => Math.max(0, ...[head, ...rows].map((row) => row[i]?.length ?? 0))
  const others = Array.from({ length: Math.max(0, columns - 1) }, (_, i) => widthOf(i) + 3).reduce((a, b) => a + b, 0)
  const most = Math.min(WIDEST, Math.max(NARROWEST, (terminal ?? Number.POSITIVE_INFINITY) - others - 4))
  const wide = widthOf(columns - 1) > most
  const t = new Table({
    head: [...head],
    style: { head: [], border: [], compact: true },
    wordWrap: true,
    ...(wide ? { colWidths: Array.from({ length: columns }, (_, i) => (i === columns - 1 ? most + 2 : null)) } : {}),
  })
  for (const row of rows) t.push([...row])
  return t.toString()
}

/** The table of a report: each number with how it was measured. */
export const reportTable = (r: Report, data: Dataset, device: Device, folder?: string): string =>
  table(
    [
      ['ACC', percent(r.acc), `clean ${nounOf(data)}s`],
      [
        'ERA',
        percent(r.era),
        r.attack === null ? 'not measured; --attack pgd does' : attackLine(r.attack, nounOf(data)),
      ],
      [
        'VRA',
        percent(r.vra),
        `${methodLine(r, nounOf(data))}, ${r.norm === undefined ? '' : `${r.norm} `}epsilon ${short(r.epsilon)}${nounOf(data) === 'row' ? " of each feature's range" : ''}, ${r.norm === undefined ? 'boxes' : 'balls'} cut to [0, 1], rounding ${r.rounding}${r.semantics === undefined ? '' : ` (${r.semantics})`}`,
      ],
      [`${nounOf(data)}s`, String(r.count), `${data.name}, test ${nounOf(data)}s`],
      ['device', r.device, `${device.backend.description} (${device.reason})`],
      ['time', `${r.seconds.toFixed(1)} s`, 'this evaluation'],
      ...(folder === undefined ? [] : [['run', '', folder]]),
    ],
    ['', '', 'how'],
  )

/** A line of progress for an epoch, in at most `width` columns: what matters least goes first where there is no room. */
export const epochLine = (r: EpochRecord, epochs: number, width = Number.POSITIVE_INFINITY): string => {
  const digits = String(epochs).length
  const loss = (name: string, x: number | null) => `${name} ${x === null ? '-' : x.toFixed(4)}`
  // By how long they stay.
  const parts: readonly (readonly [text: string, weight: number])[] = [
    [`epoch ${String(r.epoch + 1).padStart(digits)}/${epochs}`, 9],
    [loss('loss', r.loss), 5],
    [loss('natural', r.naturalLoss), 2],
    [loss('robust', r.robustLoss), 3],
    [`balance ${r.balance.toFixed(2)}`, 1],
    [`epsilon ${r.epsilon.toFixed(4)}`, 0],
    [`ACC ${percent(r.acc)}`, 8],
    [`ERA ${percent(r.era)}`, 7],
    [`VRA ${percent(r.vra)}`, 8],
    [`${r.seconds.toFixed(1)} s`, 4],
  ]
  const lineOf = (least: number) =>
    parts
      .filter(([, weight]) => weight >= least)
      .map(([text]) => text)
      .join('  ')
  const fits = Array.from({ length: 9 }, (_, least) => lineOf(least)).find((line) => line.length < width)
  return fits ?? lineOf(8)
}

/** What a user should know of an attack that had no gradient to follow. */
export const gradientNotes = (without: Verified['withoutGradient'], noun: Noun): readonly string[] => [
  ...(without !== undefined && without.margin > 0
    ? [
        `the gradient of cross-entropy was 0 (it underflows where one logit is far above the others) at ${without.margin} ${noun}s; the attack went by that of the margin there`,
      ]
    : []),
  ...(without !== undefined && without.none > 0
    ? [`no loss had a gradient at ${without.none} ${noun}s: the attack could not move there, and ERA may say little`]
    : []),
]
