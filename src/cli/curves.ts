import type { TopLevelSpec } from 'vega-lite'
import type { Settings } from '../train/checkpoint.ts'
import type { EpochRecord } from '../train/fit.ts'

/** What is drawn: the epochs of a run, and the settings that its title tells. */
export interface Curves {
  readonly history: readonly EpochRecord[]
  readonly settings: Pick<Settings, 'network' | 'loss' | 'epsilon' | 'data' | 'seed' | 'epochs'>
}

interface Series {
  readonly name: string
  readonly colour: string
  readonly dash: readonly number[]
  /** What its label says. */
  readonly last: string
  readonly values: readonly (number | null)[]
}

const INK = '#222222'
const FAINT = '#6b6b6b'
const GRID = '#e6e6e6'
const WIDTH = 560
const HEIGHT = 300
const LOW = 70
const FONT = 'Helvetica, Arial, sans-serif'

/** Places for labels near the wanted ones (ascending or not), at least `gap` apart and within [low, high]. */
export const spread = (wanted: readonly number[], gap: number, low: number, high: number): readonly number[] => {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b] || a - b)
  const places = [...wanted]
  let edge = low
  for (const i of order) {
    places[i] = Math.max(places[i], edge)
    edge = places[i] + gap
  }
  // Back from the top: nothing above `high`, and the gaps kept.
  edge = high
  for (const i of order.reverse()) {
    places[i] = Math.min(places[i], edge)
    edge = places[i] - gap
  }
  return places
}

/** At most 13 whole numbers from 1 to n, evenly spaced. */
const ticks = (n: number): readonly number[] => {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((s) => n / s <= 12) ?? n
  return step === 1
    ? Array.from({ length: n }, (_, i) => i + 1)
    : [1, ...Array.from({ length: Math.floor(n / step) }, (_, i) => (i + 1) * step)]
}

interface Panel {
  readonly series: readonly Series[]
  readonly height: number
  readonly domain: readonly [number, number]
  readonly at: readonly number[]
  readonly epochs: number
  readonly bottom: boolean
  /** Expression of an axis label. */
  readonly tick: string
}

const panel = ({ series, height, domain, at, epochs, bottom, tick }: Panel): object => {
  const drawn = series.filter((s) => s.values.some((v) => v !== null))
  const points = drawn.flatMap((s) =>
    s.values.flatMap((value, i) => (value === null ? [] : [{ name: s.name, epoch: i + 1, value }])),
  )
  const ends = drawn.map((s) => s.values.filter((v) => v !== null).at(-1) ?? 0)
  const gap = ((domain[1] - domain[0]) * 15) / height
  const places = spread(ends, gap, domain[0], domain[1])
  const labels = drawn.map((s, i) => ({ name: s.name, epoch: epochs, place: places[i], text: `${s.name} ${s.last}` }))
  const scale = { domain: drawn.map((s) => s.name), range: drawn.map((s) => s.colour) }
  const colour = { field: 'name', type: 'nominal', scale, legend: null } as const
  const dash = {
    field: 'name',
    type: 'nominal',
    scale: { domain: scale.domain, range: drawn.map((s) => [...s.dash]) },
    legend: null,
  } as const
  const x = {
    field: 'epoch',
    type: 'quantitative',
    scale: { domain: [1, Math.max(2, epochs)], nice: false, zero: false },
    axis: {
      title: bottom ? 'epoch' : null,
      values: [...ticks(epochs)],
      format: 'd',
      labelFlush: false,
      labelOverlap: false,
      grid: false,
      labels: bottom,
      ticks: bottom,
    },
  } as const
  const y = {
    field: 'value',
    type: 'quantitative',
    scale: { domain: [...domain], nice: false },
    axis: { title: null, values: [...at], labelExpr: tick, domain: false, ticks: false },
  } as const
  return {
    width: WIDTH,
    height,
    layer: [
      {
        data: { values: points },
        mark: { type: 'line', strokeWidth: 2.25, strokeCap: 'round', strokeJoin: 'round' },
        encoding: { x, y, color: colour, strokeDash: dash },
      },
      ...(epochs <= 40
        ? [
            {
              data: { values: points },
              mark: { type: 'point', filled: true, size: epochs <= 12 ? 34 : 18, opacity: 1 },
              encoding: { x, y, color: colour },
            } as const,
          ]
        : []),
      {
        data: { values: labels },
        mark: { type: 'text', align: 'left', baseline: 'middle', dx: 10, fontSize: 12, fontWeight: 'bold' },
        encoding: {
          x,
          y: { ...y, field: 'place' },
          text: { field: 'text', type: 'nominal' },
          color: colour,
        },
      },
    ],
  }
}

