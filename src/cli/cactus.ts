import { spread } from './curves.ts'
import type { Outcome } from './instances.ts'
import { element, FAINT, FONT, GRID, INK, line, places, text } from './svg.ts'

const [WIDTH, HEIGHT, LEFT, TOP, BELOW, RIGHT] = [560, 360, 48, 64, 52, 190]
const COLORS = ['#0072B2', '#B35900', '#007A5A', '#9B4F96', '#C8102E', '#5A5A00', '#00606B', '#7A4A2B'] as const

interface Line {
  readonly name: string
  /** Seconds of the decided instances, ascending. */
  readonly seconds: readonly number[]
}

const isDecided = ({ verdict }: Outcome): boolean => verdict === 'sat' || verdict === 'unsat'

/** The decided instances of each family, and of all: those whose verdict is not known to be wrong. */
export const cactusOf = (outcomes: readonly Outcome[]): readonly Line[] => {
  const lineOf = (name: string, some: readonly Outcome[]): Line => ({
    name,
    seconds: some
      .filter((o) => isDecided(o) && (o.expected === undefined || o.expected === o.verdict))
      .map((o) => o.seconds)
      .sort((a, b) => a - b),
  })
  const families = [...new Set(outcomes.map((o) => o.family))].filter((f) => f !== '')
  return [
    lineOf('all', outcomes),
    ...(families.length > 1
      ? families.map((f) =>
          lineOf(
            f,
            outcomes.filter((o) => o.family === f),
          ),
        )
      : []),
  ]
}

/** A cactus plot: how many instances were decided, each within so many seconds. The same outcomes give the same bytes. */
export const drawCactus = (outcomes: readonly Outcome[]): string => {
  const lines = cactusOf(outcomes).filter(({ seconds }) => seconds.length > 0)
  const most = Math.max(1, ...lines.map(({ seconds }) => seconds.length))
  const limit = Math.max(1, ...outcomes.map((o) => Math.max(o.limit, o.seconds)))
  const [first, last] = [-1, Math.ceil(Math.log10(limit))]
  const x = (s: number) => LEFT + (WIDTH * (Math.max(first, Math.log10(s)) - first)) / (last - first)
  const y = (n: number) => TOP + HEIGHT * (1 - n / most)
  const powers = Array.from({ length: last - first + 1 }, (_, i) => first + i)
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((k) => most / k <= 8) ?? Math.ceil(most / 8)
  const counts = Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step)
  const ends = spread(
    lines.map(({ seconds }) => y(seconds.length)),
    14,
    TOP,
    TOP + HEIGHT,
  )
  const height = TOP + HEIGHT + BELOW
  return `${
    element(
      'svg',
      {
        xmlns: 'http://www.w3.org/2000/svg',
        viewBox: `0 0 ${LEFT + WIDTH + RIGHT} ${height}`,
        width: LEFT + WIDTH + RIGHT,
        height,
        'font-family': FONT,
      },
      element('rect', { width: '100%', height: '100%', fill: '#ffffff' }),
      text(LEFT, 26, 16, INK, `${lines[0]?.seconds.length ?? 0} of ${outcomes.length} instances decided`, {
        'font-weight': 'bold',
      }),
      text(LEFT, 46, 12, FAINT, 'How many were decided, each within so many seconds; wrong verdicts do not count.'),
      ...counts.flatMap((n) => [
        line(LEFT, y(n) + 0.5, LEFT + WIDTH, y(n) + 0.5, n === 0 ? FAINT : GRID),
        text(LEFT - 6, y(n) + 4, 11, FAINT, String(n), { 'text-anchor': 'end' }),
      ]),
      ...powers.flatMap((k) => [
        line(x(10 ** k) + 0.5, TOP + HEIGHT, x(10 ** k) + 0.5, TOP + HEIGHT + 5, FAINT),
        text(x(10 ** k), TOP + HEIGHT + 20, 11, FAINT, String(10 ** k), { 'text-anchor': 'middle' }),
      ]),
      text(LEFT + WIDTH / 2, TOP + HEIGHT + 38, 12, FAINT, 'seconds', { 'text-anchor': 'middle' }),
      ...lines.flatMap(({ name, seconds }, i) => {
        const color = i === 0 ? INK : COLORS[(i - 1) % COLORS.length]
        const steps = seconds.map((s, n) => `L${places(x(s))},${places(y(n))}V${places(y(n + 1))}`)
        return [
          element('path', {
            d: `M${places(x(seconds[0]))},${places(y(0))}${steps.join('')}H${LEFT + WIDTH}`,
            fill: 'none',
            stroke: color,
            'stroke-width': i === 0 ? 2.5 : 1.5,
          }),
          text(LEFT + WIDTH + 8, ends[i] + 4, 12, color, `${name} ${seconds.length}`),
        ]
      }),
    ).markup
  }\n`
}
