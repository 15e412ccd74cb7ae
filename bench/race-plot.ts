import type { TopLevelSpec } from 'vega-lite'
import type { RaceRecord } from './race-records.ts'
import { contenders } from './race-summary.ts'

/** MixTrain in four depths of one colour, everybody else in colours of their own (also apart for the colour-blind, by shape). */
const COLOURS: Readonly<Record<string, string>> = {
  natural: '#8a8a8a',
  pgd: '#b35900',
  ibp: '#007a5a',
  'crown-ibp': '#56a78c',
  symbolic: '#111111',
  sabr: '#9b4f96',
  'mtl-ibp': '#c7588a',
}
const DEPTHS = ['#9ecae8', '#5aa5d6', '#2b7bba', '#0b4c8c']

interface Named extends RaceRecord {
  readonly name: string
}

const scales = (records: readonly RaceRecord[]) => {
  const all = contenders(records)
  const sampled = all.filter((c) => c.method === 'mixtrain')
  const names = all.map((c) => c.name)
  const colour = (name: string, i: number) =>
    COLOURS[name] ??
    DEPTHS[
      Math.min(
        DEPTHS.length - 1,
        sampled.findIndex((c) => c.name === name),
      )
    ] ??
    DEPTHS[i % 4]
  const named: readonly Named[] = all.flatMap((c) => c.runs.flat().map((r) => ({ ...r, name: c.name })))
  return {
    all,
    named,
    color: {
      field: 'name',
      type: 'nominal' as const,
      title: null,
      scale: { domain: names, range: names.map(colour) },
      sort: null,
      legend: { symbolOpacity: 1 },
    },
  }
}

const CONFIG = {
  font: 'Helvetica, Arial, sans-serif',
  view: { stroke: null },
  axis: { gridColor: '#e6e6e6', domainColor: '#6b6b6b', labelColor: '#444444', titleFontWeight: 'normal' as const },
  title: { subtitleColor: '#6b6b6b', subtitlePadding: 5 },
  legend: { labelFontSize: 12 },
}

/** What all these figures have in common. */
export const frame = (text: string, subtitle: string) => ({
  $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
  title: { text, subtitle, anchor: 'start' as const, offset: 12 },
  background: 'white',
  padding: 12,
  config: CONFIG,
})

const PERCENT = { axis: { format: '.0%' } } as const

/** VRA against seconds of training, one line for each run. */
export const vraAgainstTime = (records: readonly RaceRecord[], subtitle: string): TopLevelSpec => {
  const { named, color } = scales(records)
  return {
    ...frame('Verified robust accuracy against training time', subtitle),
    width: 560,
    height: 340,
    data: { values: [...named] },
    mark: { type: 'line', strokeWidth: 2, point: { size: 22 } },
    encoding: {
      x: {
        field: 'seconds',
        type: 'quantitative',
        title: 'seconds of training (evaluation not counted)',
        scale: { type: 'log', nice: false },
        axis: { grid: false, format: '~s', tickCount: 6 },
      },
      y: { field: 'vra', type: 'quantitative', title: 'VRA', ...PERCENT },
      color,
      detail: { field: 'run', type: 'nominal' },
      order: { field: 'epoch', type: 'quantitative' },
    },
  } as TopLevelSpec
}

/** Images of the slice that are not classified, or not verified: half an image where there is none, for an axis of logarithms. */
const missed = (share: number, slice: number): number => Math.max(1 - share, 0.5 / slice)

/** Where each run ended, in clean and in verified accuracy; the way it took, faintly. Axes of errors, for methods differ in these by factors. */
export const accAgainstVra = (records: readonly RaceRecord[], slice: number, subtitle: string): TopLevelSpec => {
  const { all, named, color } = scales(records)
  const point = <R extends RaceRecord>(r: R) => ({ ...r, acc: missed(r.acc, slice), vra: missed(r.vra, slice) })
  const ends = all.flatMap((c) => c.runs.map((run) => ({ ...point(run.at(-1) as RaceRecord), name: c.name })))
  const axis = (field: string, title: string, most: number) => ({
    field,
    type: 'quantitative',
    title,
    scale: {
      type: 'log',
      reverse: true,
      nice: false,
      domain: [0.9 * Math.min(...ends.map((r) => r[field as 'acc'])), most],
    },
    axis: { format: '~%', tickCount: 8 },
  })
  const x = axis('vra', 'not verified (1 - VRA)', 1.05)
  // Early epochs, with half of the images wrong, would take the room that the ends need.
  const high = 1.2 * Math.max(...ends.map((r) => r.acc))
  const y = axis('acc', 'misclassified (1 - ACC)', high)
  return {
    ...frame('Clean against verified accuracy', subtitle),
    width: 560,
    height: 340,
    layer: [
      {
        data: { values: named.map(point).filter((r) => r.acc <= high) },
        mark: { type: 'line', strokeWidth: 1, opacity: 0.35, clip: true },
        encoding: { x, y, color, detail: { field: 'run' }, order: { field: 'epoch', type: 'quantitative' } },
      },
      {
        data: { values: ends },
        mark: { type: 'point', filled: true, size: 90, opacity: 1 },
        encoding: { x, y, color },
      },
    ],
  } as TopLevelSpec
}

/** VRA and seconds an epoch after equally many epochs, by the images of a batch that are bounded; the whole batch as the last k. */
export const againstK = (records: readonly RaceRecord[], batchSize: number, subtitle: string): TopLevelSpec => {
  const own = contenders(records).filter((c) => c.method === 'mixtrain' || c.method === 'symbolic')
  const epochs = Math.min(...own.flatMap((c) => c.runs.map((run) => run.length)))
  const points = own.flatMap((c) =>
    c.runs.map((run) => ({
      k: c.k ?? batchSize,
      what: c.method === 'symbolic' ? 'whole batch' : 'mixtrain',
      vra: run[epochs - 1].vra,
      seconds: run[epochs - 1].seconds / epochs,
    })),
  )
  const values = [...new Set(points.map((p) => p.k))].sort((a, b) => a - b)
  const panel = (field: string, title: string, rest: object) => ({
    width: 280,
    height: 260,
    data: { values: points },
    layer: [
      { mark: { type: 'line', strokeWidth: 1.5, color: '#2b7bba' }, encoding: { y: { aggregate: 'mean', field } } },
      {
        mark: { type: 'point', filled: true, size: 60, opacity: 0.9 },
        encoding: {
          y: { field },
          color: {
            field: 'what',
            type: 'nominal',
            title: null,
            scale: { domain: ['mixtrain', 'whole batch'], range: ['#2b7bba', '#111111'] },
          },
        },
      },
    ],
    encoding: {
      x: {
        field: 'k',
        type: 'quantitative',
        title: 'k, images of a batch that are bounded',
        scale: { type: 'log', nice: false, padding: 14 },
        axis: { values, format: 'd', grid: false },
      },
      y: { type: 'quantitative', title, ...rest },
    },
  })
  return {
    ...frame(`MixTrain by k, after ${epochs} epochs`, subtitle),
    hconcat: [
      panel('vra', 'VRA', { axis: { format: '.0%' }, scale: { zero: false } }),
      panel('seconds', 'seconds an epoch', { scale: { type: 'log' }, axis: { tickCount: 5, format: '~r' } }),
    ],
    spacing: 30,
  } as unknown as TopLevelSpec
}
