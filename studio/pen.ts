// Drawing into 28 x 28 grey values: pictures in, pictures out.
import { shifted } from './picture.ts'
import { PIXELS, SIDE } from './protocol.ts'

export type Point = readonly [x: number, y: number]

/** Where the pen of the keyboard is. */
export interface Pen {
  readonly x: number
  readonly y: number
  readonly down: boolean
}

/** Half the width of a stroke, in pixels. */
const WIDTH = 1.15
const FIRST: Pen = { x: 14, y: 6, down: false }
const ARROWS: Readonly<Record<string, Point>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
}

/** As a byte of an image has it: a link carries bytes. */
export const toByte = (v: number): number => Math.round(255 * Math.min(1, Math.max(0, v)))
export const fromBytes = (bytes: ArrayLike<number>): Float32Array => Float32Array.from(bytes, (b) => b / 255)

/** A stroke from a to b with soft edges. */
export const stroke = (pixels: Float32Array, [ax, ay]: Point, [bx, by]: Point): Float32Array => {
  const [dx, dy] = [bx - ax, by - ay]
  const length = dx * dx + dy * dy
  return pixels.map((v, i) => {
    const [x, y] = [i % SIDE, Math.floor(i / SIDE)]
    const t = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length))
    return Math.max(v, toByte(WIDTH + 0.5 - Math.hypot(x - ax - t * dx, y - ay - t * dy)) / 255)
  })
}

/** What was done to a picture: `drawn` by the pen, `moved` as a whole. */
export type Change = 'drawn' | 'moved' | 'cleared' | 'none'

export interface Drawing {
  readonly pixels: Float32Array
  readonly pen: Pen | undefined
}

const clamp = (v: number): number => Math.min(SIDE - 1, Math.max(0, v))

/** What a key does to a drawing; undefined: nothing, the key is not the pad's. */
export const keyed = (
  { pixels, pen }: Drawing,
  key: string,
  shift: boolean,
): (Drawing & { readonly change: Change }) | undefined => {
  const arrow = ARROWS[key]
  const from = pen ?? FIRST
  if (arrow !== undefined && shift) return { pixels: shifted(pixels, ...arrow), pen, change: 'moved' }
  if (arrow !== undefined) {
    const to = { ...from, x: clamp(from.x + arrow[0]), y: clamp(from.y + arrow[1]) }
    return to.down
      ? { pixels: stroke(pixels, [from.x, from.y], [to.x, to.y]), pen: to, change: 'drawn' }
      : { pixels, pen: to, change: 'none' }
  }
  if (key === ' ') {
    const to = { ...from, down: !from.down }
    return to.down
      ? { pixels: stroke(pixels, [to.x, to.y], [to.x, to.y]), pen: to, change: 'drawn' }
      : { pixels, pen: to, change: 'none' }
  }
  if (key === 'Delete' || key === 'Backspace') return { pixels: new Float32Array(PIXELS), pen, change: 'cleared' }
  return undefined
}
