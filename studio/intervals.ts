import { byId, el, plain, signed } from './dom.ts'
import { type Bounds, CLASSES } from './protocol.ts'

/** A round step that cuts `span` into about four parts. */
const stepOf = (span: number): number => {
  const raw = span / 4
  const power = 10 ** Math.floor(Math.log10(raw))
  return power * ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10)
}

/** Ten bars lower .. upper with the logit at the image, on one scale, and the lower bound of each margin. */
export const intervals = (): {
  readonly show: (b: Bounds) => void
  /** Marks the class that an attack reached. */
  readonly mark: (reached: number | undefined) => void
} => {
  const [body, axis] = [byId('intervals').querySelector('tbody') as HTMLElement, byId('axis')]
  const rows = Array.from({ length: CLASSES }, (_, j) => {
    const [bar, dot, zero] = [el('i', { class: 'bar' }), el('i', { class: 'dot' }), el('i', { class: 'zero' })]
    const cells = ['number wide', 'number wide', 'number wide', 'number margin'].map((name) =>
      el('td', { class: name }),
    )
    const track = el('td', { class: 'track' }, el('div', { 'aria-hidden': 'true' }, zero, bar, dot))
    const row = el('tr', {}, el('th', { scope: 'row' }, String(j)), track, ...cells)
    return { row, bar, dot, zero, cells }
  })
  body.replaceChildren(...rows.map(({ row }) => row))
  let [low, high] = [-1, 1]
  let marked: number | undefined

  return {
    mark: (reached) => {
      marked = reached
      rows.forEach(({ row }, j) => {
        row.classList.toggle('reached', j === reached)
      })
    },
    show: ({ logits, lower, upper, margin, label, prediction }) => {
      const finite = [...lower, ...upper, ...logits].filter(Number.isFinite)
      const [least, most] = [Math.min(0, ...finite), Math.max(0, ...finite)]
      const span = Math.max(most - least, 1e-6)
      // The scale grows at once and shrinks late, so that a moving slider shows moving bars.
      if (least < low || most > high || span < 0.45 * (high - low)) {
        low = least - 0.08 * span
        high = most + 0.08 * span
      }
      const at = (v: number) => 100 * Math.min(1, Math.max(0, (v - low) / (high - low)))
      rows.forEach(({ row, bar, dot, zero, cells }, j) => {
        const [a, b] = [at(lower[j]), at(upper[j])]
        bar.style.left = `${a}%`
        bar.style.width = `${Math.max(b - a, 0)}%`
        dot.style.left = `${at(logits[j])}%`
        zero.style.left = `${at(0)}%`
        row.className = `${j === label ? 'label' : margin[j] > 0 ? 'safe' : 'rival'}${j === prediction ? ' first' : ''}${j === marked ? ' reached' : ''}`
        const texts = [
          plain(lower[j], 2),
          plain(logits[j], 2),
          plain(upper[j], 2),
          j === label ? '' : signed(margin[j], 2),
        ]
        cells.forEach((cell, i) => {
          cell.textContent = texts[i]
          cell.dataset.value = String([lower, logits, upper, margin][i][j])
        })
        if (j === label) cells[3].textContent = 'label'
      })
      const step = stepOf(high - low)
      const first = Math.ceil(low / step)
      axis.replaceChildren(
        ...Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => {
          const v = (first + i) * step
          const tick = el('i', {}, plain(v, step < 1 ? (step < 0.1 ? 2 : 1) : 0))
          tick.style.left = `${at(v)}%`
          return tick
        }),
      )
    },
  }
}
