import { PIXELS, SIDE } from './protocol.ts'

const put = (canvas: HTMLCanvasElement, colour: (i: number) => readonly [number, number, number, number]): void => {
  const context = canvas.getContext('2d')
  if (context === null) return
  const image = context.createImageData(SIDE, SIDE)
  for (let i = 0; i < PIXELS; i++) image.data.set(colour(i), 4 * i)
  context.putImageData(image, 0, 0)
}

/** Grey values in [0, 1], 1 is white. */
export const drawGrey = (canvas: HTMLCanvasElement, pixels: Float32Array): void =>
  put(canvas, (i) => {
    const v = Math.round(255 * pixels[i])
    return [v, v, v, 255]
  })

/** A change of at most `most` per pixel: blue is darker, orange is lighter. */
export const drawChange = (canvas: HTMLCanvasElement, from: Float32Array, to: Float32Array, most: number): void =>
  put(canvas, (i) => {
    const share = most > 0 ? (to[i] - from[i]) / most : 0
    const a = Math.round(255 * Math.min(1, Math.abs(share)))
    return share < 0 ? [64, 120, 255, a] : [255, 140, 40, a]
  })

export const drawNothing = (canvas: HTMLCanvasElement): void => put(canvas, () => [0, 0, 0, 0])

/** The pixels moved by whole pixels; what leaves is lost. */
export const shifted = (pixels: Float32Array, dx: number, dy: number): Float32Array =>
  Float32Array.from(pixels, (_, i) => {
    const [x, y] = [(i % SIDE) - dx, Math.floor(i / SIDE) - dy]
    return x >= 0 && x < SIDE && y >= 0 && y < SIDE ? pixels[y * SIDE + x] : 0
  })

/** Value between four pixels; 0 outside. x and y count pixel centres. */
const between = (pixels: Float32Array, x: number, y: number): number => {
  const at = (c: number, r: number) => (c >= 0 && c < SIDE && r >= 0 && r < SIDE ? pixels[r * SIDE + c] : 0)
  const [c, r] = [Math.floor(x), Math.floor(y)]
  const [u, v] = [x - c, y - r]
  return (1 - v) * ((1 - u) * at(c, r) + u * at(c + 1, r)) + v * ((1 - u) * at(c, r + 1) + u * at(c + 1, r + 1))
}

const INK = 0.1
/** Longest side of a digit in MNIST. */
const BOX = 20
const SAMPLES = [-1 / 3, 0, 1 / 3]

/** A drawing as MNIST has its digits: 20 pixels at its longest side, its centre of mass in the middle. */
export const centred = (pixels: Float32Array): Float32Array => {
  let [left, right, top, bottom] = [SIDE, -1, SIDE, -1]
  let [mass, mx, my] = [0, 0, 0]
  pixels.forEach((v, i) => {
    const [x, y] = [i % SIDE, Math.floor(i / SIDE)]
    mass += v
    mx += v * x
    my += v * y
    if (v < INK) return
    left = Math.min(left, x)
    right = Math.max(right, x)
    top = Math.min(top, y)
    bottom = Math.max(bottom, y)
  })
  if (right < 0) return pixels
  const scale = Math.min(2.5, BOX / Math.max(right - left + 1, bottom - top + 1))
  const middle = (SIDE - 1) / 2
  return Float32Array.from(pixels, (_, i) => {
    let sum = 0
    for (const dy of SAMPLES)
      for (const dx of SAMPLES) {
        const x = mx / mass + ((i % SIDE) + dx - middle) / scale
        const y = my / mass + (Math.floor(i / SIDE) + dy - middle) / scale
        sum += between(pixels, x, y)
      }
    return Math.min(1, sum / SAMPLES.length ** 2)
  })
}

/** Ink is light in these images; a picture whose border is lighter than this has dark ink on paper. */
const PAPER = 0.5

/** A picture of a digit as 28 x 28 grey values, light on dark: a photograph of ink on paper is turned round, and its paper becomes black. */
export const pictureOf = async (file: Blob): Promise<Float32Array> => {
  const bitmap = await createImageBitmap(file)
  const scale = SIDE / Math.max(bitmap.width, bitmap.height)
  const canvas = new OffscreenCanvas(SIDE, SIDE)
  const context = canvas.getContext('2d')
  if (context === null) throw new Error('no canvas')
  const [w, h] = [bitmap.width * scale, bitmap.height * scale].map((v) => Math.max(1, v))
  context.imageSmoothingQuality = 'high'
  // What is beside a picture that is not square has the colour of its corner; transparent pixels are white.
  context.fillStyle = '#fff'
  context.fillRect(0, 0, SIDE, SIDE)
  context.drawImage(bitmap, 0, 0, 1, 1, 0, 0, SIDE, SIDE)
  context.drawImage(bitmap, (SIDE - w) / 2, (SIDE - h) / 2, w, h)
  bitmap.close()
  const { data } = context.getImageData(0, 0, SIDE, SIDE)
  const grey = Float32Array.from({ length: PIXELS }, (_, i) => {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3)
    return (0.299 * r + 0.587 * g + 0.114 * b) / 255
  })
  return cleaned(grey)
}

/** Light ink on black: turned round where the border is paper, stretched from the border's grey to the brightest ink. */
export const cleaned = (grey: Float32Array): Float32Array => {
  const border = [...grey.keys()].filter(
    (i) => i < SIDE || i >= PIXELS - SIDE || i % SIDE === 0 || i % SIDE === SIDE - 1,
  )
  const middle = border.map((i) => grey[i]).sort((a, b) => a - b)[border.length >> 1]
  const light = middle > PAPER ? grey.map((v) => 1 - v) : grey
  const ground = middle > PAPER ? 1 - middle : middle
  const top = light.reduce((a, b) => Math.max(a, b), 0)
  const span = Math.max(top - ground, 1e-3)
  // A faint rest of the ground, noise of the paper, is no ink.
  return light.map((v) => {
    const share = (v - ground) / span
    return Math.round(255 * Math.min(1, Math.max(0, share < 0.12 ? 0 : share))) / 255
  })
}
