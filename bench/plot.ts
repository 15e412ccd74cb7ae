import type { TopLevelSpec } from 'vega-lite'
import { mean } from './statistics.ts'

/** One measured point of a cost curve. */
export interface Point {
  readonly curve: 'batch' | 'parameters' | 'k' | 'threads'
  readonly step: string
  readonly at: number
  /** CPU time on one thread, or in the curve of threads time on the wall. */
  readonly milliseconds: number
}

/** What a panel varies and what it shows of a step: CPU time on one thread, which other processes do not move, or the wall. */
const PANELS: Readonly<Record<Point['curve'], { readonly x: string; readonly y: string }>> = {
  batch: { x: 'images in a batch (small, one thread)', y: 'CPU ms per step' },
  parameters: { x: 'parameters of the network (batch 50, one thread)', y: 'CPU ms per step' },
  k: { x: 'k, images with sound bounds (small, batch 50, one thread)', y: 'CPU ms per step' },
  threads: { x: 'threads (small, batch 100)', y: 'wall-clock ms per step' },
}

/** Step time against batch, network size, k and threads: four panels on logarithmic axes, one colour per kind of step. */
export const costCurves = (points: readonly Point[], subtitle: string): TopLevelSpec => {
  const panel = (curve: Point['curve']) => {
    const own = points.filter((p) => p.curve === curve)
    const values = [...new Set(own.map((p) => p.at))].sort((a, b) => a - b)
    return {
      width: 280,
      height: 200,
      data: { values: own },
      mark: { type: 'line' as const, point: { size: 40 }, strokeWidth: 2 },
      encoding: {
        x: {
          field: 'at',
          type: 'quantitative' as const,
          title: PANELS[curve].x,
          scale: { type: 'log' as const, nice: false, padding: 12 },
          axis: { values, format: values.some((v) => v >= 1e4) ? '~s' : 'd', grid: false },
        },
        y: {
          field: 'milliseconds',
          type: 'quantitative' as const,
          title: PANELS[curve].y,
          scale: { type: 'log' as const },
          axis: { format: '~s', tickCount: 5 },
        },
        color: { field: 'step', type: 'nominal' as const, title: null, scale: { scheme: 'tableau10' as const } },
      },
    }
  }
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: { text: 'What a training step costs', subtitle, anchor: 'start' },
    background: 'white',
    columns: 2,
    concat: (['batch', 'parameters', 'k', 'threads'] as const).map(panel),
    config: { view: { stroke: null }, axis: { gridColor: '#e6e6e6', domainColor: '#6b6b6b' } },
  }
}

/** A finished run with a balance, on test images. */
export interface Final {
  readonly run: string
  readonly acc: number
  readonly vra: number
}

/** ACC against VRA: the line joins fixed balances in their order, by the mean over seeds; adaptive runs are squares. */
export const balanceFrontier = (finals: readonly Final[], subtitle: string): TopLevelSpec => {
  const fixed = finals.filter((f) => f.run !== 'adaptive')
  const names = [...new Set(fixed.map((f) => f.run))].sort((a, b) => Number(a) - Number(b))
  const line = names.map((run, order) => {
    const own = fixed.filter((f) => f.run === run)
    return { run, order, acc: 100 * mean(own.map((f) => f.acc)), vra: 100 * mean(own.map((f) => f.vra)) }
  })
  const percent = (fs: readonly Final[]) => fs.map((f) => ({ run: f.run, acc: 100 * f.acc, vra: 100 * f.vra }))
  const scale = { zero: false, nice: true }
  const encoding = {
    x: { field: 'vra', type: 'quantitative' as const, title: 'VRA, %', scale },
    y: { field: 'acc', type: 'quantitative' as const, title: 'ACC, %', scale },
  }
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: {
      text: 'Fixed balances and the adaptive rule',
      subtitle: [subtitle, 'circles: fixed, each seed; line: their means; red squares: adaptive'],
      anchor: 'start',
    },
    background: 'white',
    width: 420,
    height: 300,
    layer: [
      { data: { values: percent(fixed) }, mark: { type: 'point', color: '#9ab' }, encoding },
      {
        data: { values: line },
        mark: { type: 'line', color: '#4c78a8', point: true },
        encoding: { ...encoding, order: { field: 'order', type: 'quantitative' } },
      },
      { data: { values: line }, mark: { type: 'text', dy: -10 }, encoding: { ...encoding, text: { field: 'run' } } },
      {
        data: { values: percent(finals.filter((f) => f.run === 'adaptive')) },
        mark: { type: 'square', color: '#e45756', size: 80, filled: true },
        encoding,
      },
    ],
    config: { view: { stroke: null }, axis: { gridColor: '#e6e6e6', domainColor: '#6b6b6b' } },
  }
}

/** The chart as SVG, without a browser. */
export const draw = async (spec: TopLevelSpec): Promise<string> => {
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')])
  const view = new vega.View(vega.parse(compile(spec).spec), { renderer: 'none', logLevel: vega.Error })
  try {
    return `${await view.toSVG()}\n`
  } finally {
    view.finalize()
  }
}
