import { byId, el, plain, signed } from './dom.ts'
import { type Bounds, CLASSES } from './protocol.ts'

/** A round step that cuts `span` into about four parts. */
const stepOf = (span: number): number => {
  const raw = span / 4
  const power = 10 ** Math.floor(Math.log10(raw))
  return power * ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10)
}

const rowsOf = (body: HTMLElement): readonly HTMLElement[] => {
  if (body.children.length === 0)
    body.replaceChildren(
      ...Array.from({ length: CLASSES }, (_, j) => {
        const marks = ['zero', 'bar', 'dot'].map((name) => el('i', { class: name }))
        const cells = ['number wide', 'number wide', 'number wide', 'number margin'].map((name) =>
          el('td', { class: name }),
        )
        const track = el('td', { class: 'track' }, el('div', { 'aria-hidden': 'true' }, ...marks))
        return el('tr', {}, el('th', { scope: 'row' }, String(j)), track, ...cells)
      }),
    )
  return [...body.children] as HTMLElement[]
}

/** Ten bars lower .. upper with the logit at the image, on one scale, and the lower bound of each margin; `reached` is the class that an attack came to. */
export const showIntervals = (
  { logits, lower, upper, margin, label, prediction }: Bounds,
  [low, high]: readonly [number, number],
  reached: number | undefined,
): void => {
  const at = (v: number) => 100 * Math.min(1, Math.max(0, (v - low) / (high - low)))
  rowsOf(byId('intervals').querySelector('tbody') as HTMLElement).forEach((row, j) => {
    const [zero, bar, dot] = [...row.querySelectorAll<HTMLElement>('i')]
    const cells = [...row.querySelectorAll<HTMLElement>('td.number')]
    bar.style.left = `${at(lower[j])}%`
    bar.style.width = `${Math.max(at(upper[j]) - at(lower[j]), 0)}%`
    dot.style.left = `${at(logits[j])}%`
    zero.style.left = `${at(0)}%`
    const kind = j === label ? 'label' : margin[j] > 0 ? 'safe' : 'rival'
    row.className = `${kind}${j === prediction ? ' first' : ''}${j === reached ? ' reached' : ''}`
    const texts = [
      plain(lower[j], 2),
      plain(logits[j], 2),
      plain(upper[j], 2),
      j === label ? 'label' : signed(margin[j], 2),
    ]
    cells.forEach((cell, i) => {
      cell.textContent = texts[i]
      cell.dataset.value = String([lower, logits, upper, margin][i][j])
    })
  })
  const step = stepOf(high - low)
  const first = Math.ceil(low / step)
  byId('axis').replaceChildren(
    ...Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => {
      const v = (first + i) * step
      const tick = el('i', {}, plain(v, step < 1 ? (step < 0.1 ? 2 : 1) : 0))
      tick.style.left = `${at(v)}%`
      return tick
    }),
  )
}
