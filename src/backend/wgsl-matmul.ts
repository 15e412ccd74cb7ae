import {
  type Axis,
  address,
  entry,
  type Kernel,
  LANES,
  type Operand,
  product,
  type Ref,
  type Target,
  unravel,
} from './wgsl.ts'
import { foldKernel, type View } from './wgsl-loop.ts'

/**
 * The tile kernel of matrix products and convolutions: out[z, row, col] = sum over k of a(z, row, k) b(z, k, col).
 *
 * A workgroup makes a tile of up to 128 x 128 results, each of its 256 invocations up to 8 x 8 of them in registers; pieces of a and b pass through workgroup memory. Where few tiles meet a long k, several workgroups share a tile's k and a second dispatch adds
 * their parts, always in the same order.
 */

export interface Side {
  /** The index that runs along memory: neighbouring invocations read along it. */
  readonly along: 'k' | 'i'
  /** Body of fn(z, i, k) -> f32, i being the row or column; of a vec4 along `along` in a wide product. */
  readonly load: (ref: Ref) => string
}

export interface Product {
  readonly rows: number
  readonly cols: number
  readonly depth: number
  readonly batch: number
  readonly out: Operand
  readonly left: Operand
  readonly right: Operand
  /** Everything is read and written four elements at a time: sides load vec4, `store` takes one. */
  readonly wide: boolean
  readonly a: Side
  readonly b: Side
  /** Body of fn(z, row, col, v). */
  readonly store: (ref: Ref) => string
  /** The results' layout as dims of z, row and col together; where it is given, k may be split. */
  readonly layout?: { readonly dims: readonly number[]; readonly strides: readonly number[] }
}

interface Tile {
  /** Invocations of a workgroup: rows and columns of them, LANES in all. */
  readonly ty: number
  readonly tx: number
  /** Results of one invocation. */
  readonly down: number
  readonly across: number
  /** Steps of k in workgroup memory at a time. */
  readonly deep: number
}

/** Tiles that keep a GPU busy. */
const BUSY = 128

const tilesOf = (p: Product, t: Tile): readonly [number, number] => [
  Math.ceil(p.rows / (t.ty * t.down)),
  Math.ceil(p.cols / (t.tx * t.across)),
]

/** A tile that wastes little: long ones for a few rows or columns (channels, classes), square ones otherwise. */
const tileOf = (p: Product): Tile => {
  const of = (ty: number, tx: number, down = 4, across = 4, deep = 16): Tile => ({ ty, tx, down, across, deep })
  const large = of(16, 16, 8, 8, 8)
  if (p.rows > 64 && p.cols > 64 && product(tilesOf(p, large)) * p.batch >= BUSY) return large
  if (p.rows <= 16 && p.cols > 128) return of(4, 64, 4, 4, 8)
  if (p.rows <= 32 && p.cols > 64) return of(8, 32)
  if (p.cols <= 16 && p.rows > 128) return of(64, 4, 4, 4, 8)
  if (p.cols <= 32 && p.rows > 64) return of(32, 8)
  const fit = (n: number) => (n <= 16 ? 1 : n <= 32 ? 2 : 4)
  return of(16, 16, fit(p.rows), p.wide ? 4 : fit(p.cols))
}

/** How many workgroups share one tile's k. */
const partsOf = (p: Product, t: Tile): number => {
  const tiles = product(tilesOf(p, t)) * p.batch
  if (p.layout === undefined || tiles >= BUSY || p.depth < 512) return 1
  return Math.min(64, Math.ceil((2 * BUSY) / tiles), Math.floor(p.depth / 256))
}

const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i)

/**
 * How one piece of a side comes into workgroup memory: `before` the loop over k, and `inside` it. An invocation keeps its place along
 * memory all the time, so that a compiler can move what depends on it alone (the pixel of a convolution) out of the loop.
 */
const fetch = (p: Product, name: 'a' | 'b', side: Side, extent: number, tile: number, t: Tile, pitch: number) => {
  const step = p.wide ? 4 : 1
  const [inner, outer] = side.along === 'k' ? [t.deep / step, tile] : [tile / step, t.deep]
  const [k, i] = side.along === 'k' ? [`fast_${name}`, 's'] : ['s', `fast_${name}`]
  const first = name === 'a' ? 'row0' : 'col0'
  const stores =
    step === 1
      ? [`tile_${name}[${k} * ${pitch} + ${i}] = v;`]
      : range(4).map((j) =>
          side.along === 'k'
            ? `tile_${name}[(${k} + ${j}) * ${pitch} + ${i}] = v[${j}];`
            : `tile_${name}[${k} * ${pitch} + ${i} + ${j}] = v[${j}];`,
        )
  return {
    before: `  let fast_${name} = lane % ${inner}${step === 1 ? '' : ` * ${step}`};`,
    inside: `    for (var s = lane / ${inner}; s < ${outer}; s += ${LANES / inner}) {
      var v = ${p.wide ? 'vec4<f32>()' : '0.0'};
      if (${first} + ${i} < ${extent} && k0 + ${k} < end) { v = load_${name}(z, ${first} + ${i}, k0 + ${k}); }
${stores.map((l) => `      ${l}`).join('\n')}
    }`,
  }
}

