const bits = (value: number, length: number): string =>
  length === 0 ? '' : value.toString(2).padStart(length, '0').slice(-length)

const segment = (marker: number, ...content: readonly number[]): readonly number[] => [
  0xff,
  marker,
  (content.length + 2) >> 8,
  (content.length + 2) & 255,
  ...content,
]

/**
 * A baseline JPEG whose 8 x 8 blocks have one colour each: `blocks` by row, each a value (greyscale) or luma, blue and red chroma. The
 * quantiser of 8 makes a grey value v exactly the coefficient v - 128. Codes: four bits for the size of a difference, one bit
 * for "no more coefficients".
 */
export const jpeg = (width: number, height: number, blocks: readonly (readonly number[])[]): Uint8Array => {
  const components = blocks[0].length
  const before = new Array<number>(components).fill(0)
  let stream = ''
  for (const block of blocks)
    block.forEach((value, c) => {
      const difference = value - 128 - before[c]
      before[c] = value - 128
      const size = difference === 0 ? 0 : Math.floor(Math.log2(Math.abs(difference))) + 1
      stream += `${bits(size, 4)}${bits(difference < 0 ? difference + 2 ** size - 1 : difference, size)}0`
    })
  stream = stream.padEnd(8 * Math.ceil(stream.length / 8), '1')
  const data = (stream.match(/.{8}/g) ?? []).flatMap((byte) => {
    const value = Number.parseInt(byte, 2)
    return value === 255 ? [255, 0] : [value]
  })
  const each = (f: (c: number) => readonly number[]) => Array.from({ length: components }, (_, c) => f(c)).flat()
  const lengths = (length: number, count: number) =>
    Array.from({ length: 16 }, (_, i) => (i + 1 === length ? count : 0))
  return Uint8Array.from([
    ...[0xff, 0xd8],
    ...segment(0xdb, 0, ...new Array<number>(64).fill(8)),
    ...segment(
      0xc0,
      8,
      height >> 8,
      height & 255,
      width >> 8,
      width & 255,
      components,
      ...each((c) => [c + 1, 0x11, 0]),
    ),
    ...segment(0xc4, 0x00, ...lengths(4, 12), ...Array.from({ length: 12 }, (_, i) => i)),
    ...segment(0xc4, 0x10, ...lengths(1, 1), 0),
    ...segment(0xda, components, ...each((c) => [c + 1, 0]), 0, 63, 0),
    ...data,
    ...[0xff, 0xd9],
  ])
}

/** 64 blocks of 8 x 8 pixels. */
export const picture = (colour: (block: number) => readonly number[]): Uint8Array =>
  jpeg(
    64,
    64,
    Array.from({ length: 64 }, (_, i) => colour(i)),
  )
