import type { TopLevelSpec } from 'vega-lite'

/** One measured point of a cost curve. */
export interface Point {
  readonly curve: 'batch' | 'parameters' | 'k' | 'threads'
  readonly step: string
  readonly at: number
  readonly milliseconds: number
}

const TITLES: Readonly<Record<Point['curve'], string>> = {
  batch: 'images in a batch (small, one thread)',
  parameters: 'parameters of the network (batch 50, one thread)',
  k: 'k, images with sound bounds (small, batch 50, one thread)',
  threads: 'threads (small, batch 50)',
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
          title: TITLES[curve],
          scale: { type: 'log' as const, nice: false, padding: 12 },
          axis: { values, format: values.some((v) => v >= 1e4) ? '~s' : 'd', grid: false },
        },
        y: {
          field: 'milliseconds',
          type: 'quantitative' as const,
          title: 'ms per step (CPU where one thread)',
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