/** The functions that a product is made of. */
const functions = (p: Product, store: string, a: Ref, b: Ref): string => {
  const value = p.wide ? 'vec4<f32>' : 'f32'
  return `fn load_a(z: i32, i: i32, k: i32) -> ${value} {
${p.a.load(a)}
}
fn load_b(z: i32, i: i32, k: i32) -> ${value} {
${p.b.load(b)}
}
fn store(z: i32, part: i32, row: i32, col: i32, v: ${value}) {
${store}
}`
}

/** One invocation per result and no workgroup memory. */
const directKernel = (p: Product): Kernel => {
  const count = p.batch * p.rows * p.cols
  const groups = Math.ceil(count / LANES)
  return {
    operands: [p.out, p.left, p.right],
    groups,
    wide: false,
    code: ([out, a, b]) => `${functions(p, p.store(out), a, b)}
${entry(groups, LANES)}
  let e = group * ${LANES} + lane;
  if (e >= ${count}) { return; }
  let col = e % ${p.cols};
  let row = e / ${p.cols} % ${p.rows};
  let z = e / ${p.cols * p.rows};
  var sum = 0.0;
  for (var k = 0; k < ${p.depth}; k++) { sum += load_a(z, row, k) * load_b(z, col, k); }
  store(z, 0, row, col, sum);
}`,
  }
}

const productKernel = (p: Product, t: Tile, parts: number, target: Operand): Kernel => {
  const [height, width] = [t.ty * t.down, t.tx * t.across]
  const [tilesDown, tilesAcross] = tilesOf(p, t)
  const groups = tilesDown * tilesAcross * p.batch * parts
  const part = Math.ceil(p.depth / parts / t.deep) * t.deep
  const step = p.wide ? 4 : 1
  // Two more than a power of two: reads and writes of the tiles then hit different banks. Four where vec4 loads want alignment.
  const pad = p.wide ? 4 : 2
  const colOf = (c: number) => (p.wide ? `tx * 4 + ${Math.floor(c / 4) * 4 * t.tx + (c % 4)}` : `tx + ${c * t.tx}`)
  const left = fetch(p, 'a', p.a, p.rows, height, t, height + pad)
  const right = fetch(p, 'b', p.b, p.cols, width, t, width + pad)
  const results = range(t.down).flatMap((r) => range(t.across).map((c) => [r, c] as const))
  // Results leave by a loop over a local array: the statement of a store may be long, and unrolled it is most of what compiling takes.
  const result = p.wide
    ? `vec4<f32>(${range(4)
        .map((j) => `results[r * ${t.across} + c + ${j}]`)
        .join(', ')})`
    : `results[r * ${t.across} + c]`
  const column = p.wide ? `tx * 4 + c * ${t.tx}` : `tx + c * ${t.tx}`
  return {
    operands: [target, p.left, p.right],
    groups,
    wide: p.wide,
    code: ([out, a, b]) => `var<workgroup> tile_a: array<f32, ${t.deep * (height + pad)}>;
var<workgroup> tile_b: array<f32, ${t.deep * (width + pad)}>;
${functions(
  p,
  parts === 1
    ? p.store(out)
    : `  ${out.buffer}[${out.base} + (((part * ${p.batch} + z) * ${p.rows} + row) * ${p.cols} + col) / ${step}] = v;`,
  a,
  b,
)}
${entry(groups, LANES)}
  let row0 = group % ${tilesDown} * ${height};
  let col0 = group / ${tilesDown} % ${tilesAcross} * ${width};
  let z = group / ${tilesDown * tilesAcross} % ${p.batch};
  let part = group / ${tilesDown * tilesAcross * p.batch};
  let tx = lane % ${t.tx};
  let ty = lane / ${t.tx};
  let end = min(${p.depth}, (part + 1) * ${part});
${left.before}
${right.before}
${results.map(([r, c]) => `  var c${r}_${c} = 0.0;`).join('\n')}
  for (var k0 = part * ${part}; k0 < end; k0 += ${t.deep}) {
${left.inside}
${right.inside}
    workgroupBarrier();
    for (var k = 0; k < ${t.deep}; k++) {
${range(t.down)
  .map((r) => `      let a${r} = tile_a[k * ${height + pad} + ty * ${t.down} + ${r}];`)
  .join('\n')}
${range(t.across)
  .map((c) => `      let b${c} = tile_b[k * ${width + pad} + ${colOf(c)}];`)
  .join('\n')}
${results.map(([r, c]) => `      c${r}_${c} += a${r} * b${c};`).join('\n')}
    }
    workgroupBarrier();
  }
  if (part >= ${parts}) { return; }
  var results = array<f32, ${results.length}>(${results.map(([r, c]) => `c${r}_${c}`).join(', ')});
  for (var r = 0; r < ${t.down}; r++) {
    let row = row0 + ty * ${t.down} + r;
    for (var c = 0; c < ${t.across}; c += ${step}) {
      let col = col0 + ${column};
      if (row < ${p.rows} && col < ${p.cols}) { store(z, part, row, col, ${result}); }
    }
  }
}`,
  }
}

