import { byId, el, say } from './dom.ts'
import { drawGrey } from './picture.ts'
import { PIXELS } from './protocol.ts'

export interface TestImages {
  readonly images: Uint8Array
  readonly labels: Uint8Array
}

/** Pixels as the library hands them to a network: float32(byte / 255). */
export const imageOf = ({ images }: TestImages, index: number): Float32Array =>
  Float32Array.from(images.subarray(index * PIXELS, (index + 1) * PIXELS), (byte) => byte / 255)

const PAGE = 20

/** Test images to choose from: a radio group, twenty at a time. `choose(undefined)` takes the mark away. */
export const strip = (
  test: TestImages,
  picked: (index: number) => void,
): { readonly choose: (index: number | undefined) => void } => {
  const [group, range] = [byId('strip'), byId('strip-range')]
  const count = test.labels.length
  let from = 0
  let chosen: number | undefined

  const mark = (): void => {
    const buttons = [...group.querySelectorAll('button')]
    const within = chosen !== undefined && chosen >= from && chosen < from + PAGE
    buttons.forEach((b, i) => {
      b.setAttribute('aria-checked', String(from + i === chosen))
      // One stop of the tab key for the whole group.
      b.tabIndex = (within ? from + i === chosen : i === 0) ? 0 : -1
    })
  }
  const choose = (index: number | undefined): void => {
    chosen = index
    mark()
  }
  const pick = (index: number): void => {
    choose(index)
    picked(index)
  }
  const show = (): void => {
    group.replaceChildren(
      ...Array.from({ length: Math.min(PAGE, count - from) }, (_, i) => {
        const index = from + i
        const canvas = el('canvas', { width: 28, height: 28, 'aria-hidden': 'true' })
        drawGrey(canvas, imageOf(test, index))
        const label = `Test image ${index}, labelled ${test.labels[index]}`
        const button = el('button', { type: 'button', role: 'radio', 'aria-label': label, title: label }, canvas)
        button.addEventListener('click', () => pick(index))
        return button
      }),
    )
    say(range, `${from} – ${Math.min(count, from + PAGE) - 1}`)
    mark()
  }
  group.addEventListener('keydown', (e) => {
    const buttons = [...group.querySelectorAll('button')]
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement)
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key]
    if (at < 0 || step === undefined) return
    e.preventDefault()
    const to = (at + step + buttons.length) % buttons.length
    buttons[to].focus()
    pick(from + to)
  })
  const turn = (step: number) => (): void => {
    from = Math.max(0, Math.min(count - PAGE, from + step))
    show()
  }
  byId('previous').addEventListener('click', turn(-PAGE))
  byId('next').addEventListener('click', turn(PAGE))
  show()
  return { choose }
}
