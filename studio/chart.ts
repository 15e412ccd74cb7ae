import type { EpochRecord } from '../src/index.ts'
import { svg } from './dom.ts'

interface Line {
  readonly name: string
  readonly values: readonly (number | null)[]
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [320, 130, 40, 10, 8, 20]

const draw = (
  target: SVGSVGElement,
  lines: readonly Line[],
  epochs: number,
  [low, high]: readonly [number, number],
  ticks: readonly (readonly [number, string])[],
): void => {
  const x = (epoch: number) => LEFT + ((WIDTH - LEFT - RIGHT) * epoch) / Math.max(1, epochs)
  const y = (v: number) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (v - low)) / (high - low)
  const grid = ticks.flatMap(([v, text]) => [
    svg('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v), class: 'grid' }),
    svg('text', { x: LEFT - 5, y: y(v) + 3.5, 'text-anchor': 'end' }, text),
  ])
  const marks = [...new Set([1, Math.round(epochs / 2), epochs])]
    .filter((e) => e >= 1)
    .map((e) =>
      svg('text', { x: x(e), y: HEIGHT - 5, 'text-anchor': 'middle' }, e === epochs ? `epoch ${e}` : String(e)),
    )
  marks[marks.length - 1]?.setAttribute('text-anchor', 'end')
  marks[marks.length - 1]?.setAttribute('x', String(WIDTH - RIGHT + 6))
  const drawn = lines.flatMap(({ name, values }) => {
    const points = values.flatMap((v, i) => (v === null || !Number.isFinite(v) ? [] : [[x(i + 1), y(v)] as const]))
    const end = points[points.length - 1]
    if (end === undefined) return []
    return [
      svg('polyline', {
        points: points.map((p) => p.map((v) => v.toFixed(1)).join(',')).join(' '),
        class: `line ${name}`,
      }),
      svg('circle', { cx: end[0], cy: end[1], r: 3, class: `end ${name}` }),
    ]
  })
  target.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`)
  target.replaceChildren(...grid, ...marks, ...drawn)
}

/** ACC, ERA, VRA from 0 to 100 %. */
export const drawRates = (target: SVGSVGElement, history: readonly EpochRecord[], epochs: number): void => {
  const ticks = [0, 0.5, 1].map((v) => [v, `${100 * v} %`] as const)
  const lines = (['acc', 'era', 'vra'] as const).map((name) => ({ name, values: history.map((h) => h[name]) }))
  draw(target, lines, epochs, [0, 1], ticks)
}

/** 1, 2 and 5 times powers of ten, as logarithms; the powers alone if that is enough. */
const decades = (low: number, high: number): readonly (readonly [number, string])[] => {
  const all = [-4, -3, -2, -1, 0, 1, 2, 3, 4, 5].flatMap((e) => [1, 2, 5].map((m) => Number(`${m}e${e}`)))
  const within = all.filter((v) => Math.log10(v) >= low && Math.log10(v) <= high)
  const few = within.length <= 5 ? within : within.filter((v) => Number.isInteger(Math.log10(v)))
  return few.map((v) => [Math.log10(v), String(v)] as const)
}

/** The two losses on a logarithmic scale. */
export const drawLosses = (target: SVGSVGElement, history: readonly EpochRecord[], epochs: number): void => {
  const log = (v: number | null) => (v === null || v <= 0 ? null : Math.log10(v))
  const lines = [
    { name: 'natural', values: history.map((h) => log(h.naturalLoss)) },
    { name: 'robust', values: history.map((h) => log(h.robustLoss)) },
  ]
  const all = lines.flatMap(({ values }) => values).filter((v): v is number => v !== null && Number.isFinite(v))
  const low = Math.min(-0.35, ...all) - 0.05
  const high = Math.max(0.35, ...all) + 0.05
  draw(target, lines, epochs, [low, high], decades(low, high))
}
