import Table from 'cli-table3'
import type { Device } from '../backend/device.ts'
import type { MethodName } from '../robust/bounds.ts'
import type { AttackOptions } from '../robust/metric.ts'
import type { EpochRecord } from '../train/fit.ts'
import type { Verified } from '../train/verify.ts'

/** What `evaluate` and `report.json` say: fractions of `count` images; era null where no attack was asked for. */
export interface Report {
  readonly model: string
  readonly count: number
  readonly epsilon: number
  readonly acc: number
  readonly era: number | null
  readonly vra: number
  readonly attack: Attack | null
  readonly method: MethodName
  readonly rounding: 'none'
  readonly device: string
  readonly threads: number
  readonly seconds: number
}

interface Attack {
  readonly name: 'pgd'
  readonly steps: number
  readonly restarts: number
  /** In pixel units. */
  readonly stepSize: number
  readonly seed: number
}

export const reportOf = (
  about: {
    readonly model: string
    readonly count: number
    readonly epsilon: number
    readonly attack: AttackOptions | undefined
    readonly method: MethodName
    readonly device: Device
    readonly seconds: number
  },
  { acc, era, vra }: Pick<Verified, 'acc' | 'era' | 'vra'>,
): Report => {
  const { model, count, epsilon, attack, method, device, seconds } = about
  return {
    model,
    count,
    epsilon,
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
          },
    method,
    rounding: 'none',
    device: device.backend.name,
    threads: device.backend.threads,
    seconds,
  }
}

/** A record as JSON, one member per line. NaN and infinity, which JSON lacks, are null. */
export const json = (record: object): string =>
  `{\n${Object.entries(record)
    .map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`)
    .join(',\n')}\n}`

export const percent = (x: number | null): string => (x === null ? '-' : `${(100 * x).toFixed(2)} %`)
const short = (x: number): string => String(Number(x.toPrecision(4)))

/** Cells of a last column that are longer are broken between words. */
const WIDEST = 80

/** Rows without colours, so that a table is the same in a file. */
export const table = (rows: readonly (readonly string[])[], head: readonly string[] = []): string => {
  const wide = Math.max(0, ...rows.map((row) => row.at(-1)?.length ?? 0)) > WIDEST
  const columns = rows[0]?.length ?? 0
  const t = new Table({
    head: [...head],
    style: { head: [], border: [], compact: true },
    wordWrap: true,
    ...(wide ? { colWidths: Array.from({ length: columns }, (_, i) => (i === columns - 1 ? WIDEST + 2 : null)) } : {}),
  })
  for (const row of rows) t.push([...row])
  return t.toString()
}

/** The table of a report: each number with how it was measured. */
export const reportTable = (r: Report, data: string, device: Device, folder?: string): string =>
  table(
    [
      ['ACC', percent(r.acc), 'clean images'],
      [
        'ERA',
        percent(r.era),
        r.attack === null
          ? 'not measured; --attack pgd does'
          : `PGD, ${r.attack.steps} steps of ${short(r.attack.stepSize)} from ${r.attack.restarts} random start${r.attack.restarts === 1 ? '' : 's'} per image, seed ${r.attack.seed}`,
      ],
      [
        'VRA',
        percent(r.vra),
        `${r.method} bounds, epsilon ${short(r.epsilon)}, boxes cut to [0, 1], rounding ${r.rounding}`,
      ],
      ['images', String(r.count), data],
      ['device', r.device, `${device.backend.description} (${device.reason})`],
      ['time', `${r.seconds.toFixed(1)} s`, 'this evaluation'],
      ...(folder === undefined ? [] : [['run', '', folder]]),
    ],
    ['', '', 'how'],
  )

/** A line of progress for an epoch; a term that took no part in it is left out. */
export const epochLine = (r: EpochRecord, epochs: number): string => {
  const width = String(epochs).length
  const loss = (name: string, x: number | null) => `${name} ${x === null ? '-' : x.toFixed(4)}`
  return [
    `epoch ${String(r.epoch + 1).padStart(width)}/${epochs}`,
    loss('natural', r.naturalLoss),
    loss('robust', r.robustLoss),
    `balance ${r.balance.toFixed(2)}`,
    `epsilon ${r.epsilon.toFixed(4)}`,
    `ACC ${percent(r.acc)}`,
    `ERA ${percent(r.era)}`,
    `VRA ${percent(r.vra)}`,
    `${r.seconds.toFixed(1)} s`,
  ].join('  ')
}
