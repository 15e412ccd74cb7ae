import { LANES } from './wgsl.ts'

/** Sizes of a batch of matrix products: rows x depth times depth x cols. */
export interface Sizes {
  readonly rows: number
  readonly cols: number
  readonly depth: number
  readonly batch: number
}

/** How a product is cut into workgroups. */
export interface Tile {
  /** Invocations of a workgroup: rows and columns of them, LANES in all. */
  readonly ty: number
  readonly tx: number
  /** Results of one invocation, multiples of four: 8 x 8 where a tile is large. */
  readonly down: number
  readonly across: number
  /** Steps of k in workgroup memory at a time, a multiple of four. */
  readonly deep: number
}

const tile = (ty: number, tx: number, down: number, across: number, deep: number): Tile => ({
  ty,
  tx,
  down,
  across,
  deep,
})

/** Every one fits the 16 KiB of workgroup memory that each device has, padding included (wgsl-product.ts). */
export const TILES: readonly Tile[] = [
  tile(16, 16, 8, 8, 8),
  tile(8, 32, 8, 8, 8),
  tile(32, 8, 8, 8, 8),
  tile(16, 16, 8, 4, 8),
  tile(16, 16, 4, 8, 8),
  tile(16, 16, 4, 4, 16),
  tile(8, 32, 4, 4, 16),
  tile(32, 8, 4, 4, 16),
  tile(4, 64, 4, 4, 8),
  tile(64, 4, 4, 4, 8),
]

/** A tile, and how many workgroups share its k. */
export interface Cut {
  readonly tile: Tile
  readonly parts: number
}

export const tilesOf = ({ rows, cols }: Sizes, t: Tile): readonly [number, number] => [
  Math.ceil(rows / (t.ty * t.down)),
  Math.ceil(cols / (t.tx * t.across)),
]

// The model of a large GPU by which tiles are compared, in units of one multiply-add of one workgroup.
/** Workgroups that run side by side: two on each of some 130 processors. */
const SIDE_BY_SIDE = 256
/** One element of a or b on its way through workgroup memory. */
const LOAD = 24
/** A further dispatch: some three microseconds. */
const DISPATCH = 300_000
/** One partial result, written, read and added. */
const PARTIAL = 64
/** The shortest k that is worth a workgroup of its own. */
const SHORTEST = 64

const PARTS = [1, 2, 4, 8, 16, 32, 64]

const costOf = (p: Sizes, { tile: t, parts }: Cut): number => {
  const [height, width] = [t.ty * t.down, t.tx * t.across]
  const [down, across] = tilesOf(p, t)
  const waves = Math.ceil((down * across * p.batch * parts) / SIDE_BY_SIDE)
  const sums = waves * (height * width + LOAD * (height + width)) * Math.ceil(p.depth / parts)
  const results = p.rows * p.cols * p.batch
  return parts === 1 ? sums : sums + DISPATCH + ((parts + 1) * results * PARTIAL) / SIDE_BY_SIDE
}

/**
 * The cheapest cut of a product by a model of a large GPU: large tiles where there are many of them, long ones for few rows or columns
 * (channels, classes), and several workgroups for one tile where few results meet a long k. A function of the sizes alone, so
 * that sums are the same trees on every device. At most `most` parts.
 */
export const cutOf = (p: Sizes, most = Number.POSITIVE_INFINITY): Cut => {
  const cuts = TILES.flatMap((t) =>
    PARTS.filter((parts) => parts === 1 || (parts <= most && p.depth >= parts * SHORTEST)).map(
      (parts): Cut => ({ tile: t, parts }),
    ),
  )
  const costs = cuts.map((c) => costOf(p, c))
  return cuts[costs.indexOf(Math.min(...costs))]
}

/** Distance in vec4 from one row of a piece to the next where the row runs along k: odd, so that eight rows lie in eight different banks. */
export const pitchAlongK = (t: Tile): number => t.deep / 4 + 1

/** vec4 that a piece of `extent` rows or columns takes in workgroup memory. */
export const pieceSize = (t: Tile, extent: number, along: 'k' | 'i'): number =>
  along === 'k' ? extent * pitchAlongK(t) : (t.deep * extent) / 4

/** vec4 of one piece that each invocation moves. */
export const movesOf = (t: Tile, extent: number): number => Math.ceil((extent * t.deep) / 4 / LANES)
