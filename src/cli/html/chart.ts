/** A line of a chart: points in the order of x; null was not measured. */
interface Line {
  readonly label: string
  readonly points: readonly (readonly [x: number, y: number | null])[]
}

export interface Chart {
  readonly title: string
  readonly x: string
  /** Whether places on that axis are whole numbers, such as epochs. */
  readonly whole?: boolean
  /** Shares from 0 to 1, in per cent, unless `free`. */
  readonly free?: boolean
  readonly lines: readonly Line[]
}

export const escaped = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)

const WIDTH = 420
const HEIGHT = 240
const [LEFT, RIGHT, TOP, BOTTOM] = [46, 12, 10, 34]

/** About n round numbers from low to high. */
const ticks = (low: number, high: number, n: number): readonly number[] => {
  const rough = (high - low) / n || 1
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) ?? rough
  const first = Math.ceil(low / step - 1e-9)
  const last = Math.floor(high / step + 1e-9)
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)))
}

/** Number of colours and dashes in the style sheet; further lines begin again. */
export const COLOURS = 6

/** A chart as SVG: lines in the colours of their places (`.c0`, `.c1`, ...), which the page's style sheet has for light and dark. */
export const drawn = ({ title, x: name, whole = false, free = false, lines }: Chart): string => {
  const all = lines.flatMap(({ points }) => points)
  const ys = all.flatMap(([, y]) => (y === null ? [] : [y]))
  if (ys.length === 0) return ''
  const xs = all.map(([x]) => x)
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)]
  const [y0, y1] = free ? [Math.min(0, ...ys), Math.max(...ys) || 1] : [0, 1]
  const at = (x: number) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT)
  const up = (y: number) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - TOP - BOTTOM)
  const n = (v: number) => v.toFixed(1)
  const grid = ticks(y0, y1, 5).map((y) => {
    const label = free ? String(y) : `${Math.round(100 * y)} %`
    return `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${n(up(y))}" y2="${n(up(y))}"/><text x="${LEFT - 6}" y="${n(up(y) + 4)}" text-anchor="end">${label}</text>`
  })
  const places = ticks(x0, x1, 6).filter((x) => !whole || Number.isInteger(x))
  const marks = places.map((x) => `<text x="${n(at(x))}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle">${x}</text>`)
  const curves = lines.map(({ points, label }, i) => {
    const there = points.filter((p): p is readonly [number, number] => p[1] !== null)
    const path = there.map(([x, y], j) => `${j === 0 ? 'M' : 'L'}${n(at(x))} ${n(up(y))}`).join('')
    const dots =
      there.length > 30
        ? ''
        : there
            .map(([x, y]) => `<circle class="dot c${i % COLOURS}" cx="${n(at(x))}" cy="${n(up(y))}" r="2.2"/>`)
            .join('')
    return `<path class="line c${i % COLOURS}" d="${path}"><title>${escaped(label)}</title></path>${dots}`
  })
  return `<figure><figcaption>${escaped(title)}</figcaption><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(title)}">${grid.join('')}${marks.join('')}<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 2}" text-anchor="middle">${escaped(name)}</text>${curves.join('')}</svg></figure>`
}