const workOf = (p: Pick<Product, 'rows' | 'cols' | 'depth' | 'batch'>): number => p.batch * p.rows * p.cols * p.depth

/** The kernels of a product: one dispatch, or two where k is split. */
export const productKernels = (p: Product, { scratch, direct }: Target): readonly Kernel[] => {
  if (p.rows * p.cols * p.batch === 0) return []
  if (workOf(p) <= direct) return [directKernel(p)]
  const tile = tileOf(p)
  const parts = partsOf(p, tile)
  if (parts === 1 || p.layout === undefined) return [productKernel(p, tile, 1, p.out)]
  const partial: Operand = { slot: scratch(parts * p.batch * p.rows * p.cols), offset: 0 }
  const out: View = { ...p.out, strides: p.layout.strides }
  return [productKernel(p, tile, parts, partial), foldKernel(partial, parts, p.layout.dims, out)]
}

/** Body of a store where z, row and col split into the dims of a layout. */
export const storeAt = (dims: readonly number[], strides: readonly number[]) => {
  const axes = dims.map((extent, i): Axis => ({ name: `o${i}`, extent }))
  return (ref: Ref): string => {
    const [z, row, ...cols] = axes
    const lines = [
      ...(z.extent === 1 ? [] : [`let ${z.name} = z;`]),
      ...(row.extent === 1 ? [] : [`let ${row.name} = row;`]),
      ...unravel('col', cols),
      `${ref.buffer}[${address(ref.base, axes, strides)}] = v;`,
    ]
    return lines.map((s) => `  ${s}`).join('\n')
  }
}

export interface Matmul {
  readonly a: number
  readonly b: number
  readonly out: number
  readonly m: number
  readonly k: number
  readonly n: number
  readonly transA: boolean
  readonly transB: boolean
  readonly batch: number
  /** Elements from one product of the batch to the next. */
  readonly strideA: number
  readonly strideB: number
  readonly strideOut: number
}

/** `aligned`: every operand begins at a multiple of four elements. */
export const matmulKernels = (x: Matmul, aligned: boolean, target: Target): readonly Kernel[] => {
  const { m, k, n, batch } = x
  const fours = [x.transA ? m : k, x.transB ? k : n, n, ...(batch > 1 ? [x.strideA, x.strideB, x.strideOut] : [])]
  const tiled = batch * m * k * n > target.direct
  const wide = tiled && aligned && n > 32 && fours.every((s) => s % 4 === 0)
  const u = wide ? 4 : 1
  const quarter = (index: string) => (wide ? `${index} / 4` : index)
  const layout = { dims: [batch, m, n], strides: [x.strideOut, n, 1] }
  return productKernels(
    {
      rows: m,
      cols: n,
      depth: k,
      batch,
      out: { slot: x.out, offset: 0 },
      left: { slot: x.a, offset: 0 },
      right: { slot: x.b, offset: 0 },
      wide,
      a: {
        along: x.transA ? 'i' : 'k',
        load: (ref) =>
          `  return ${ref.buffer}[${ref.base} + z * ${x.strideA / u} + ${x.transA ? `k * ${m / u} + ${quarter('i')}` : `i * ${k / u} + ${quarter('k')}`}];`,
      },
      b: {
        along: x.transB ? 'k' : 'i',
        load: (ref) =>
          `  return ${ref.buffer}[${ref.base} + z * ${x.strideB / u} + ${x.transB ? `i * ${k / u} + ${quarter('k')}` : `k * ${n / u} + ${quarter('i')}`}];`,
      },
      store: wide
        ? (ref) => `  ${ref.buffer}[${ref.base} + z * ${x.strideOut / 4} + row * ${n / 4} + col / 4] = v;`
        : storeAt(layout.dims, layout.strides),
      layout,
    },
    target,
  )
}
