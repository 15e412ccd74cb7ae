import type { Settings } from '../train/checkpoint.ts'
import type { EpochRecord } from '../train/fit.ts'
import { element, FAINT, FONT, GRID, INK, line, type Markup, places, text, widthOf } from './svg.ts'

/** What is drawn: the epochs of a run, and the settings that its title tells. */
export interface Curves {
  readonly history: readonly EpochRecord[]
  readonly settings: Pick<Settings, 'network' | 'loss' | 'epsilon' | 'data' | 'seed' | 'epochs'>
}

interface Series {
  readonly colour: string
  readonly dashed?: boolean
  /** What stands at its end. */
  readonly label: string
  /** Shares from 0 to 1, by epoch; null was not measured. */
  readonly values: readonly (number | null)[]
}

const WIDTH = 560
const HEIGHT = 300
const LOW = 70
/** Left edge of both panels, and the top of the upper one; what lies between the two, and below the lower one. */
const LEFT = 53
const TOP = 82
const BETWEEN = 29
const BELOW = 49
const MARGIN = 14

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
  readonly top: number
  readonly height: number
  /** Values that have a line across, and how each is written. */
  readonly at: readonly number[]
  readonly tick: (value: number) => string
  readonly epochs: number
}

/** Lines over epochs 1 to `epochs`, each named at its end; values from 0 at the bottom to 1 at the top. */
const panel = ({ series, top, height, at, tick, epochs }: Panel): readonly Markup[] => {
  const x = (epoch: number) => LEFT + (WIDTH * (epoch - 1)) / Math.max(1, epochs - 1)
  const y = (value: number) => top + height * (1 - value)
  const drawn = series.flatMap((s) => {
    const points = s.values.flatMap((v, i) => (v === null ? [] : [{ x: places(x(i + 1)), y: places(y(v)) }]))
    return points.length === 0 ? [] : [{ ...s, points }]
  })
  const labels = spread(
    drawn.map((s) => s.points[s.points.length - 1].y),
    15,
    top,
    top + height,
  )
  const dot = epochs <= 12 ? 2.9 : 2.1
  return [
    ...at.flatMap((value) => [
      // Half a pixel down, so that a line one wide covers one row of pixels.
      line(LEFT, y(value) + 0.5, LEFT + WIDTH, y(value) + 0.5, value === 0 ? FAINT : GRID),
      text(LEFT - 6, y(value) + 4, 11, FAINT, tick(value), { 'text-anchor': 'end' }),
    ]),
    ...drawn.map((s) =>
      element('path', {
        d: `M${s.points.map((p) => `${p.x},${p.y}`).join('L')}`,
        fill: 'none',
        stroke: s.colour,
        'stroke-width': 2.25,
        'stroke-linecap': 'round',
        'stroke-linejoin': 'round',
        'stroke-dasharray': s.dashed === true ? '5,4' : undefined,
      }),
    ),
    ...drawn.flatMap((s) =>
      epochs <= 40 ? s.points.map((p) => element('circle', { cx: p.x, cy: p.y, r: dot, fill: s.colour })) : [],
    ),
    ...drawn.map((s, i) => text(LEFT + WIDTH + 10, labels[i] + 4, 12, s.colour, s.label, { 'font-weight': 'bold' })),
  ]
}

/** The axis of epochs, below the lower panel. */
const epochAxis = (epochs: number, top: number): readonly Markup[] => [
  ...ticks(epochs).flatMap((epoch) => {
    const x = LEFT + (WIDTH * (epoch - 1)) / Math.max(1, epochs - 1)
    return [
      line(x + 0.5, top, x + 0.5, top + 5, FAINT),
      text(x, top + 21, 11, FAINT, String(epoch), { 'text-anchor': 'middle' }),
    ]
  }),
  text(LEFT + WIDTH / 2, top + 36, 12, FAINT, 'epoch', { 'text-anchor': 'middle' }),
]

const short = (x: number): string => String(Number(x.toPrecision(3)))

/** `ACC 97.1 % correct`, by the last epoch that was measured. */
const labelOf = (name: string, values: readonly (number | null)[], what: string): string =>
  `${name} ${(100 * (values.filter((v) => v !== null).at(-1) ?? 0)).toFixed(1)} % ${what}`

/** Accuracies above, and below them what training asked for, as an SVG document. The same run gives the same bytes. */
export const drawCurves = ({ history, settings }: Curves): string => {
  const { network, loss, epsilon, data, seed } = settings
  const source = data.split(/[/\\]/).at(-1) ?? data
  const epochs = Math.max(1, history.length)
  const last = history.at(-1)
  const measured = (['acc', 'era', 'vra'] as const).map((k) => history.map((r) => r[k]))
  const accuracies: readonly Series[] = [
    { colour: '#0072B2', label: labelOf('ACC', measured[0], 'correct'), values: measured[0] },
    { colour: '#B35900', label: labelOf('ERA', measured[1], 'unbroken'), values: measured[1] },
    { colour: '#007A5A', label: labelOf('VRA', measured[2], 'verified'), values: measured[2] },
  ]
  const used: readonly Series[] = [
    {
      colour: '#444444',
      label: `epsilon ${short(last?.epsilon ?? epsilon)}`,
      values: history.map((r) => (epsilon === 0 ? 1 : r.epsilon / epsilon)),
    },
    {
      colour: '#9B4F96',
      dashed: true,
      label: `balance ${short(last?.balance ?? 0)}`,
      values: history.map((r) => r.balance),
    },
  ]
  const title = `How robust ${/^[aeiou]/.test(network) ? 'an' : 'a'} ${network} network became: ${loss}, epsilon ${short(epsilon)}`
  const subtitle = [
    `Held-out training images after each epoch: correct, unbroken by PGD, verified. Data: ${source}, seed ${seed}.`,
    'Below, what training used: epsilon as a share of the full one, and balance, the weight of the robust term.',
  ]
  const low = TOP + HEIGHT + BETWEEN
  const height = low + LOW + BELOW
  const width = Math.ceil(
    MARGIN +
      Math.max(
        widthOf(title, 16),
        ...subtitle.map((s) => widthOf(s, 12)),
        ...[...accuracies, ...used].map((s) => LEFT - MARGIN + WIDTH + 10 + widthOf(s.label, 12)),
      ),
  )
  const picture = element(
    'svg',
    {
      xmlns: 'http://www.w3.org/2000/svg',
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      'font-family': FONT,
      role: 'img',
    },
    element(
      'title',
      {},
      [title, ...accuracies.filter((s) => s.values.some((v) => v !== null)).map((s) => s.label)].join('; '),
    ),
    element('rect', { width, height, fill: 'white' }),
    text(MARGIN, 27, 16, INK, title, { 'font-weight': 'bold' }),
    ...subtitle.map((s, i) => text(MARGIN, 44 + 14 * i, 12, FAINT, s)),
    ...panel({
      series: accuracies,
      top: TOP,
      height: HEIGHT,
      at: [0, 0.2, 0.4, 0.6, 0.8, 1],
      tick: (v) => `${Math.round(100 * v)} %`,
      epochs,
    }),
    ...panel({ series: used, top: low, height: LOW, at: [0, 0.5, 1], tick: (v) => v.toFixed(1), epochs }),
    ...epochAxis(epochs, low + LOW),
  )
  return `${picture.markup}\n`
}
