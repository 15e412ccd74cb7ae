import { drawGrey, shifted } from './picture.ts'
import { PIXELS, SIDE } from './protocol.ts'

export interface Pad {
  readonly pixels: () => Float32Array
  /** Shows an image; it counts as drawn once somebody draws on it. */
  readonly show: (pixels: Float32Array) => void
  readonly clear: () => void
}

/** What was done to the picture: `drawn` by the pen, `moved` as a whole. */
type Change = 'drawn' | 'moved' | 'cleared'

/** Half the width of a stroke, in pixels. */
const PEN = 1.15
const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
}

/** Draws with mouse, pen, finger or keys into 28 x 28 grey values. */
export const pad = (canvas: HTMLCanvasElement, changed: (change: Change) => void): Pad => {
  let pixels: Float32Array = new Float32Array(PIXELS)
  /** Where the pen of the keyboard is, once it was used. */
  let cursor: { x: number; y: number; down: boolean } | undefined

  const redraw = (): void => {
    drawGrey(canvas, pixels)
    const context = canvas.getContext('2d')
    if (cursor === undefined || context === null) return
    context.fillStyle = cursor.down ? 'rgb(255 140 40 / 90%)' : 'rgb(90 130 255 / 80%)'
    context.fillRect(Math.round(cursor.x), Math.round(cursor.y), 1, 1)
  }

  /** A stroke from (ax, ay) to (bx, by), with soft edges. */
  const stroke = (ax: number, ay: number, bx: number, by: number): void => {
    const [dx, dy] = [bx - ax, by - ay]
    const length = dx * dx + dy * dy
    for (let i = 0; i < PIXELS; i++) {
      const [x, y] = [i % SIDE, Math.floor(i / SIDE)]
      const t = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length))
      const distance = Math.hypot(x - ax - t * dx, y - ay - t * dy)
      pixels[i] = Math.max(pixels[i], Math.min(1, Math.max(0, PEN + 0.5 - distance)))
    }
  }

  const done = (change: Change): void => {
    redraw()
    changed(change)
  }
  const clear = (): void => {
    pixels = new Float32Array(PIXELS)
    done('cleared')
  }

  // ---- pointer ------------------------------------------------------------------------------------------------------
  let last: readonly [number, number] | undefined
  const place = (e: PointerEvent): readonly [number, number] => {
    const box = canvas.getBoundingClientRect()
    return [((e.clientX - box.left) / box.width) * SIDE - 0.5, ((e.clientY - box.top) / box.height) * SIDE - 0.5]
  }
  const draw = (e: PointerEvent): void => {
    const [x, y] = place(e)
    stroke(...(last ?? [x, y]), x, y)
    last = [x, y]
  }
  canvas.addEventListener('pointerdown', (e) => {
    if (e.button !== 0) return
    canvas.setPointerCapture(e.pointerId)
    cursor = undefined
    draw(e)
    done('drawn')
  })
  canvas.addEventListener('pointermove', (e) => {
    if (last === undefined) return
    for (const point of e.getCoalescedEvents?.() ?? []) draw(point)
    draw(e)
    done('drawn')
  })
  for (const end of ['pointerup', 'pointercancel'] as const)
    canvas.addEventListener(end, () => {
      last = undefined
    })

  // ---- keys ---------------------------------------------------------------------------------------------------------
  const move = ([dx, dy]: readonly [number, number]): void => {
    const from = cursor ?? { x: 14, y: 6, down: false }
    const clamp = (v: number) => Math.min(SIDE - 1, Math.max(0, v))
    cursor = { ...from, x: clamp(from.x + dx), y: clamp(from.y + dy) }
    if (cursor.down) {
      stroke(from.x, from.y, cursor.x, cursor.y)
      done('drawn')
    } else redraw()
  }
  canvas.addEventListener('keydown', (e) => {
    const arrow = ARROWS[e.key]
    if (e.ctrlKey || e.metaKey || e.altKey) return
    if (arrow !== undefined && e.shiftKey) {
      pixels = shifted(pixels, ...arrow)
      done('moved')
    } else if (arrow !== undefined) move(arrow)
    else if (e.key === ' ') {
      cursor = { ...(cursor ?? { x: 14, y: 6 }), down: !(cursor?.down ?? false) }
      if (cursor.down) {
        stroke(cursor.x, cursor.y, cursor.x, cursor.y)
        done('drawn')
      } else redraw()
    } else if (e.key === 'Delete' || e.key === 'Backspace') clear()
    else return
    e.preventDefault()
  })
  canvas.addEventListener('blur', () => {
    cursor = undefined
    redraw()
  })

  redraw()
  return {
    pixels: () => pixels,
    show: (next) => {
      pixels = Float32Array.from(next)
      redraw()
    },
    clear,
  }
}