const percent = (x: number | null): number | null => (x === null ? null : 100 * x)
const short = (x: number): string => String(Number(x.toPrecision(3)))
const shown = (x: number | null | undefined): string =>
  x === null || x === undefined ? '' : `${(100 * x).toFixed(1)} %`

/** The chart as a Vega-Lite specification: accuracies above, and below them what training asked for. */
export const curves = ({ history, settings }: Curves): TopLevelSpec => {
  const { network, loss, epsilon, data, seed } = settings
  const last = history.at(-1)
  const source = data.split(/[/\\]/).at(-1) ?? data
  const epochs = Math.max(1, history.length)
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: 'white',
    padding: { left: 14, top: 14, right: 14, bottom: 12 },
    title: {
      text: `How robust ${/^[aeiou]/.test(network) ? 'an' : 'a'} ${network} network became: ${loss}, epsilon ${short(epsilon)}`,
      subtitle: [
        `Held-out training images after each epoch: correct, unbroken by PGD, verified. Data: ${source}, seed ${seed}.`,
        'Below, what training used: epsilon as a share of the full one, and balance, the weight of the robust term.',
      ],
      anchor: 'start',
      offset: 16,
    },
    vconcat: [
      panel({
        series: [
          {
            name: 'ACC',
            colour: '#0072B2',
            dash: [],
            last: `${shown(last?.acc)} correct`,
            values: history.map((r) => percent(r.acc)),
          },
          {
            name: 'ERA',
            colour: '#B35900',
            dash: [],
            last: `${shown(last?.era)} unbroken`,
            values: history.map((r) => percent(r.era)),
          },
          {
            name: 'VRA',
            colour: '#007A5A',
            dash: [],
            last: `${shown(last?.vra)} verified`,
            values: history.map((r) => percent(r.vra)),
          },
        ],
        height: HEIGHT,
        domain: [0, 100],
        at: [0, 20, 40, 60, 80, 100],
        epochs,
        bottom: false,
        tick: "datum.value + ' %'",
      }),
      panel({
        series: [
          {
            name: 'epsilon',
            colour: '#444444',
            dash: [],
            last: `${short(last?.epsilon ?? epsilon)}`,
            values: history.map((r) => (epsilon === 0 ? 1 : r.epsilon / epsilon)),
          },
          {
            name: 'balance',
            colour: '#9B4F96',
            dash: [5, 4],
            last: `${short(last?.balance ?? 0)}`,
            values: history.map((r) => r.balance),
          },
        ],
        height: LOW,
        domain: [0, 1],
        at: [0, 0.5, 1],
        epochs,
        bottom: true,
        tick: "format(datum.value, '.1f')",
      }),
    ],
    spacing: 18,
    resolve: { scale: { color: 'independent', strokeDash: 'independent' } },
    config: {
      font: FONT,
      view: { stroke: null },
      title: { fontSize: 16, color: INK, subtitleColor: FAINT, subtitleFontSize: 12, subtitlePadding: 5 },
      axis: {
        labelColor: FAINT,
        titleColor: FAINT,
        titleFontWeight: 'normal',
        titleFontSize: 12,
        labelFontSize: 11,
        gridColor: GRID,
        domainColor: FAINT,
        tickColor: FAINT,
        labelPadding: 6,
      },
    },
  } as TopLevelSpec
}

/** Vega's hook for the width of a text: a usual width per character, the same whether or not a canvas is installed. */
interface TextMetrics {
  width: (item: { readonly text?: unknown; readonly fontSize?: number }, text?: unknown) => number
}

/** Draws the chart as SVG, without a browser. Vega is loaded only here. */
export const drawCurves = async (run: Curves): Promise<string> => {
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')])
  const { textMetrics } = vega as unknown as { readonly textMetrics: TextMetrics }
  textMetrics.width = (item, text = item.text) =>
    Math.max(0, ...[text].flat().map((line) => 0.6 * (item.fontSize ?? 11) * String(line ?? '').length))
  const view = new vega.View(vega.parse(compile(curves(run)).spec), { renderer: 'none', logLevel: vega.Warn })
  try {
    return `${await view.toSVG()}\n`
  } finally {
    view.finalize()
  }
}
